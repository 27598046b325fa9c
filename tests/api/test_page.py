"""The README's ten lines and the blocks of docs/python.md, which begin with them, run in their order as they stand."""

import re
from pathlib import Path
from typing import Any

import pytest

import grape

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "python.md"
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (ten_lines,) = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len([line for line in ten_lines.splitlines() if line]) <= 10
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) == 4
    assert blocks[0] == ten_lines
    names: dict[str, Any] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{PAGE.name}, block {number + 1}", "exec"), names)
    printed = capsys.readouterr().out
    reason, sentence = printed.splitlines()[:2]
    assert " of the margin " in reason
    assert "paired episodes" in sentence
    assert "Trajectory('push-block-i000100-k00', toy/push-block" in printed
    assert f"policy={tmp_path / 'runs' / 'own' / 'policy'!r}" in printed


def test_the_page_names_all_that_there_is() -> None:
    page = PAGE.read_text(encoding="utf-8")
    missing = [name for name in set(grape.__all__) - {"__version__"} if f"`{name}`" not in page]
    assert not missing
