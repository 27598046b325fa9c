"""Thresholds learnt from successes, and prices under them."""

import pytest

from grape.core.preferences import StageScore
from grape.costs import CostSpecification, adjust_objectives, builtin_specification, evaluate
from grape.preferences.thresholds import SuccessCosts, reprice, with_thresholds
from tests.preferences.rollouts import TASKS, make_rollout


def suggested(specification: CostSpecification, successes: list[tuple[StageScore, ...]], quantile: float) -> dict:
    costs = SuccessCosts(specification)
    for stages in successes:
        costs.add(stages)
    return costs.thresholds(quantile)


@pytest.mark.parametrize("task", TASKS)
def test_repricing_equals_evaluating_again(task: str) -> None:
    specification = builtin_specification("metaworld", task)
    successes = [evaluate(specification, make_rollout(task, 0, n, steps=8 + n % 5)) for n in range(12)]
    thresholds = suggested(specification, successes, 0.25)
    assert thresholds
    raised = with_thresholds(specification, thresholds)
    final = adjust_objectives(raised, thresholds={"safety": 0.5})
    for success in (True, False):
        for sample in range(6):
            trajectory = make_rollout(task, 1, sample, success, steps=16)
            before = evaluate(specification, trajectory)
            assert reprice(before, specification) == before
            for adjusted in (raised, final):
                assert reprice(before, adjusted) == evaluate(adjusted, trajectory)


def test_thresholds_are_raised_only_and_never_those_of_safety() -> None:
    specification = builtin_specification("metaworld", "drawer-open")
    successes = [evaluate(specification, make_rollout(sample=n, steps=8 + n % 5)) for n in range(12)]
    thresholds = suggested(specification, successes, 0.5)
    groups = [*(stage.constraints for stage in specification.stages), specification.outcome.constraints]
    given = {(number, item.name): item for number, group in enumerate(groups) for item in group}
    assert any(name == "time" for _, name in thresholds)
    for place, threshold in thresholds.items():
        assert threshold > given[place].threshold
        assert threshold <= given[place].worst
        assert "safety" not in given[place].objectives
    raised = with_thresholds(specification, thresholds)
    free = sum(reprice(stages, raised)[0].constraints[3].contribution == 0 for stages in successes)
    assert free >= 6, "half of the successes pay nothing for the time of the first stage"


def test_few_successes_change_nothing() -> None:
    specification = builtin_specification("metaworld", "drawer-open")
    successes = [evaluate(specification, make_rollout(sample=n)) for n in range(7)]
    assert suggested(specification, successes, 0.25) == {}
    assert with_thresholds(specification, {}) is specification
