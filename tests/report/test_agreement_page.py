"""The page of ``grape agree``."""

import shutil
from pathlib import Path

import pytest

from grape.cli.main import main
from grape.preferences import PairSettings, ScoreSettings, run_pair, run_score
from grape.report.best_effort import BestEffortReader
from grape.report.folders import Folder
from tests.agreement.test_agree import run
from tests.report.browser import Browser, find_chromium

__all__ = ["run"]

CHROMIUM = find_chromium()


def test_the_page_escapes_what_it_shows(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "votes").mkdir()
    shutil.copy(run / "votes" / "anna.jsonl", tmp_path / "votes" / "anna.jsonl")
    words = ["agree", str(run / "scores"), "--votes", str(tmp_path / "votes"), "--shown", "1"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    heard = capsys.readouterr()
    assert "orders as success does" in heard.out
    assert "There are votes in" not in heard.err
    page = (tmp_path / "out" / "agreement.html").read_text()
    assert "<script>alert" not in page
    for text in ("Who orders as whom", "Calibration of judges", "opposite", "drawer-open, initial state 0"):
        assert text in page


def test_votes_beside_the_scores_are_pointed_at(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agree", str(run / "scores"), "--no-page", "--out", str(tmp_path / "out")]) == 0
    assert f"--votes {run / 'votes'}" in capsys.readouterr().err


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine ('make install' brings it)")
def test_long_names_do_not_widen_the_page_of_a_phone(run: Path, tmp_path: Path) -> None:
    assert main(["agree", str(run / "scores"), "--shown", "1", "--out", str(tmp_path)]) == 0
    page = (tmp_path / "agreement.html").read_text()
    for short, long in (("drawer-open", "push_the_plate_to_the_front_of_the_stove"), ("opposite", "opposite" * 8)):
        assert short in page
        page = page.replace(short, long)
    (tmp_path / "long.html").write_text(page)
    assert CHROMIUM is not None
    with Browser(CHROMIUM, tmp_path / "profile") as browser:
        browser.open(tmp_path / "long.html", width=390, mobile=True)
        assert browser.evaluate("document.documentElement.scrollWidth") == 390
        # The names of columns stand in the cells then.
        cells = "[...document.querySelectorAll('table.matrix td')]"
        assert browser.evaluate(f"{cells}.every((cell) => cell.scrollWidth <= cell.clientWidth + 1)")


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
