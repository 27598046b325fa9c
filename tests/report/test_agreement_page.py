"""The page of ``grape agree``."""

import shutil
from pathlib import Path

import pytest

from grape.cli.main import main
from grape.preferences import PairSettings, ScoreSettings, run_pair, run_score
from grape.report.best_effort import BestEffortReader
from grape.report.folders import Folder
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
    matrix = page.partition("Concordance of every source")[2].partition("</table>")[0]
    rows, cells = matrix.count("<tr><th>") - 1, matrix.count("<td")
    assert cells == rows**2
    assert matrix.count('"></td>') == rows  # who is compared with itself
    shutil.copytree(run / "scores", tmp_path / "run" / "scores")
    shutil.copytree(run / "store", tmp_path / "run" / "store")
    shutil.rmtree(tmp_path / "run" / "scores" / "scorers", ignore_errors=True)
    assert main(["report", str(tmp_path / "run"), "--pairs-shown", "0"]) == 0
    assert "Who orders as whom" not in (tmp_path / "run" / "report.html").read_text()


def test_a_report_is_silent_about_judges_of_other_scores(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "scores").rename(tmp_path / "scores")
    other = ScoreSettings(store=tmp_path / "run" / "store", out=tmp_path / "run" / "scores", calibrate=False)
    run_score(other)
    reader = BestEffortReader()
    folder = Folder(tmp_path / "run" / "scores", "scores", "score", complete=True, product=True, settings={})
    assert reader.agreement(folder, "run") is None
    assert reader.missing == []
    (tmp_path / "run" / "deeper").mkdir()
    run_pair(PairSettings(scores=other.out, out=tmp_path / "run" / "deeper" / "pairs", judge="random"))
    figures = reader.agreement(folder, "run")
    assert figures is not None
    assert [source["label"] for source in figures["sources"] if source["kind"] == "judge"] == ["random"]
    assert reader.missing == []
