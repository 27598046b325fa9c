"""The page of ``grape agree``."""

import shutil
from pathlib import Path

import pytest

from grape.cli.main import main
from tests.agreement.test_agree import run

__all__ = ["run"]


def test_the_page_escapes_what_it_shows(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "votes").mkdir()
    shutil.copy(run / "votes" / "anna.jsonl", tmp_path / "votes" / "anna.jsonl")
    words = ["agree", str(run / "scores"), "--votes", str(tmp_path / "votes"), "--shown", "1"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert "orders as success does" in capsys.readouterr().out
    page = (tmp_path / "out" / "agreement.html").read_text()
    assert "<script>alert" not in page
    for text in ("Who orders as whom", "Calibration of judges", "opposite", "drawer-open, initial state 0"):
        assert text in page


def test_a_report_shows_how_scorers_and_judges_agree(run: Path, tmp_path: Path) -> None:
    assert main(["report", str(run), "--pairs-shown", "0", "--out", str(tmp_path / "with.html")]) == 0
    page = (tmp_path / "with.html").read_text()
    assert "Who orders as whom" in page
    assert "opposite" in page
    assert "16 rollouts" in page  # one store, though scores and pairs name it in different ways
    shutil.copytree(run / "scores", tmp_path / "run" / "scores")
    shutil.copytree(run / "store", tmp_path / "run" / "store")
    shutil.rmtree(tmp_path / "run" / "scores" / "scorers", ignore_errors=True)
    assert main(["report", str(tmp_path / "run"), "--pairs-shown", "0"]) == 0
    assert "Who orders as whom" not in (tmp_path / "run" / "report.html").read_text()
