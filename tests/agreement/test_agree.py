"""``grape agree`` on recorded scores, judges and votes."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from grape.core.errors import CompatibilityError, DataError
from grape.judges import Judge, Judgment, register_judge
from grape.judges.votes import Vote, append_vote
from grape.preferences import PairSettings, ScoreSettings, run_pair, run_score
from grape.report import AgreeSettings, run_agree
from grape.store import EpisodeStore
from tests.preferences.rollouts import make_rollout, make_store
from tests.reporters import Hearing


class Opposite(Judge):
    """Sure of the failure, in words that a page must not read as markup."""

    def judge(self, a: Any, b: Any) -> Judgment:
        p = 0.5 if a.meta.success == b.meta.success else 0.05 if a.meta.success else 0.95
        return Judgment(a.meta.episode_id, b.meta.episode_id, p, "<script>alert(1)</script>")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    store = make_store(folder / "store", samples=4, tasks=("drawer-open",))
    run_score(ScoreSettings(store=store.path, out=folder / "scores", scorer=("costs", "success")))
    register_judge("opposite", Opposite)
    for judge in ("success", "opposite"):
        run_pair(PairSettings(scores=folder / "scores", out=folder / f"pairs-{judge}", judge=judge))
    run_pair(PairSettings(scores=folder / "scores", out=folder / "pairs"))
    one, two, *_ = store.ids()
    checksums = {name: store.checksums()[name] for name in (one, two)}
    append_vote(folder / "votes", Vote("anna", 1, one, two, "a", checksums))
    append_vote(folder / "votes", Vote("ben", 1, two, one, "b", checksums))
    return folder


def test_figures(run: Path, tmp_path: Path) -> None:
    listener = Hearing()
    settings = AgreeSettings(run=run, votes=run / "votes", out=tmp_path / "out", page=False)
    summary = run_agree(settings, listener)
    assert listener.warnings == []
    assert (summary["episodes"], summary["states"], summary["couples"]) == (16, 4, 24)
    kinds = {source["label"]: source["kind"] for source in summary["sources"]}
    assert kinds == {
        "success": "outcome",
        "R_self": "score",
        "R_ext": "score",
        "R_GCPG": "score",
        "costs": "scorer",
        "success (scorer)": "scorer",
        "success (judge)": "judge",
        "opposite": "judge",
        "anna": "rater",
        "ben": "rater",
    }
    matrix = {(row["source"], row["reference"]): row for row in summary["matrix"]}
    assert len(matrix) == 10 * 9
    assert matrix["success (judge)", "success"]["concordance"] == 1.0
    assert matrix["opposite", "success"]["concordance"] == 0.0
    assert matrix["opposite", "success"]["couples"] == 2 * 2 * 2
    assert matrix["R_GCPG", "success"]["concordance"] == 1.0
    assert matrix["anna", "ben"]["concordance"] == 1.0
    assert matrix["anna", "ben"]["couples"] == 1
    assert summary["reliability"]["raters"]["alpha"] == 1.0
    assert summary["reliability"]["judges"]["alpha"] < 0.0
    assert summary["calibration"]["opposite"]["brier"] == pytest.approx(0.95**2)
    assert summary["calibration"]["success (judge)"]["brier"] == 0.0
    written = json.loads((tmp_path / "out" / "agreement.json").read_text())
    rows = written["disagreements"]
    assert [row for row in rows if "success" in row["for_a"] and "opposite" in row["for_b"]]
    contradicting = [min(len(row["for_a"]), len(row["for_b"])) for row in rows]
    assert contradicting == sorted(contradicting, reverse=True)
    assert contradicting[-1] > 0
    assert not (tmp_path / "out" / "agreement.html").exists()


@pytest.mark.parametrize(
    ("weights", "missing"), [((0.0, 0.01, 2.0), "R_self"), ((0.01, 0.0, 2.0), "R_ext")], ids=["self", "ext"]
)
def test_a_term_of_weight_zero_says_nothing(
    weights: tuple[float, float, float], missing: str, run: Path, tmp_path: Path
) -> None:
    scores = tmp_path / "scores"
    run_score(ScoreSettings(store=run / "store", out=scores, weights=weights, calibrate=False))
    sources = {source["label"] for source in run_agree(AgreeSettings(run=scores, page=False))["sources"]}
    assert sources == {"success", "R_self", "R_ext", "R_GCPG"} - {missing}


def test_an_external_reward_without_specification_says_nothing(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", "elsewhere", {})
    for sample in range(6):
        rollout = make_rollout(sample=sample, success=sample % 2 == 0, steps=9 + sample)
        store.write(dataclasses.replace(rollout, meta=dataclasses.replace(rollout.meta, suite="elsewhere")))
    run_score(ScoreSettings(store=store.path, out=tmp_path / "scores"))
    sources = run_agree(AgreeSettings(run=tmp_path / "scores", page=False))["sources"]
    assert {source["label"] for source in sources} == {"success", "R_self", "R_GCPG"}


def test_raters_who_were_shown_couples_again(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "votes", tmp_path / "votes")
    store = EpisodeStore.open(run / "store")
    one, two, three, *_ = store.ids()
    for number, (a, b, choice) in enumerate([(two, one, "b"), (one, three, "tie"), (three, one, "a")], start=2):
        checksums = {name: store.checksums()[name] for name in (a, b)}
        append_vote(tmp_path / "votes", Vote("anna", number, a, b, choice, checksums))
    append_vote(tmp_path / "votes", Vote("ben", 2, two, one, "a", {one: "0", two: "0"}))  # of other episodes
    settings = AgreeSettings(run=run, votes=tmp_path / "votes", out=tmp_path / "out", shown=0)
    assert run_agree(settings)["repeats"] == {"anna": {"repeated": 2, "alike": 1}}
    assert "Raters, shown couples again" in (tmp_path / "out" / "agreement.html").read_text()
    assert run_agree(dataclasses.replace(settings, votes=None))["repeats"] == {}
    assert "Raters, shown couples again" not in (tmp_path / "out" / "agreement.html").read_text()


def test_what_does_not_count_is_left_out(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("votes"))
    scores = tmp_path / "run" / "scores"
    run_score(ScoreSettings(store=tmp_path / "run" / "store", out=tmp_path / "other" / "scores", calibrate=False))
    run_pair(PairSettings(scores=tmp_path / "other" / "scores", out=tmp_path / "run" / "foreign", judge="random"))
    with pytest.raises(DataError, match=r"holds no finished scores"):
        run_agree(AgreeSettings(run=tmp_path / "run" / "pairs", page=False))
    listener = Hearing()
    summary = run_agree(AgreeSettings(run=scores, page=False), listener)
    assert [text for text in listener.warnings if "foreign was asked about episodes of other scores" in text]
    assert "random" not in [source["label"] for source in summary["sources"]]
    shutil.copytree(scores, tmp_path / "run" / "again")
    with pytest.raises(DataError, match="several folders of scores"):
        run_agree(AgreeSettings(run=tmp_path / "run", page=False))
    lines = (tmp_path / "run" / "pairs-opposite" / "judgments.jsonl").read_text().splitlines()
    (tmp_path / "run" / "pairs-opposite" / "judgments.jsonl").write_text("\n".join([lines[0], lines[1][:20]]) + "\n")
    with pytest.raises(DataError, match=r"judgments\.jsonl, line 2"):
        run_agree(AgreeSettings(run=scores, page=False))
    EpisodeStore.open(tmp_path / "run" / "store").write(make_rollout(state=9))
    with pytest.raises(CompatibilityError, match="are others than those"):
        run_agree(AgreeSettings(run=scores, page=False))
