"""``grape pair --judge``: who is chosen follows the judge, whoever it is."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from grape.core.errors import DataError, NoPairsError, ProgramError, SettingsError
from grape.core.trajectories import Trajectory
from grape.judges import AskedJudge, Judge, Judgment, load_judgments, register_judge
from grape.judges.asking import combined
from grape.judges.votes import Vote, append_vote
from grape.preferences import PairSettings, ScoreSettings, read_pairs, read_scores, run_pair, run_score
from grape.store import EpisodeStore
from tests.preferences.rollouts import make_store
from tests.reporters import Hearing
from tests.scorers.test_scorers import command


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """States 0 and 1 have both outcomes, state 2 only successes, state 3 only failures; four episodes each."""
    folder = tmp_path_factory.mktemp("scored")
    store = make_store(folder / "store", samples=4, tasks=("drawer-open",))
    run_score(ScoreSettings(store=store.path, out=folder / "scores", scorer=("costs", "success")))
    return folder / "scores"


def pair(scored: Path, out: Path, reporter: Any = None, **settings: Any) -> dict[str, Any]:
    return dict(run_pair(PairSettings(scores=scored, out=out, **settings), reporter or Hearing()))


def sides(folder: Path) -> list[tuple[str, str]]:
    return [(item.chosen, item.rejected) for item in read_pairs(folder)]


def test_the_judge_of_the_score_chooses_as_the_score_does(scored: Path, tmp_path: Path) -> None:
    plain = pair(scored, tmp_path / "plain")
    judged = pair(scored, tmp_path / "judged", judge="score")
    assert sides(tmp_path / "judged") == sides(tmp_path / "plain")
    assert judged["overall"] == plain["overall"]
    # Four states of four episodes: six couples each, every one shown once.
    assert judged["judge"]["answers"] == len(load_judgments(tmp_path / "judged" / "judgments.jsonl")) == 24
    assert "judge" not in plain
    assert [item.name for item in (tmp_path / "plain").iterdir() if "judgment" in item.name] == []


def test_success_and_costs_and_chance_choose_otherwise(scored: Path, tmp_path: Path) -> None:
    scores = read_scores(scored)
    summary = pair(scored, tmp_path / "success", judge="success")
    assert all(scores[one].success and not scores[other].success for one, other in sides(tmp_path / "success"))
    assert summary["judge"]["ties"] == 12 + 2 * 2  # states 2 and 3, and two couples of each of the others
    assert summary["overall"]["narrow"] == 4
    pair(scored, tmp_path / "costs", judge="score:costs")
    pair(scored, tmp_path / "again", judge="scorer:costs")
    assert sides(tmp_path / "costs") == sides(tmp_path / "again") != sides(tmp_path / "success")
    values = {
        row["episode_id"]: row["value"]
        for row in map(json.loads, (scored / "scorers" / "costs.jsonl").read_text().splitlines())
    }
    assert all(values[one] > values[other] for one, other in sides(tmp_path / "costs"))
    pair(scored, tmp_path / "random", judge="random", mode="random")
    pair(scored, tmp_path / "seed", judge="random", mode="random", seed=1)
    assert sides(tmp_path / "random") != sides(tmp_path / "seed")


def test_a_program_judges_and_its_text_is_quoted(scored: Path, tmp_path: Path) -> None:
    scores = read_scores(scored)
    summary = pair(scored, tmp_path / "out", judge=f"fast={command('fine')}", mode="random", m=2)
    pairs = read_pairs(tmp_path / "out")
    assert pairs
    assert all(scores[item.chosen].steps < scores[item.rejected].steps for item in pairs)
    assert {item.mode for item in pairs} == {"random by judge fast"}
    assert all(item.margin == pytest.approx(0.8) and item.terms == {"judge": item.margin} for item in pairs)
    assert pairs[0].reason.startswith("Judge 'fast' prefers it with probability 0.90 (\"fewer <b>steps</b>\"); ")
    assert summary["judge"]["answers"] == 8
    assert summary["judge"]["provenance"]["about"]["name"] == "stand-in"


def test_a_judge_that_takes_the_first_one_is_undecided_when_shown_both_ways(scored: Path, tmp_path: Path) -> None:
    judge = f"first={command('first')}"
    pair(scored, tmp_path / "once", judge=judge, mode="best-worst")
    with pytest.raises(DataError, match="No preference pair"):
        pair(scored, tmp_path / "both", judge=judge, mode="best-worst", both_orders=True)


@pytest.mark.parametrize("behavior", ["crash", "nan"])
def test_a_judge_that_fails_once_is_replaced(behavior: str, scored: Path, tmp_path: Path) -> None:
    listener, (victim, *_) = Hearing(), read_scores(scored)
    judge = f"j={command('once:' + behavior, victim)}"
    summary = pair(scored, tmp_path / "out", listener, judge=judge, mode="random")
    assert summary["judge"]["unanswered"] == 0
    assert len(listener.warnings) <= 1  # the victim may be shown second only


def test_a_judge_that_always_fails_is_given_up(scored: Path, tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="failed 3 times"):
        pair(scored, tmp_path / "out", judge=f"j={command('crash')}")
    with pytest.raises(SettingsError, match="no answer to any of 8 couples; first: too dark"):
        pair(scored, tmp_path / "dark", judge=f"j={command('unknown')}", mode="random")


def test_answers_survive_a_kill(scored: Path, tmp_path: Path) -> None:
    shown: list[tuple[str, str]] = []

    class Dying(Judge):
        def judge(self, a: Trajectory, b: Trajectory) -> Judgment:
            shown.append((a.meta.episode_id, b.meta.episode_id))
            if len(shown) == 10:
                raise KeyboardInterrupt
            return Judgment(*shown[-1], float(a.steps < b.steps))

    register_judge("dying", Dying)
    with pytest.raises(KeyboardInterrupt):
        pair(scored, tmp_path / "out", judge="dying")
    assert pair(scored, tmp_path / "out", judge="dying")["judge"]["answers"] == 24
    assert len(shown) == 25
    register_judge("steady", type("Steady", (Dying,), {}))
    pair(scored, tmp_path / "whole", judge="steady")
    names = "pairs.jsonl", "judgments.jsonl"
    first, second = ([(tmp_path / out / name).read_bytes() for name in names] for out in ("out", "whole"))
    assert first[1] == second[1]
    assert first[0].replace(b"dying", b"steady") == second[0]
    assert 0 < sum(one < other for one, other in shown) < len(shown)  # the order shown is drawn


def test_what_a_program_failed_at_is_tried_again_where_no_pair_was_made(scored: Path, tmp_path: Path) -> None:
    shown: list[tuple[str, str]] = []

    class Failing(Judge):
        def judge(self, a: Trajectory, b: Trajectory) -> Judgment:
            shown.append((a.meta.episode_id, b.meta.episode_id))
            if len(shown) == 2:
                raise ProgramError("It failed.", "Fix it.")
            return Judgment(*shown[-1], 0.5 if len(shown) < 9 else 0.9)

    register_judge("failing", Failing)
    with pytest.raises(NoPairsError) as error:
        pair(scored, tmp_path / "out", judge="failing", mode="random", m=2)
    assert "7 pairs are ties of the judge" in error.value.message
    assert "The judge has no answer to 1 questions" in error.value.message
    assert "others need another --out and ask the judge again" in str(error.value)
    assert pair(scored, tmp_path / "out", judge="failing", mode="random", m=2)["judge"]["unanswered"] == 0
    assert len(shown) == 9
    assert shown[8] == shown[1]
    assert len(read_pairs(tmp_path / "out")) == 1


def test_contradicting_answers_are_a_tie_and_agreeing_ones_a_mean() -> None:
    assert combined([Judgment("a", "b", 0.9), Judgment("b", "a", 0.7)], "a", "b").p == 0.5
    assert combined([Judgment("a", "b", 0.9), Judgment("b", "a", 0.3)], "a", "b").p == pytest.approx(0.8)
    assert combined([Judgment("a", "b", 0.9, "fast"), Judgment("b", "a", 0.3, "slow")], "a", "b").reason == "fast"
    # One order alone could be a preference for a place.
    halves = [Judgment("a", "b", 0.9), Judgment("b", "a", None, problem="dark")]
    assert combined(halves, "b", "a") == combined(halves[::-1], "b", "a") == Judgment("b", "a", None, problem="dark")
    assert combined([Judgment("a", "b", None, problem="dark")], "a", "b").problem == "dark"


def test_votes_are_a_judge(scored: Path, tmp_path: Path) -> None:
    store = EpisodeStore.open(scored.parent / "store")
    one, two, three, four = (name for name in store.ids() if "-0003-" in name)
    checksums = store.checksums()

    def vote(rater: str, number: int, a: str, b: str, choice: str, **changed: str) -> None:
        known = {name: checksums[name] for name in (a, b)} | changed
        append_vote(tmp_path / "votes", Vote(rater, number, a, b, choice, known))

    vote("anna", 1, one, two, "a")
    vote("anna", 2, one, three, "b")
    vote("anna", 2, one, three, "undo")
    vote("anna", 3, four, three, "a", **{four: "changed"})
    vote("anna", 4, three, four, "skip")
    vote("ben", 1, two, one, "b")
    vote("cyril", 1, two, one, "tie")
    with (tmp_path / "votes" / "ben.jsonl").open("a") as file:
        file.write('{"a": "cut sh')
    listener = Hearing()
    summary = pair(scored, tmp_path / "out", listener, judge=f"people=votes:{tmp_path / 'votes'}", mode="best-worst")
    (made,) = read_pairs(tmp_path / "out")
    assert (made.chosen, made.rejected) == (one, two)
    assert made.margin == pytest.approx(2 * (1 + 1 + 0.5) / 3 - 1)
    assert '("3 votes")' in made.reason
    assert summary["judge"]["provenance"] == {"raters": {"anna": 1, "ben": 1, "cyril": 1}}
    assert any("ben.jsonl ends in the middle of a line" in text for text in listener.warnings)
    assert any(text.startswith("1 vote in ") and "have changed" in text for text in listener.warnings)
    with (tmp_path / "votes" / "ben.jsonl").open("a") as file:
        file.write("\n")  # now it is a line, which somebody has edited
    with pytest.raises(DataError, match=r"ben\.jsonl, line 2"):
        pair(scored, tmp_path / "damaged", judge=f"votes:{tmp_path / 'votes'}")
    with pytest.raises(DataError, match="cannot be a rater's name"):
        append_vote(tmp_path / "votes", dataclasses.replace(Vote("x", 1, one, two, "a", {}), rater="../<script>"))


def vote_on(scored: Path, folder: Path, choices: dict[tuple[int, int, int], str]) -> dict[frozenset[str], str]:
    """Votes of one rater; a key is the number of the initial state and those of two of its episodes."""
    store = EpisodeStore.open(scored.parent / "store")
    cast = {}
    for number, ((state, one, other), choice) in enumerate(choices.items(), start=1):
        of_state = [name for name in store.ids() if f"-{state:04d}-" in name]
        a, b = of_state[one], of_state[other]
        append_vote(folder, Vote("anna", number, a, b, choice, {name: store.checksums()[name] for name in (a, b)}))
        cast[frozenset((a, b))] = {"a": a, "b": b}.get(choice, "")
    return cast


def test_no_vote_is_wasted_where_but_some_couples_were_voted_on(scored: Path, tmp_path: Path) -> None:
    choices = {(0, 0, 1): "a", (0, 0, 2): "b", (0, 2, 3): "tie", (1, 1, 3): "a", (1, 2, 3): "bad", (3, 0, 3): "b"}
    cast = vote_on(scored, tmp_path / "votes", choices)
    judge, listener = f"votes:{tmp_path / 'votes'}", Hearing()
    summary = pair(scored, tmp_path / "random", listener, judge=judge, mode="random")
    made = {frozenset(couple): couple[0] for couple in sides(tmp_path / "random")}
    assert made == {couple: chosen for couple, chosen in cast.items() if chosen}
    assert summary["judge"]["unanswered"] == 0
    assert summary["judge"]["ties"] == summary["overall"]["narrow"] == 2
    assert listener.warnings == []
    # Ties do not use up what --m allows.
    assert pair(scored, tmp_path / "one", judge=judge, mode="random", m=1)["pairs"] == 3
    assert set(sides(tmp_path / "one")) < set(sides(tmp_path / "random"))
    few = pair(scored, tmp_path / "ranked", listener, judge=judge)
    assert few["pairs"] < 4
    assert listener.warnings[0].startswith(f"Judge '{few['judge']['label']}' knows 6 of 24 couples, and --mode top-b")


def test_votes_on_other_couples_alone_are_refused(scored: Path, tmp_path: Path) -> None:
    store = EpisodeStore.open(scored.parent / "store")
    one, other = store.ids()[0], store.ids()[-1]  # of two initial states
    append_vote(tmp_path, Vote("anna", 1, one, other, "a", {name: store.checksums()[name] for name in (one, other)}))
    with pytest.raises(SettingsError, match="knows none of the 24 couples"):
        pair(scored, tmp_path / "out", judge=f"votes:{tmp_path}", mode="random")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"judge": "sucess"}, "Unknown judge 'sucess'"),
        ({"judge": "score:speed"}, "Unknown scorer 'speed'"),
        ({"judge": "votes"}, "needs a folder"),
        ({"judge": "success:now"}, "takes no argument"),
        ({"judge": "success", "mode": "success-only"}, "--mode success-only does otherwise"),
        ({"judge": "success", "stage_wise": True}, "--stage-wise does otherwise"),
        ({"judge": "success", "rejected": "random"}, "--rejected random does otherwise"),
        ({"judge": "success", "margin": 1.5}, "at most 1"),
        ({"both_orders": True}, "no meaning without --judge"),
    ],
)
def test_what_a_judge_cannot_do_is_refused(
    settings: dict[str, Any], message: str, scored: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError) as error:
        pair(scored, tmp_path / "out", **settings)
    assert message in str(error.value)


def test_a_judge_is_never_shown_a_couple_twice(scored: Path) -> None:
    store = EpisodeStore.open(scored.parent / "store")
    shown: list[frozenset[str]] = []

    class Counting(Judge):
        def judge(self, a: Trajectory, b: Trajectory) -> Judgment:
            shown.append(frozenset((a.meta.episode_id, b.meta.episode_id)))
            return Judgment(a.meta.episode_id, b.meta.episode_id, 0.7)

    recorded = AskedJudge(Counting(), store)
    names = store.ids()[:4]
    for one, other in itertools.permutations(names, 2):
        first, second = recorded.compare(one, other), recorded.compare(other, one)
        assert first.p == pytest.approx(1.0 - (second.p or 0.0))
    assert len(shown) == len(set(shown)) == 6
