"""``grape label``: what it refuses before anybody votes, and which couples it shows first."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grape.agreement import Source
from grape.core.errors import DataError, SettingsError
from grape.judges.votes import Vote, append_vote
from grape.labeling import LabelSettings, run_label
from grape.labeling.couples import candidates_of_scores, candidates_of_store, distinct_opinions
from grape.labeling.plan_file import shared_plan
from grape.labeling.server import LabelServer
from grape.labeling.session import Cast, Undone
from grape.labeling.verb import open_labeling
from grape.preferences import PairSettings, ScoreSettings, run_pair, run_score
from grape.store import EpisodeStore
from tests.labeling.episodes import make_store
from tests.preferences.rollouts import make_rollout
from tests.preferences.rollouts import make_store as make_store_without_images
from tests.reporters import Hearing


class Reading(Hearing):
    """Keeps what it is told, too."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def info(self, message: str) -> None:
        self.messages.append(message)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    store = make_store(folder / "rollouts" / "store")
    run_score(ScoreSettings(store=store.path, out=folder / "scores", scorer=("costs",)))
    return folder


def test_couples_of_scores_come_by_disagreement_and_margin(run: Path) -> None:
    plain, folder = candidates_of_scores(run, print)
    assert folder == run / "scores"
    success = {meta.episode_id: meta.success for meta in plain.store.metas()}
    mixed = np.array([success[one] != success[other] for one, other in plain.names])
    assert len(plain.names) == 12
    assert mixed.sum() == 8
    assert plain.uncertain[mixed].max() < plain.uncertain[~mixed].min()
    # Neither chance nor a copy of what is recorded is an opinion, whatever it is called.
    for number, judge in enumerate(["random", "dice=random", "score:costs", "success"]):
        run_pair(PairSettings(scores=run / "scores", out=run / f"pairs{number}", judge=judge, seed=3))
    judged, _ = candidates_of_scores(run / "scores", print)
    assert (judged.names, judged.sources) == (plain.names, plain.sources)
    assert judged.uncertain.tolist() == plain.uncertain.tolist()
    of_store = candidates_of_store(run / "rollouts")
    assert set(of_store.names) == set(plain.names)


def test_equal_opinions_count_once() -> None:
    one, other = np.array([1.0, -1.0, np.nan]), np.array([1.0, 1.0, np.nan])
    sources = [Source("success", "outcome", one), Source("R_ext", "score", one), Source("costs", "scorer", one)]
    sources += [Source("mine", "judge", other), Source("dice", "judge", other), Source("dice (judge)", "judge", -one)]
    assert [source.label for source in distinct_opinions(sources)] == ["success", "R_ext", "mine", "dice (judge)"]
    assert [source.label for source in distinct_opinions(sources, ["dice"])] == ["success", "R_ext", "mine"]


def test_without_scores_the_order_does_not_tell_the_outcome(tmp_path: Path) -> None:
    store = make_store_without_images(tmp_path / "store", states=10, samples=4)
    candidates = candidates_of_store(store.path)
    success = {meta.episode_id: meta.success for meta in store.metas()}
    plan = shared_plan(tmp_path, candidates, 100, 0.0, 0, print)
    equal = np.array([success[a] == success[b] for a, b in plan.names])
    half = len(equal) // 2
    assert 0 < equal.sum() < len(equal)
    assert abs(equal[:half].mean() - equal[half:].mean()) < 0.35


def test_all_raters_see_the_order_of_the_first_start(run: Path, tmp_path: Path) -> None:
    listener = Hearing()
    scored, _ = candidates_of_scores(run / "scores", print)
    first = shared_plan(tmp_path, scored, 5, 0.0, 3, listener.warn)
    row = json.loads((tmp_path / "plan.json").read_text())
    assert (row["seed"], row["sources"][0], len(row["couples"])) == (3, "success", 12)
    assert row["couples"][0]["uncertainty"] == scored.uncertain.max()
    assert listener.warnings == []
    # Other scores, none, and another seed change nothing.
    of_store = candidates_of_store(run / "rollouts")
    assert shared_plan(tmp_path, of_store, 5, 0.0, 0, listener.warn) == first
    assert "holds an order of --seed 3: it is kept" in listener.warnings.pop()
    # What is gone is left out; what is new comes last.
    fewer = dataclasses.replace(of_store, names=of_store.names[1:], states=of_store.states[1:], uncertain=np.ones(11))
    (tmp_path / "plan.json").unlink()
    before = shared_plan(tmp_path, fewer, 5, 0.0, 3, listener.warn)
    assert shared_plan(tmp_path, of_store, 5, 0.0, 3, listener.warn).names == (*before.names, of_store.names[0])
    assert shared_plan(tmp_path, fewer, 5, 0.0, 3, listener.warn) == before
    assert "1 couple" in listener.warnings.pop()


@pytest.mark.parametrize(
    "text", ["", "{}", '{"seed": 0, "sources": [], "couples": [{"a": "x", "b": "x", "uncertainty": 1}]}']
)
def test_a_damaged_plan_is_refused(text: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(DataError, match=r"plan\.json"):
        open_labeling(LabelSettings(store=run / "rollouts", votes=tmp_path), "t")


def test_votes_lie_beside_what_they_are_about(run: Path, tmp_path: Path) -> None:
    assert open_labeling(LabelSettings(scores=run), "t")[2] == run / "votes"
    assert open_labeling(LabelSettings(store=run / "rollouts"), "t")[2] == run / "votes"
    assert open_labeling(LabelSettings(store=run / "rollouts", votes=tmp_path), "t")[2] == tmp_path


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (lambda run: {}, "needs scores or a store"),
        (lambda run: {"scores": run, "store": run / "rollouts"}, "needs scores or a store"),
        (lambda run: {"store": run / "rollouts", "couples": 0}, "couples"),
        (lambda run: {"store": run / "rollouts", "repeats": 1.5}, "repeats"),
        (lambda run: {"store": run / "rollouts", "port": 70000}, "port"),
        (lambda run: {"store": run / "rollouts", "votes": run / "scores" / "done.json"}, "cannot be a folder"),
        (lambda run: {"store": run / "rollouts", "votes": run / "scores" / "done.json" / "v"}, "cannot be a folder"),
    ],
)
def test_settings_that_are_of_no_use(run: Path, settings: Callable[[Path], Any], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        run_label(LabelSettings(**settings(run)), Hearing())


def test_without_messages_nobody_would_learn_the_address(run: Path) -> None:
    with pytest.raises(SettingsError, match="Nobody would learn the address"):
        run_label(LabelSettings(store=run / "rollouts"))


def test_stores_that_show_nothing(tmp_path: Path) -> None:
    store = make_store_without_images(tmp_path / "blind", samples=2)
    with pytest.raises(DataError, match="holds no images"):
        run_label(LabelSettings(store=store.path), Hearing())
    alone = EpisodeStore.create(tmp_path / "alone", "metaworld", {})
    alone.write(make_rollout())
    with pytest.raises(DataError, match="no initial state has two episodes"):
        run_label(LabelSettings(store=alone.path), Hearing())


def test_what_old_votes_are_worth_is_told_before_it_begins(run: Path, tmp_path: Path) -> None:
    append_vote(tmp_path, Vote("anna", 1, "gone", "two", "a", {"gone": "1", "two": "2"}))
    path = tmp_path / "anna.jsonl"
    path.write_text(path.read_text() + '{"a": "one", "b')
    listener = Hearing()
    open_labeling(LabelSettings(store=run / "rollouts", votes=tmp_path), "t", listener)
    assert re.search("anna.jsonl ends in the middle of a line", listener.warnings[0])
    assert re.search("1 vote in .* is for episodes that are gone or have changed: it does not", listener.warnings[1])
    path.write_text("<html>\n")
    labeling, _, _ = open_labeling(LabelSettings(store=run / "rollouts", votes=tmp_path), "t", listener)
    assert re.search(r"anna\.jsonl, line 1.* The votes of 'anna' do not count", listener.warnings[2])
    assert path.read_text() == "<html>\n"
    assert labeling.summary() == {}
    assert labeling.question("ben")["question"]


def test_the_summary_tells_what_this_run_added(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = EpisodeStore.open(run / "rollouts")
    one, two, three, *_ = store.ids()
    checksums = store.checksums()

    def vote(number: int, a: str, b: str, choice: Any) -> None:
        append_vote(tmp_path, Vote("anna", number, a, b, choice, {name: checksums[name] for name in (a, b)}))

    vote(1, one, two, "a")

    def serve(server: LabelServer) -> None:
        labeling = server.labeling
        for number in (1, 2, 3):
            state = labeling.question("ben")
            sides = (state["question"][side]["name"] for side in ("left", "right"))
            labeling.cast(Cast("ben", number, *sides, "skip" if number == 2 else "left"))
        labeling.undo(Undone("ben", 3))
        vote(2, two, one, "b")  # of another process
        vote(3, one, three, "skip")
        raise KeyboardInterrupt

    monkeypatch.setattr(LabelServer, "serve_forever", serve)
    listener = Reading()
    summary = run_label(LabelSettings(store=run / "rollouts", votes=tmp_path), listener)
    assert (summary["votes"], summary["cast"], summary["couples"]) == (str(tmp_path), 2, 12)
    figures = {"votes": 3, "couples": 1, "skipped": 1, "marked": 0, "left": 1, "right": 1, "repeated": 1, "alike": 1}
    assert summary["raters"]["anna"] == figures
    assert [summary["raters"]["ben"][name] for name in ("votes", "skipped", "left", "right")] == [2, 1, 1, 0]
    assert listener.messages[0].startswith(f"12 couples of 2 initial states; votes go to {tmp_path}, which holds 1 ")
    assert re.fullmatch(r"Open http://127\.0\.0\.1:[0-9]+/[\w-]{32}/", listener.messages[1])
    assert listener.warnings == []
