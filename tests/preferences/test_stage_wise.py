"""Segments of one stage of two episodes of one initial state."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grape.core.preferences import Score
from grape.preferences.pairing import pairs_of_states
from tests.preferences.test_segments import LENGTHS, staged

COSTS = st.lists(st.integers(0, 20).map(lambda value: value / 10), min_size=3, max_size=3)


@st.composite
def populations(draw: st.DrawFn) -> list[Score]:
    count = draw(st.integers(0, 8))
    scores = []
    for number in range(count):
        lengths = draw(LENGTHS)
        success = draw(st.sampled_from([True, False, None]))
        scores.append(staged(f"e{number}", *lengths, finished=len(lengths) - 1, success=success, costs=draw(COSTS)))
    return scores


@settings(deadline=None)
@given(
    populations(),
    st.sampled_from(["best-worst", "top-bottom", "random"]),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.5]),
    st.booleans(),
    st.booleans(),
)
def test_invariants(scores, mode, m, margin, mixed, succeed) -> None:
    options = {"margin": margin, "require_mixed_outcomes": mixed, "chosen_must_succeed": succeed, "stage_wise": True}
    groups, census = pairs_of_states(scores, mode=mode, m=m, seed=3, **options)
    pairs = [pair for group in groups for pair in group]
    by_id = {score.episode_id: {stage.name: stage for stage in score.stages} for score in scores}
    outcomes = [score.success for score in scores]
    assert len({pair.pair_id for pair in pairs}) == len(pairs)
    per_stage: dict[str, list[str]] = {}
    for pair in pairs:
        name = pair.pair_id.split("-")[2]
        sides = by_id[pair.chosen][name], by_id[pair.rejected][name]
        assert all(stage.reached for stage in sides)
        assert [pair.chosen_steps, pair.rejected_steps] == [(stage.start, stage.end) for stage in sides]
        assert all(start < stop for start, stop in (pair.chosen_steps, pair.rejected_steps))
        assert pair.margin == sides[1].cost - sides[0].cost == pair.terms["stage"]
        assert f"stage '{name}'" in pair.reason
        assert all(f"{stage.cost:.3f}" in pair.reason for stage in sides)
        assert pair.mode == f"stage-wise {mode}"
        per_stage.setdefault(name, []).extend([pair.chosen, pair.rejected])
        assert not succeed or next(s for s in scores if s.episode_id == pair.chosen).success
        if mode != "random":
            assert pair.margin >= max(margin, 1e-3)
    assert all(len(set(used)) == len(used) <= 2 * (1 if mode == "best-worst" else m) for used in per_stage.values())
    if mixed and pairs:
        assert None not in outcomes
        assert len(set(outcomes)) == 2
    if mode != "random":
        assert [pair.margin for pair in pairs] == sorted((pair.margin for pair in pairs), reverse=True)
    shuffled = random.Random(1).sample(scores, len(scores))
    assert pairs_of_states(shuffled, mode=mode, m=m, seed=3, **options) == (groups, census)


def test_only_episodes_that_entered_a_stage_are_compared_there_and_its_cost_ranks() -> None:
    scores = [
        staged("a", 4, 5, 6, finished=3, success=True, costs=(0.4, 0.3, 0.2)),
        staged("b", 6, 9, finished=1, costs=(0.1, 2.0, 9.0)),
        staged("c", 8, finished=0, costs=(3.0, 9.0, 9.0)),
    ]
    groups, census = pairs_of_states(scores, mode="best-worst", stage_wise=True)
    pairs = {pair.pair_id: pair for group in groups for pair in group}
    # The third stage was entered by one episode only. In the first one the failure did better than the success.
    assert list(pairs) == ["t-s00000-reach-p00", "t-s00000-grasp-p00"]
    reach, grasp = pairs.values()
    assert (reach.chosen, reach.rejected, reach.chosen_steps, reach.rejected_steps) == ("b", "c", (0, 6), (0, 8))
    assert (grasp.chosen, grasp.rejected, grasp.chosen_steps, grasp.rejected_steps) == ("a", "b", (4, 9), (6, 15))
    assert grasp.margin == pytest.approx(1.7)
    assert grasp.reason.startswith("In stage 'grasp' the chosen side cost 0.300, the other 2.000")
    assert (census["t"].used, census["t"].pairs) == (1, 2)


def test_unknown_outcomes_take_part_unless_both_outcomes_are_required() -> None:
    scores = [staged(name, 4, finished=0, success=None, costs=(cost,)) for name, cost in (("a", 0.2), ("b", 0.9))]
    groups, _ = pairs_of_states(scores, mode="top-bottom", stage_wise=True, require_mixed_outcomes=False)
    assert [(pair.chosen, pair.rejected) for group in groups for pair in group] == [("a", "b")]
    assert pairs_of_states(scores, mode="top-bottom", stage_wise=True)[0] == []
