import csv
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from grape.core.errors import DataError, SettingsError, printable
from grape.core.files import read_json, write_json, write_text
from grape.evaluation import compare_results, read_results
from grape.report import ReportSettings, plots, run_report
from grape.report.charts import Point
from grape.report.contents import read_contents
from grape.report.curves import Curves
from grape.report.figures import run_figures, write_figures
from grape.report.folders import find_folders, group_rounds
from grape.report.tables import csv_text
from tests.report.synthetic_run import write_evaluation, write_iteration

pytest.importorskip("matplotlib")


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


@pytest.fixture(scope="module")
def drawn(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Figures of the synthetic run."""
    folder = tmp_path_factory.mktemp("figures")
    summary = run_report(ReportSettings(run=run, out=folder / "page.html", pairs_shown=0, figures=True))
    assert Path(summary["figures"]) == folder / "figures"
    assert sorted(summary["figure_files"]) == sorted(path.name for path in (folder / "figures").iterdir())
    return folder / "figures"


def test_a_loop_gives_each_figure_as_pdf_and_png_and_each_table_as_csv(drawn: Path) -> None:
    stems = {suffix: {path.stem for path in drawn.glob(f"*.{suffix}")} for suffix in ("pdf", "png", "csv")}
    assert stems["pdf"] == stems["png"]
    assert {"success", "differences", "training-sft-loss", "training-tpo-margins", "scores-iteration-1"} <= stems["pdf"]
    assert stems["csv"] == {"success", "success-by-task", "differences", "scores", "pairs", "training"}


def test_figures_are_one_column_wide_and_their_fonts_can_be_printed(drawn: Path) -> None:
    for path in drawn.glob("*.png"):
        with Image.open(path) as image:
            assert image.width == round(300 * plots.COLUMN)
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
            assert image.convert("L").getextrema()[0] < 60
    for path in drawn.glob("*.pdf"):
        content = path.read_bytes()
        width = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ", content)
        assert width is not None
        assert float(width[1]) == pytest.approx(72 * plots.COLUMN)
        assert b"/Type3" not in content


def test_equal_runs_give_equal_bytes_without_dates_whatever_the_user_set(
    run: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 9.0)
    monkeypatch.setitem(matplotlib.rcParams, "pdf.fonttype", 3)
    figures, tables = run_figures(read_contents(run))
    write_figures(tmp_path, {name: figures[name] for name in ("success", "scores-iteration-2")}, tables)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (drawn / path.name).read_bytes(), path.name
        assert b"CreationDate" not in path.read_bytes()
    assert matplotlib.rcParams["lines.linewidth"] == 9.0


def test_tables_hold_what_was_measured_and_compared(run: Path, drawn: Path) -> None:
    success = rows(drawn / "success.csv")
    assert [(row["states"], row["policy"], row["accepted"]) for row in success] == [
        ("iterations", "SFT", "true"),
        ("iterations", "iteration 1", "true"),
        ("iterations", "iteration 2", "false"),
        ("iterations", "iteration 3", "true"),
        ("test", "SFT", ""),
        ("test", "iteration 3", ""),
    ]
    for row in success:
        results = read_results(run / row["evaluation"])
        assert float(row["success_rate"]) == results.success_rate
        assert (float(row["interval_low"]), float(row["interval_high"])) == results.interval
    differences = rows(drawn / "differences.csv")
    comparison = compare_results(read_results(run / "test" / "sft"), read_results(run / "test" / "last"))
    test = [row for row in differences if row["states"] == "test"]
    assert [row["task"] for row in test] == ["", *comparison["tasks"]]
    assert float(test[0]["difference"]) == comparison["difference"]
    for row in test[1:]:
        assert float(row["p_value"]) == comparison["tasks"][row["task"]]["p_holm"]
    assert [row["policy"] for row in differences[:3]] == ["iteration 1", "iteration 2", "iteration 3"]
    scores = rows(drawn / "scores.csv")
    for row in scores:
        terms = sum(float(value) for name, value in row.items() if name.startswith("term_"))
        assert terms == pytest.approx(float(row["r_gcpg"]))
    pairs = rows(drawn / "pairs.csv")
    assert {row["chosen"] for row in pairs} <= {row["episode"] for row in scores}
    assert len(rows(drawn / "training.csv")) == 400 + 3 * 50


def test_without_matplotlib_the_extra_is_named_and_nothing_is_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SettingsError, match="matplotlib") as caught:
        run_report(ReportSettings(run=run, out=tmp_path / "page.html", figures=True))
    assert "grape-vla[figures]" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_policies_that_no_loop_ordered_are_listed_not_joined(tmp_path: Path) -> None:
    for name, rate in (("before", 0.4), ("after", 0.6)):
        write_evaluation(tmp_path / name, rate, first_state=0)
    figures, tables = run_figures(read_contents(tmp_path))
    assert set(figures) == {"success", "differences"}
    assert figures["success"].func is plots.rates_figure  # type: ignore[attr-defined]
    assert [row["policy"] for row in tables["success"]] == ["before", "after"]


LABELS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@settings(max_examples=6, deadline=None)
@given(LABELS, st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_no_label_and_no_value_stops_a_drawing(label: str, values: list[float]) -> None:
    numbers = tuple(values)
    points = tuple(Point(index, value) for index, value in enumerate(numbers))
    drawings: list[Callable[[], Any]] = [
        lambda: plots.scores_figure([plots.Panel("score", (("success", numbers), ("failure", numbers[:1])))]),
        lambda: plots.curves_figure(Curves("k", label, label, "", ((label, points),), ((1.0, label),), None, ())),
        lambda: plots.forest_figure([plots.Difference(label, values[0], min(values), max(values), "")], "points"),
        lambda: plots.success_figure([label], [(label, [Point(0, 0.5, 0.4, 0.6)]), ("other", [])]),
    ]
    for draw in drawings:
        assert plots.render(draw)["pdf"].startswith(b"%PDF")


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.text(max_size=8), min_size=1), min_size=1, max_size=5))
def test_cells_are_read_back_with_control_characters_escaped(table: list[dict[str, str]]) -> None:
    columns = dict.fromkeys(name for row in table for name in row)
    back = list(csv.DictReader(io.StringIO(csv_text(table), newline="")))
    assert back == [{name: printable(row.get(name, "")) for name in columns} for row in table]


def comparison(arm: str, difference: float) -> dict[str, Any]:
    return {
        "arm": arm, "baseline": "sft", "difference": difference, "interval": [difference - 0.1, difference + 0.1],
        "interval_method": "bootstrap", "interval_seeds": None, "p_value": 0.01, "p_holm": 0.02, "tests": 2,
        "p_seeds": None, "pairs": 40, "states": 20, "higher": 9, "lower": 2, "verdict": "better",
        "seeds": {"0": difference - 0.05, "1": difference + 0.05},
    }  # fmt: skip


def write_study(folder: Path) -> Path:
    """A study of two arms, two seeds and two iterations, as ``grape study`` leaves it."""
    arms = [
        {
            "arm": arm, "seeds": [0, 1], "episodes": 8, "steps": 9.5, "collisions": None,
            "success": {"rate": rate, "interval": [rate - 0.2, rate + 0.2]}, "success_of_seeds": [rate, rate],
        }
        for arm, rate in (("sft", 0.25), ("tpo", 0.5))
    ]  # fmt: skip
    write_json(
        folder / "study.json",
        {"merit": {"name": "success"}, "arms": arms, "comparisons": [comparison("tpo", 0.25)], "tasks": ["reach"]},
    )
    for seed in (0, 1):
        for arm, iterations in (("sft", [0]), ("tpo", [1, 2])):
            rounds = [
                {
                    "iteration": iteration,
                    "outcomes": [[0, state, 0, int(state < iteration + seed), 9, None] for state in range(4)],
                    "curve": {"update": [1, 2], "rewards/margins": [0.1 + seed, None]} if iteration else {},
                }
                for iteration in iterations
            ]
            write_json(folder / "cells" / f"{seed}-{arm}.json", {"arm": arm, "tasks": ["reach"], "rounds": rounds})
    return folder


def test_a_study_gives_its_figures_and_keeps_its_own_page(tmp_path: Path) -> None:
    study = write_study(tmp_path / "study")
    with pytest.raises(SettingsError, match="study") as caught:
        run_report(ReportSettings(run=study))
    assert "--figures" in caught.value.hint
    summary = run_report(ReportSettings(run=study, figures=True))
    assert {"success.pdf", "differences.pdf", "success-by-iteration.pdf", "training-rewards-margins.pdf"} <= set(
        summary["figure_files"]
    )
    assert not (study / "report.html").exists()
    [row] = rows(study / "figures" / "differences.csv")
    assert (row["arm"], float(row["difference"]), float(row["difference_seed_1"])) == ("tpo", 0.25, 0.3)
    by_iteration = {(row["arm"], row["iteration"]): row for row in rows(study / "figures" / "success-by-iteration.csv")}
    assert set(by_iteration) == {("sft", "0"), ("tpo", "1"), ("tpo", "2")}
    assert by_iteration["tpo", "2"]["successes"] == "5"  # 2 of seed 0, 3 of seed 1


@pytest.mark.parametrize("damage", [{"arms": None}, {"comparisons": [{"arm": "tpo"}]}, {"merit": {"name": "speed"}}])
def test_a_damaged_study_is_named(damage: dict[str, Any], tmp_path: Path) -> None:
    study = write_study(tmp_path / "study")
    write_json(study / "study.json", read_json(study / "study.json") | damage)
    with pytest.raises(DataError, match="study"):
        run_report(ReportSettings(run=study, figures=True))


def test_folders_side_by_side_are_joined_by_what_they_were_made_from(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_iteration(tmp_path / name, 1000 if name == "a" else 2000, states=1)
    flat = tmp_path / "flat"
    flat.mkdir()
    for name in ("a", "b"):
        for verb, source in (("collect", ""), ("score", "store: runs/collect-{}"), ("pair", "scores: ./score-{}")):
            (tmp_path / name / verb).rename(flat / f"{verb}-{name}")
            write_text(flat / f"{verb}-{name}" / "settings.yaml", source.format(name) + "\n" if source else "{}\n")
    # The training of b's pairs comes first by its name, and a second pairing reads the scores of a.
    (tmp_path / "b" / "train").rename(flat / "train")
    write_text(flat / "train" / "settings.yaml", "pairs: pair-b\n")
    rounds = {
        item.label: [part.name for part in (item.collect, item.score, item.pair, item.train) if part is not None]
        for item in group_rounds(find_folders(flat))
    }
    assert rounds == {
        "train": ["collect-b", "score-b", "pair-b", "train"],
        "pair-a": ["collect-a", "score-a", "pair-a"],
    }
    summary = run_report(ReportSettings(run=flat))
    assert summary["pairs_total"] == 4
    assert summary["missing"] == []


def test_a_folder_of_pairs_finds_its_scores_beside_it(tmp_path: Path) -> None:
    write_iteration(tmp_path, 1000, states=1)
    write_text(tmp_path / "pair" / "settings.yaml", "scores: runs/score\n")
    summary = run_report(ReportSettings(run=tmp_path / "pair", pairs_shown=2))
    assert (summary["pairs"], summary["missing"]) == (2, [])
