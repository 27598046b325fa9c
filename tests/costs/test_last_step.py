"""Episodes that were recorded to their last step have to be done when they end."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grape.core.trajectories import Trajectory
from grape.costs import builtin_specification, evaluate, parse_specification, with_unknown_outcome
from grape.costs.formulas import Call, Condition
from grape.envs.libero.tasks import suite_tasks
from tests.costs.two_part_episodes import Scene, parts_of, play

MakeTrajectory = Callable[..., Trajectory]

SPECIFICATION = parse_specification(
    """\
version: 1
limit: 10 steps
keypoints: [block, goal]
signals: [bump, success]
stages:
  - {name: leave, done_when: {displaced: {of: block, by: 10 cm}}}
  - name: push
    done_when: {near: {of: block, to: goal, within: 10 cm}}
    path:
      - {name: time, cost: {duration: {}}, weight: 0.3, objectives: [efficiency]}
      - {name: bumps, cost: {released: {signal: bump}}, aggregate: integral, weight: 1, objectives: [safety]}
outcome:
  subgoal:
    - {name: at-goal, cost: {distance: {of: block, to: goal}}, worst: 1 m, weight: 1 per m, objectives: [completion]}
""",
    "test.yaml",
)


SUCCEEDED = Call("succeeded", (("signal", "success"),))


def episode(make_trajectory: MakeTrajectory, xs: list[float], until: str, bump: list[int] | None = None) -> Trajectory:
    """The block's way to the goal at 1 m; success is where it is within 10 cm."""
    block = [[x, 0.0, 0.0] for x in xs]
    success = [float(abs(x - 1.0) <= 0.1) for x in xs]
    keypoints = {"block": block, "goal": [[1.0, 0.0, 0.0]] * len(xs)}
    made = make_trajectory(keypoints, {"success": success, "bump": bump or [0] * len(xs)}, success=bool(success[-1]))
    return dataclasses.replace(made, meta=dataclasses.replace(made.meta, until=until))


def cost(shown: Trajectory) -> float:
    return sum(stage.cost for stage in evaluate(SPECIFICATION, shown))


STAYS = [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]
LEAVES = [0.0, 0.5, 1.0, 1.0, 0.4, 0.4]
RETURNS = [0.0, 0.5, 1.0, 0.4, 1.0, 1.0]


@pytest.mark.parametrize("hide", [False, True])
def test_what_happens_after_the_first_success_is_priced(make_trajectory: MakeTrajectory, hide: bool) -> None:
    def priced(xs: list[float], bump: list[int] | None = None) -> float:
        shown = episode(make_trajectory, xs, "last-step", bump)
        return cost(with_unknown_outcome(shown) if hide else shown)

    assert priced(STAYS) < priced(RETURNS) < priced(LEAVES)
    assert priced(RETURNS, [0, 0, 0, 1, 0, 0]) > priced(RETURNS)
    assert priced(LEAVES, [0, 0, 0, 0, 0, 1]) > priced(LEAVES)


@pytest.mark.parametrize("hide", [False, True])
def test_the_last_stage_ends_at_the_last_onset(make_trajectory: MakeTrajectory, hide: bool) -> None:
    boundaries = {}
    for name, xs in (("stays", STAYS), ("leaves", LEAVES), ("returns", RETURNS)):
        shown = episode(make_trajectory, xs, "last-step")
        leave, push, outcome = evaluate(SPECIFICATION, with_unknown_outcome(shown) if hide else shown)
        assert (leave.start, leave.end, leave.done) == (0, 1, True)  # earlier stages end when they are first done
        assert outcome.start == outcome.end == 5  # judged at the end
        boundaries[name] = (push.start, push.end, push.done)
    assert boundaries == {"stays": (1, 2, True), "leaves": (1, 5, False), "returns": (1, 4, True)}


def test_an_episode_that_ends_at_its_first_success_is_priced_as_ever(make_trajectory: MakeTrajectory) -> None:
    """Also where a recording from another program goes on: version 1 of the language keeps its meaning."""
    push = evaluate(SPECIFICATION, episode(make_trajectory, STAYS, "success"))[1]
    assert (push.end, push.done) == (2, True)
    stages = evaluate(SPECIFICATION, episode(make_trajectory, LEAVES, "success"))
    assert (stages[1].end, stages[1].done) == (2, True)


def test_standing_solved_costs_neither_time_nor_way(make_trajectory: MakeTrajectory) -> None:
    short, long = (
        cost(with_unknown_outcome(episode(make_trajectory, STAYS + [1.0] * more, "last-step"))) for more in (0, 5)
    )
    assert short == pytest.approx(long)


def test_a_last_stage_that_only_the_verdict_ends_lasts_to_the_last_state_where_it_is_hidden(
    make_trajectory: MakeTrajectory,
) -> None:
    """As docs/costs.md says of most built-in specifications."""
    last = dataclasses.replace(SPECIFICATION.stages[1], done_when=Condition("holds", SUCCEEDED))
    specification = dataclasses.replace(SPECIFICATION, stages=(SPECIFICATION.stages[0], last))
    shown = episode(make_trajectory, STAYS, "last-step")
    ends = [evaluate(specification, one)[1].end for one in (shown, with_unknown_outcome(shown))]
    assert ends == [2, 5]


def test_success_that_comes_and_goes_counts_from_its_last_onset(make_trajectory: MakeTrajectory) -> None:
    """With the verdict: it ends all stages, done or not."""
    shown = episode(make_trajectory, RETURNS, "last-step")
    still = np.array(shown.keypoints["block"])
    still[:, 0] = 0.0  # solved in another way than foreseen
    stages = evaluate(SPECIFICATION, dataclasses.replace(shown, keypoints={**shown.keypoints, "block": still}))
    assert [(stage.start, stage.end, stage.done) for stage in stages] == [(0, 4, True), (4, 4, True), (5, 5, True)]


@settings(max_examples=100, deadline=None)
@given(near=st.lists(st.booleans(), min_size=2, max_size=11), hide=st.booleans())
def test_done_is_what_holds_at_the_end(make_trajectory: MakeTrajectory, near: list[bool], hide: bool) -> None:
    xs = [0.0, 0.5, *(1.0 if one else 0.5 for one in near)]
    shown = episode(make_trajectory, xs, "last-step")
    push = evaluate(SPECIFICATION, with_unknown_outcome(shown) if hide else shown)[1]
    assert push.done == near[-1]
    assert push.end == (
        2 + max((i + 1 for i, one in enumerate(near) if not one), default=0) if near[-1] else len(xs) - 1
    )


TWO_THINGS_TO_DO = [
    task.name for task in suite_tasks("libero_10") if builtin_specification("libero_10", task.name).any_order
]


@pytest.mark.parametrize("name", TWO_THINGS_TO_DO)
def test_knocking_the_object_away_again_costs_more_than_leaving_it(name: str, make_trajectory: MakeTrajectory) -> None:
    """With the built-in costs of LIBERO-10, with the verdict and, as ``grape score`` does, without it."""
    specification = builtin_specification("libero_10", name)
    parts = parts_of(specification)

    def knock(scene: Scene) -> None:
        part = next(part for part in parts if scene.carried[part])
        scene.go(scene.points[f"object{part}"])
        scene.go(scene.points[f"object{part}"] + np.array([0.0, 0.5, 0.0]), f"object{part}")
        scene.signals[f"done{part}"] = 0.0

    stays, leaves = (
        play(specification, make_trajectory, parts, until="last-step", afterwards=afterwards)
        for afterwards in (lambda scene: None, knock)
    )
    assert (stays.meta.success, leaves.meta.success) == (True, False)
    for shown in (lambda one: one, with_unknown_outcome):
        costs = [sum(stage.cost for stage in evaluate(specification, shown(one))) for one in (stays, leaves)]
        assert costs[0] < costs[1] - 0.3
