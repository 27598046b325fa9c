"""A judge's trial: who orders as is known passes, and each kind of bad judge is found out by its own check."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grape.cli.main import main
from grape.core.errors import BudgetError, CompatibilityError, DataError, SettingsError
from grape.core.trajectories import Trajectory
from grape.costs import ReportCard
from grape.judges import Judge, Judgment, register_judge
from grape.judges.builtin import ScorerJudge
from grape.judges.known_orders import JoinedStores, known_couples
from grape.judges.trial import JudgeCriteria, try_judge
from grape.judges.verb import JudgesValidateSettings, run_judges_validate
from grape.judges.votes import Vote, VotesJudge, append_vote
from grape.scorers import EpisodeScore, Scorer
from grape.store import EpisodeStore
from tests.preferences.rollouts import make_rollout, make_store
from tests.reporters import Hearing
from tests.scorers.test_scorers import command


def recorded(folder: Path, operator: str, success: Callable[[int], bool], steps: int) -> Path:
    store = EpisodeStore.create(folder, "metaworld", {})
    for state in range(8):
        facts: dict[str, Any] = {"expert": True, "operator": operator, "steps": steps}
        store.write(make_rollout(state=state, success=success(state), **facts))
    return folder


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Clean experts that succeed in 10 control steps, and sloppy ones that take 14 and fail in every second state."""
    folder = tmp_path_factory.mktemp("experts")
    return (
        recorded(folder / "clean", "clean", lambda state: True, 10),
        recorded(folder / "sloppy", "sloppy", lambda state: state % 2 == 0, 14),
    )


def checksums_of(path: Path) -> dict[str, str]:
    return EpisodeStore.open(path).checksums()


class Scripted(Judge):
    """Says what a function of both says."""

    def __init__(self, p: Callable[[Trajectory, Trajectory], float | None]) -> None:
        self.p = p

    def judge(self, a: Trajectory, b: Trajectory) -> Judgment:
        p = self.p(a, b)
        return Judgment(a.meta.episode_id, b.meta.episode_id, p, problem="" if p is not None else "too dark")


def card(stores: tuple[Path, Path], p: Callable[[Trajectory, Trajectory], float | None]) -> ReportCard:
    return try_judge(Scripted(p), "said", "hash", JoinedStores(stores), JudgeCriteria(min_accuracy_low=0.3))


def verdicts(result: ReportCard) -> dict[str, bool | None]:
    return {check.code: check.passed for check in result.checks}


def test_known_couples(stores: tuple[Path, Path]) -> None:
    metas = JoinedStores(stores).metas()
    outcomes = known_couples(metas, "outcomes", 100, 0)
    assert sorted(couple.state[1] for couple in outcomes) == [1, 3, 5, 7]
    first, second = ({f"{mark[:12]}/{name}" for name, mark in checksums_of(path).items()} for path in stores)
    assert all(couple.better in first and couple.worse in second for couple in outcomes)
    assert len(known_couples(metas, "experts", 100, 0)) == 8
    # Spread over the states before any gives a second one.
    assert len({couple.state for couple in known_couples(metas, "experts", 3, 0)}) == 3
    # An expert of style clean that failed is not known to be better.
    failed = [meta for meta in metas if meta.operator == "sloppy"]
    assert known_couples(failed, "experts", 100, 0) == []


def test_a_good_judge_is_accepted(stores: tuple[Path, Path]) -> None:
    result = card(stores, lambda a, b: 0.9 if a.steps < b.steps else 0.1)
    assert verdicts(result) == {
        "answers": True,
        "outcomes": None,  # four couples are too few to say
        "experts": True,
        "position": True,
        "consistency": True,
        "repeats": True,
    }
    assert result.verdict == "undecided"
    assert "4 such couples, of 5 at least" in result.reasons[0]
    (experts,) = (check for check in result.checks if check.code == "experts")
    assert experts.value == 1.0
    assert experts.facts["interval"][0] == pytest.approx(0.676, abs=0.01)  # Wilson, 8 of 8


@pytest.mark.parametrize(
    ("p", "failed"),
    [
        (lambda a, b: 0.9 if a.steps > b.steps else 0.1, {"experts"}),
        (lambda a, b: 0.8, {"experts", "position", "consistency"}),
        (lambda a, b: None if a.steps < b.steps else 0.2, {"answers"}),
    ],
    ids=["the wrong way round", "the first one", "no answer to one order"],
)
def test_each_defect_has_its_check(
    p: Callable[[Trajectory, Trajectory], float | None], failed: set[str], stores: tuple[Path, Path]
) -> None:
    result = card(stores, p)
    assert {code for code, passed in verdicts(result).items() if passed is False} == failed
    assert result.verdict == "reject"


def test_chance_is_found_out_by_repeating(stores: tuple[Path, Path]) -> None:
    questions = iter(range(1000))
    result = card(stores, lambda a, b: float(next(questions) % 3 == 0))
    assert verdicts(result)["repeats"] is False
    assert verdicts(result)["consistency"] is False


def test_chance_of_a_scorer_is_found_out_by_repeating(stores: tuple[Path, Path]) -> None:
    draws = iter([*range(1000), *range(1000, 0, -1)])

    class Chance(Scorer):
        def score(self, trajectory: Trajectory) -> EpisodeScore:
            return EpisodeScore(trajectory.meta.episode_id, float(next(draws) * 7919 % 101))

    judge, episodes = ScorerJudge(Chance()), JoinedStores(stores)
    assert verdicts(try_judge(judge, "chance", "hash", episodes, JudgeCriteria()))["repeats"] is False
    # Who never answers has not answered alike.
    assert verdicts(card(stores, lambda a, b: None))["repeats"] is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_no_judgment(value: float, stores: tuple[Path, Path]) -> None:
    class Broken(Scorer):
        def score(self, trajectory: Trajectory) -> EpisodeScore:
            return EpisodeScore(trajectory.meta.episode_id, value)

    with pytest.raises(DataError, match="Scorer 'broken' gave"):
        try_judge(ScorerJudge(Broken(), "broken"), "broken", "hash", JoinedStores(stores), JudgeCriteria())


def test_no_name_tells_the_store_and_votes_count_in_several(stores: tuple[Path, Path], tmp_path: Path) -> None:
    own = EpisodeStore.create(tmp_path / "own", "metaworld", {})
    own.write(make_rollout(state=3, success=False, steps=11))
    own.write(make_rollout(state=3, sample=1, steps=11))
    shared, alone = own.ids()
    joined = JoinedStores((EpisodeStore.create(tmp_path / "other", "metaworld", {}).path, own.path))
    assert joined.checksums() == own.checksums()
    other = EpisodeStore.create(tmp_path / "another", "metaworld", {})
    other.write(make_rollout(state=3, success=False, steps=12))
    assert other.ids() == (shared,)
    joined = JoinedStores((other.path, own.path))
    marks = {store: store.checksums()[shared] for store in (own, other)}
    assert joined.checksums().keys() == {alone, *(f"{mark[:12]}/{shared}" for mark in marks.values())}
    append_vote(tmp_path / "votes", Vote("anna", 1, alone, shared, "a", own.checksums()))
    append_vote(tmp_path / "votes", Vote("anna", 2, alone, shared, "b", {alone: "changed", shared: marks[other]}))
    listener = Hearing()
    judge = VotesJudge(tmp_path / "votes", joined.checksums(), listener.warn)

    def p(store: EpisodeStore) -> float | None:
        first, second = (joined.read(name, frames=False) for name in (alone, f"{marks[store][:12]}/{shared}"))
        return judge.judge(first, second).p

    assert (p(own), p(other)) == (1.0, None)
    assert listener.warnings[0].startswith("1 vote in ")


def test_verb_on_programs_and_scorers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = str(make_store(tmp_path / "store", states=8, samples=6, tasks=("drawer-open",)).path)
    assert main(["judges", "validate", "scorer:costs", "--store", store, "--json"]) == 0
    accepted = json.loads(capsys.readouterr().out)
    assert accepted["verdict"] == "accept"
    assert accepted["provenance"]["scorer"]["specifications"].keys() == {"drawer-open"}
    assert main(["judges", "validate", f"first={command('first')}", "--store", store, "--couples", "6"]) == 1
    text = capsys.readouterr().out
    assert "first: REJECT" in text
    assert "FAILED position     It favors the first place by 0.60" in text
    assert main(["judges", "list"]) == 0
    assert "success" in capsys.readouterr().out


def test_a_trial_at_its_budget_promises_no_kept_answers(stores: tuple[Path, Path]) -> None:
    class Dear(Judge):
        def judge(self, a: Trajectory, b: Trajectory) -> Judgment:
            raise BudgetError("The budget is spent.", "Answers are kept.")

    register_judge("dear", Dear)
    with pytest.raises(BudgetError) as error:
        run_judges_validate(JudgesValidateSettings(judge="dear", store=stores))
    assert error.value.message == "The budget is spent."
    assert error.value.hint.endswith("a trial keeps no answers.")


def test_what_cannot_be_tried_is_refused(stores: tuple[Path, Path]) -> None:
    with pytest.raises(CompatibilityError, match="have a known order"):
        run_judges_validate(JudgesValidateSettings(judge="success", store=stores[:1]))
    with pytest.raises(SettingsError, match="No episodes are named"):
        run_judges_validate(JudgesValidateSettings(judge="success"))
    with pytest.raises(SettingsError, match="Give a scorer"):
        run_judges_validate(JudgesValidateSettings(judge="score", store=stores))
