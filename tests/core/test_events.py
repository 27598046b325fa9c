import json
import os
from pathlib import Path

import pytest

from grape.core.errors import GrapeError
from grape.core.events import append_event, append_line


def test_events_are_lines_of_json_whatever_they_hold(tmp_path: Path) -> None:
    append_event(tmp_path, "start", name="x\x1b[2J\udcff", path=tmp_path)
    (tmp_path / "log.jsonl").open("a").write('{"time": "truncated')
    append_event(tmp_path, "end")
    first, truncated, last = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(first)["name"] == "x\x1b[2J\udcff"
    assert truncated == '{"time": "truncated'
    assert json.loads(last)["event"] == "end"


def test_what_is_no_regular_file_is_not_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "elsewhere").write_text("mine\n")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "link", "folder"):
        with pytest.raises(GrapeError, match=f"{name} cannot be written"):
            append_line(tmp_path / name, "x")
    assert (tmp_path / "elsewhere").read_text() == "mine\n"
