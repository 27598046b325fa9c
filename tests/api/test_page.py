"""The blocks of docs/python.md run, one after another, as they stand."""

import re
from pathlib import Path
from typing import Any

import pytest

import grape

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python.md"


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    assert len([line for line in blocks[0].splitlines() if line]) <= 10
    names: dict[str, Any] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{PAGE.name}, block {number + 1}", "exec"), names)
    printed = capsys.readouterr().out
    assert "policy B" in printed or "not distinguishable" in printed
    assert "Trajectory('push-block-i000100-k00', toy/push-block" in printed
    assert f"policy={tmp_path / 'runs' / 'own' / 'policy'!r}" in printed


def test_the_page_names_all_that_there_is() -> None:
    page = PAGE.read_text(encoding="utf-8")
    missing = [name for name in set(grape.__all__) - {"__version__"} if f"`{name}`" not in page]
    assert not missing
