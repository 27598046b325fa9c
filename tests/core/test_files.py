"""Atomic writes, and the removal of what killed processes leave; what is alive or foreign stays."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from grape.core.errors import DataError, GrapeError
from grape.core.files import (
    atomic_writer,
    read_json,
    read_jsonl,
    sweep_beside,
    sweep_run_folder,
    sweep_temporaries,
    temporary_path,
    write_json,
    write_jsonl,
)
from grape.core.runs import open_run


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "file.json"
    write_json(target, {"a": 1})

    def write_half() -> None:
        with atomic_writer(target) as handle:
            handle.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert read_json(target) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]


def test_a_folder_that_cannot_be_written_is_told_without_traceback(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(GrapeError, match="Could not write"):
        write_json(blocker / "below.json", {})


def test_truncated_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"a": 1}, {"b": 2}])
    path.write_text(path.read_text()[:-4])
    with pytest.raises(DataError, match="line 2"):
        read_jsonl(path)


KILLED = """
import os, signal, sys
from pathlib import Path
from grape.core.files import write_text
os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
write_text(Path(sys.argv[1]), "new")
"""


@pytest.fixture(scope="module")
def dead() -> int:
    """Number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def leave(path: Path, process: int, kind: str = "tmp", age: float = 0.0, mark: str = "") -> Path:
    """What a process of that number would leave of an attempt to write ``path``."""
    parts = temporary_path(path, kind).name.rsplit(".", 3)
    left = path.with_name(f"{parts[0]}.{process}.{mark or parts[2]}.{kind}")
    if kind == "old":
        left.mkdir()
        (left / "file").write_text("old")
    else:
        left.write_text("half")
    os.utime(left, (time.time() - age, time.time() - age))
    return left


def test_a_killed_write_is_cleared_by_the_next_run(tmp_path):
    run = open_run(tmp_path / "run", "verb", {"a": 1})
    del run
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    for name in ("done.json", "deep/er/rows.jsonl"):
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "run" / name)], check=False)
        assert ended.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "run").rglob(".*.tmp"))) == 2
    open_run(tmp_path / "run", "verb", {"a": 1})
    assert not list((tmp_path / "run").rglob(".*.tmp"))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == sorted([*before, "deep"])


def test_only_what_is_dead_and_ours_goes(tmp_path, dead):
    ours = tmp_path / "file.json"
    gone = [leave(ours, dead), leave(tmp_path / "x.y.json", dead), leave(ours, os.getpid())]
    kept = [
        leave(ours, os.getppid()),  # alive
        leave(ours, os.getppid(), age=9999),
        leave(ours, dead, mark="00ff"),  # of another machine, perhaps at work
        leave(ours, os.getppid(), mark="00ff", age=9999),
    ]
    for name in (".env", ".tmp", ".file.tmp", ".file.json.tmp", ".file.json.12x.ab.tmp", ".a.1.zz.tmp", "a.1.ab.tmp"):
        kept.append(tmp_path / name)
        kept[-1].write_text("foreign")
    gone.append(leave(tmp_path / "older", dead, mark="00ff", age=9999))
    sweep_temporaries(tmp_path)
    assert [path for path in gone if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []
    sweep_temporaries(tmp_path, alone=True)
    assert [path.exists() for path in kept[:4]] == [True, True, False, False]
    assert all(path.exists() for path in kept[4:])


def test_what_this_process_is_writing_stays(tmp_path):
    with atomic_writer(tmp_path / "rows") as handle:
        handle.write(b"1\n")
        sweep_run_folder(tmp_path, alone=True)
    assert (tmp_path / "rows").read_bytes() == b"1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def test_a_folder_that_was_moved_aside_gets_its_name_back(tmp_path, dead):
    leave(tmp_path / "best", dead, "old")
    leave(tmp_path / "kept", dead, "old")
    (tmp_path / "kept").mkdir()
    sweep_temporaries(tmp_path, alone=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "kept"]
    assert (tmp_path / "best" / "file").read_text() == "old"
    assert not list((tmp_path / "kept").iterdir())


def test_links_are_not_followed_and_other_runs_are_left_to_themselves(tmp_path, dead):
    outside, run = tmp_path / "outside", tmp_path / "run"
    for folder in (outside, run / "nested", run / "plain"):
        folder.mkdir(parents=True)
    write_json(run / "nested" / "run.json", {})
    kept = [leave(outside / "file", dead), leave(run / "nested" / "file", dead), leave(tmp_path / "beside", dead)]
    gone = leave(run / "plain" / "file", dead)
    (run / "link").symlink_to(outside)
    link = run / gone.name
    link.symlink_to(outside)
    sweep_run_folder(run, alone=True)
    assert all(path.exists() for path in kept)
    assert not gone.exists()
    assert not link.is_symlink()
    assert outside.is_dir()


def test_only_attempts_at_one_destination_go_where_one_is_named(tmp_path, dead):
    gone, kept = leave(tmp_path / "policy", dead), leave(tmp_path / "policy.v2", dead)
    sweep_beside(tmp_path / "policy")
    assert not gone.exists()
    assert kept.exists()
    sweep_beside(tmp_path / "nowhere" / "policy")


def test_a_folder_of_something_else_is_left_as_it_is(tmp_path, dead):
    left = leave(tmp_path / "file", dead)
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(Exception, match="is not empty"):
        open_run(tmp_path, "verb", {})
    assert left.exists()
