"""The trial of a specification: good ones are accepted, and each kind of bad one is found out by its own check."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from grape.cli.main import main
from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.core.trajectories import Trajectory
from grape.costs import (
    CostsValidateSettings,
    ReportCard,
    ValidationCriteria,
    builtin_specification,
    evaluate,
    parse_specification,
    run_costs_validate,
    validate_specification,
)
from grape.costs.trial_measures import boundary_agreement, gripper_events, with_noise, with_unknown_outcome
from grape.envs.registry import get_suite
from grape.store import EpisodeStore
from tests.costs.expert_recordings import record_all
from tests.reporters import Hearing

MakeTrajectory = Callable[..., Trajectory]

HEAD = """\
version: 1
suite: toy
task: push-block
limit: 8 steps
keypoints: [gripper, object, goal]
signals: []
stages:
  - name: push
    done_when: {near: {of: object, to: goal, within: 4 cm}}
    path:
"""
FAR_IS_GOOD = """\
      - {name: away, cost: {clear_of: {of: object, to: goal, by: 1 m}}, aggregate: mean, worst: 1 m, weight: 9 per m,
         objectives: [completion]}
"""
HASTE = """\
      - {name: jerk, cost: {smoothness: {of: gripper}}, aggregate: max, worst: 1 m/step2, weight: 900 per m/step2,
         objectives: [safety]}
"""


@pytest.fixture(scope="module")
def episodes() -> list[Trajectory]:
    suite = get_suite("toy")
    task = next(task for task in suite.tasks if task.name == "push-block")
    return record_all(suite, task, range(8))


def passed(card: ReportCard) -> dict[str, bool | None]:
    return {check.code: check.passed for check in card.checks}


def test_the_built_in_specification_is_accepted(episodes: list[Trajectory]) -> None:
    card = validate_specification(builtin_specification("toy", "push-block"), episodes)
    assert card.verdict == "accept", card.reasons
    assert card.reasons == ()
    assert passed(card) == dict.fromkeys(("finite", "falls", "trend", "ranks", "stable"), True) | {"boundaries": None}
    ranks = next(check for check in card.checks if check.code == "ranks")
    assert ranks.facts["interval"][0] <= ranks.value <= ranks.facts["interval"][1]
    assert (card.episodes, card.states) == (len(episodes), 8)
    assert json.loads(json.dumps(card.to_dict(), allow_nan=False))["verdict"] == "accept"


def test_the_verdict_of_the_simulator_does_not_help(episodes: list[Trajectory]) -> None:
    """Costs that praise the wrong thing rank failures first, though every failure is charged for failing."""
    specification = parse_specification(HEAD.replace("4 cm", "1 mm") + FAR_IS_GOOD, "far.yaml")
    solved = [sum(stage.cost for stage in evaluate(specification, one)) for one in episodes if one.meta.success]
    failed = [sum(stage.cost for stage in evaluate(specification, one)) for one in episodes if not one.meta.success]
    assert np.mean(solved) < np.mean(failed) + 9
    card = validate_specification(specification, episodes)
    assert card.verdict == "reject"
    assert passed(card)["ranks"] is False
    assert any("A success costs less than a failure in" in reason for reason in card.reasons)


def test_costs_that_noise_decides_are_found(episodes: list[Trajectory]) -> None:
    card = validate_specification(parse_specification(HEAD.replace("4 cm", "1 mm") + HASTE, "jerk.yaml"), episodes)
    assert passed(card)["stable"] is False
    stable = next(check for check in card.checks if check.code == "stable")
    assert stable.facts["flips"]["0.02"] > 0.05
    lenient = ValidationCriteria(max_flips=1.0, min_auc=0.0, min_auc_low=0.0, max_trend=1.0, min_fall=0.0)
    again = validate_specification(parse_specification(HEAD + HASTE, "jerk.yaml"), episodes, lenient)
    assert again.verdict == "accept"


def test_lost_keypoints_are_found(episodes: list[Trajectory]) -> None:
    lost = [
        dataclasses.replace(one, keypoints={**one.keypoints, "gripper": np.full_like(one.keypoints["gripper"], np.nan)})
        for one in episodes
    ]
    card = validate_specification(builtin_specification("toy", "push-block"), lost)
    assert passed(card)["finite"] is False
    assert "could not be measured, most often" in card.reasons[0]


def test_without_both_outcomes_nothing_is_decided(episodes: list[Trajectory]) -> None:
    specification = builtin_specification("toy", "push-block")
    solved = validate_specification(specification, [one for one in episodes if one.meta.success])
    assert (solved.verdict, solved.reasons) == ("undecided", ("No failure was recorded to compare with.",))
    failed = validate_specification(specification, [one for one in episodes if not one.meta.success])
    assert failed.verdict == "undecided"
    assert "No success was recorded to follow its costs." in failed.reasons
    assert validate_specification(specification, []).verdict == "undecided"


def test_too_few_initial_states_are_no_reason_to_reject(episodes: list[Trajectory]) -> None:
    card = validate_specification(builtin_specification("toy", "push-block"), one_state(episodes))
    assert card.verdict == "undecided"
    (reason,) = card.reasons
    assert "too few to be sure" in reason
    bad = parse_specification(HEAD.replace("4 cm", "1 mm") + FAR_IS_GOOD, "far.yaml")
    assert passed(validate_specification(bad, one_state(episodes)))["ranks"] is False


def one_state(episodes: list[Trajectory]) -> list[Trajectory]:
    """The episodes of the first initial state from which some were solved and some were not."""
    states = sorted({one.meta.initial_state for one in episodes})
    groups = [[one for one in episodes if one.meta.initial_state == state] for state in states]
    return next(group for group in groups if len({one.meta.success for one in group}) == 2)


def test_trials_are_repeatable(episodes: list[Trajectory]) -> None:
    specification = builtin_specification("toy", "push-block")
    cards = [validate_specification(specification, few) for few in (episodes[:15], episodes[14::-1])]
    assert cards[0] == cards[1]
    other = validate_specification(specification, episodes[:15], seed=1)
    assert other.checks[4].facts["flips_of_all_pairs"] != cards[0].checks[4].facts["flips_of_all_pairs"]


def test_noise_has_the_size_it_says(episodes: list[Trajectory]) -> None:
    rng = np.random.default_rng(0)
    moved = [
        np.linalg.norm(noisy.keypoints[name] - one.keypoints[name], axis=1)
        for one in episodes
        for noisy in (with_noise(one, 0.02, rng),)
        for name in one.keypoints
    ]
    assert np.sqrt(np.mean(np.concatenate(moved) ** 2)) == pytest.approx(0.02, rel=0.1)


def test_gripper_events_by_hand(make_trajectory: MakeTrajectory) -> None:
    still = {"gripper": np.zeros((12, 3))}

    def opening(*values: float) -> Trajectory:
        return make_trajectory(still, {"gripper_opening": values})

    assert gripper_events(opening(1, 1, 1, 1, 0.8, 0.4, 0.4, 0.4, 0.4, 0.9, 1, 1)) == (5, 9)
    assert gripper_events(opening(1, 1, 1, 0.2, 1, 1, 1, 1, 0.2, 0.2, 0.2, 0.2)) == (8,)  # flutter at 3
    assert gripper_events(opening(1, 1, 0.2, 0.2, 0.2, 0.2, 0.7, 0.7, 0.2, 0.2, 0.2, 0.2)) == (2,)  # pried apart at 6
    assert gripper_events(opening(*[0.9] * 6, *[1.0] * 6)) == ()
    assert gripper_events(opening(*[1.0] * 6, *[np.nan] * 6)) == ()
    assert gripper_events(make_trajectory(still)) == ()


def test_boundaries_are_compared_with_events(make_trajectory: MakeTrajectory) -> None:
    text = """\
version: 1
limit: 20 steps
keypoints: [gripper]
signals: [gripper_opening]
stages:
  - {name: reach, done_when: {gripper_closed: {at_most: 0.5}}}
  - {name: hold, done_when: {displaced: {of: gripper, by: 90 cm}}}
  - {name: leave, done_when: {displaced: {of: gripper, by: 5 m}}}
"""
    x = np.linspace(0, 1, 21)
    opening = [1] * 8 + [0] * 6 + [1] * 7  # closes at 8, opens at 14; 90 cm are reached at 18
    trajectory = make_trajectory({"gripper": np.stack([x, 0 * x, 0 * x], axis=1)}, {"gripper_opening": opening})
    stages = evaluate(parse_specification(text, "x"), trajectory)
    assert [stage.end for stage in stages[:2]] == [8, 18]
    agreement = boundary_agreement(trajectory, stages)
    assert (agreement.events, agreement.met, agreement.distances) == (2, 1, (0, 4))
    solved = dataclasses.replace(trajectory, meta=dataclasses.replace(trajectory.meta, success=True))
    specification = parse_specification(text, "x")
    lenient = validate_specification(specification, [solved]).checks[-1]
    strict = validate_specification(specification, [solved], ValidationCriteria(min_agreement=0.9)).checks[-1]
    assert (lenient.value, lenient.passed, strict.passed) == (0.5, True, False)


@pytest.fixture
def stores(tmp_path: Path, episodes: list[Trajectory]) -> list[Path]:
    halves = []
    for number, part in enumerate((episodes[:20], episodes[20:])):
        store = EpisodeStore.create(tmp_path / f"store-{number}", "toy", {})
        for one in part:
            store.write(one)
        halves.append(store.path)
    return halves


def test_the_verb_answers_by_its_exit_code(
    stores: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["costs", "validate", "toy/push-block", "--store", *map(str, stores), "--draws", "1", "--json"]
    assert main(words) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["verdict"], summary["episodes"]) == ("accept", 40)
    bad = tmp_path / "far.yaml"
    bad.write_text(HEAD.replace("4 cm", "1 mm") + FAR_IS_GOOD)
    assert main(["costs", "validate", str(bad), "--store", str(stores[0]), "--draws", "1"]) == 1
    assert "REJECT" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"store": ()}, SettingsError, "No episodes are named"),
        ({"target": "toy/reach-red"}, CompatibilityError, "no episode of task 'reach-red'"),
        ({"target": "metaworld/push"}, CompatibilityError, "no episode of task 'push'"),
        ({"min_auc": 1.5}, SettingsError, "--min-auc is 1.5"),
        ({"max_trend": float("nan")}, SettingsError, "--max-trend is nan"),
        ({"noise": (0.01, 0.0)}, SettingsError, "--noise is"),
        ({"draws": 0}, SettingsError, "--draws is 0"),
    ],
)
def test_usage_errors_are_told(
    stores: list[Path], change: dict[str, object], error: type[Exception], says: str
) -> None:
    settings = dataclasses.replace(CostsValidateSettings(target="toy/push-block", store=tuple(stores)), **change)  # type: ignore[arg-type]
    with pytest.raises(error, match=says):
        run_costs_validate(settings)


def test_what_was_not_recorded_is_told_before_anything_is_scored(stores: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text((HEAD + HASTE).replace("gripper", "griper"))
    with pytest.raises(DataError, match="Did you mean 'gripper'"):
        run_costs_validate(CostsValidateSettings(target=str(path), store=tuple(stores)))


def test_processes_that_share_the_episodes_say_the_same(stores: list[Path]) -> None:
    settings = CostsValidateSettings(target="toy/push-block", store=tuple(stores), draws=1)
    assert run_costs_validate(dataclasses.replace(settings, workers=2)) == run_costs_validate(settings)


def test_unknown_outcomes_are_left_out_and_told(stores: list[Path], episodes: list[Trajectory], tmp_path: Path) -> None:
    unknown = EpisodeStore.create(tmp_path / "unknown", "toy", {})
    for one in episodes[:3]:
        unknown.write(with_unknown_outcome(one))
    with pytest.raises(CompatibilityError, match="outcome of all 3 episodes is unknown"):
        run_costs_validate(CostsValidateSettings(target="toy/push-block", store=(unknown.path,)))
    reporter = Hearing()
    card = run_costs_validate(
        CostsValidateSettings(target="toy/push-block", store=(*stores, unknown.path), draws=1), reporter
    )
    assert card["episodes"] == 40
    assert any("3 of 43 episodes have no known outcome" in text for text in reporter.warnings)
