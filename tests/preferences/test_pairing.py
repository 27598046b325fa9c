"""Who is compared with whom."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grape.core.preferences import Score
from grape.preferences.pairing import limit_pairs, pairs_of_states
from tests.preferences.rollouts import make_score

MODES = ("best-worst", "top-bottom", "success-only", "random")
RANKING = ("best-worst", "top-bottom")


@st.composite
def score_sets(draw: st.DrawFn) -> list[Score]:
    values = st.floats(-3, 3).map(lambda value: round(value, 1))
    rows = draw(
        st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.booleans(), values, values), max_size=40)
    )
    return [
        make_score(f"e{number:03d}", task, state, success, (own, ext, 2.0 * success))
        for number, (task, state, success, own, ext) in enumerate(rows)
    ]


@settings(deadline=None)  # the machine may be busy
@given(
    score_sets(),
    st.sampled_from(MODES),
    st.integers(1, 5),
    st.booleans(),
    st.integers(0, 9),
    st.sampled_from([0.0, 0.7]),
    st.booleans(),
)
def test_invariants(scores, mode, m, mixed, seed, margin, succeed) -> None:
    by_id = {score.episode_id: score for score in scores}
    options = {"margin": margin, "require_mixed_outcomes": mixed, "chosen_must_succeed": succeed}
    groups, census = pairs_of_states(scores, mode=mode, m=m, seed=seed, **options)
    pairs = [pair for group in groups for pair in group]
    assert len({pair.pair_id for pair in pairs}) == len(pairs)
    assert sum(item.pairs for item in census.values()) == len(pairs)
    for group in groups:
        assert 1 <= len(group) <= (1 if mode == "best-worst" else m)
        used = [name for pair in group for name in (pair.chosen, pair.rejected)]
        assert len(set(used)) == len(used)
        outcomes = {s.success for s in scores if (s.task, s.initial_state) == (group[0].task, group[0].initial_state)}
        assert len(outcomes) == 2 or not mixed
    for pair in pairs:
        chosen, rejected = by_id[pair.chosen], by_id[pair.rejected]
        assert (chosen.task, chosen.initial_state) == (rejected.task, rejected.initial_state)
        assert (chosen.task, chosen.initial_state) == (pair.task, pair.initial_state)
        assert pair.margin == chosen.gcpg - rejected.gcpg
        assert sum(pair.terms.values()) == pytest.approx(pair.margin)
        assert pair.reason.endswith(".")
        assert chosen.success or not succeed
        if mode in RANKING:
            assert pair.margin >= max(margin, 1e-12)
        if mode == "success-only":
            assert (chosen.success, rejected.success) == (True, False)
    shuffled = list(scores)
    random.Random(seed).shuffle(shuffled)
    again = pairs_of_states(shuffled, mode=mode, m=m, seed=seed, **options)
    assert again == (groups, census)


@settings(deadline=None)
@given(score_sets())
def test_best_of_each_state_is_chosen(scores) -> None:
    groups, _ = pairs_of_states(scores, mode="best-worst", require_mixed_outcomes=False)
    for (pair,) in groups:
        gcpg = [s.gcpg for s in scores if (s.task, s.initial_state) == (pair.task, pair.initial_state)]
        assert pair.margin == max(gcpg) - min(gcpg)


@settings(deadline=None)
@given(score_sets(), st.integers(1, 3), st.integers(1, 12), st.integers(0, 5))
def test_limits_are_kept_evenly(scores, per_state, total, seed) -> None:
    groups, _ = pairs_of_states(scores, mode="top-bottom", m=5, require_mixed_outcomes=False)
    everything = [pair for group in groups for pair in group]
    kept = limit_pairs(groups, per_state=per_state, total=total, seed=seed)
    capped = [group[:per_state] for group in groups]
    assert len(kept) == min(total, sum(map(len, capped)))
    assert kept == [pair for pair in everything if pair in kept]
    counts = {id(group): sum(pair in kept for pair in group) for group in capped}
    for group in capped:
        if counts[id(group)] < len(group):  # cut short: then nobody has more than one pair more
            assert max(counts.values()) <= counts[id(group)] + 1
        assert [pair in kept for pair in group] == sorted((pair in kept for pair in group), reverse=True)
    assert limit_pairs(groups, per_state=None, total=None, seed=0) == everything


def test_top_bottom_goes_rank_by_rank_from_both_ends() -> None:
    scores = [make_score(name, terms=(value, 0, 0)) for name, value in zip("abcde", (5.0, 1, 4, 2, 3), strict=True)]
    groups, _ = pairs_of_states(scores, mode="top-bottom", m=4, require_mixed_outcomes=False)
    assert [(pair.chosen, pair.rejected) for pair in groups[0]] == [("a", "b"), ("c", "d")]
    assert [pair.margin for pair in groups[0]] == [4.0, 2.0]


def test_random_mode_ignores_scores_and_outcomes() -> None:
    scores = [
        make_score(f"e{n}", state=n // 2, success=n % 2 == 0, terms=(0, 0, 2.0 * (n % 2 == 0))) for n in range(800)
    ]
    groups, _ = pairs_of_states(scores, mode="random", margin=5.0)
    won = sum(pair.margin > 0 for group in groups for pair in group)
    assert len(groups) == 400
    assert 150 < won < 250
    other, _ = pairs_of_states(scores, mode="random", seed=1)
    assert other != groups


def test_census_names_every_kind_of_state() -> None:
    rows = [("m", True), ("m", False), ("s", True), ("s", True), ("f", False), ("f", False), ("1", True)]
    scores = [
        make_score(f"e{n}", state=ord(kind), success=won, terms=(0, 0, 2.0 * won)) for n, (kind, won) in enumerate(rows)
    ]
    _, census = pairs_of_states(scores, mode="best-worst", require_mixed_outcomes=False)
    counts = census["t"]
    assert (counts.mixed, counts.all_successes, counts.all_failures, counts.single) == (1, 1, 1, 1)
    assert (counts.used, counts.pairs, counts.narrow) == (1, 1, 2)


def test_pairs_of_two_failures_can_be_left_out() -> None:
    scores = [make_score(f"e{n}", success=n == 0, terms=(0, -n / 10, 2.0 * (n == 0))) for n in range(4)]
    groups, census = pairs_of_states(scores, mode="top-bottom", chosen_must_succeed=True)
    assert [(pair.chosen, pair.rejected) for group in groups for pair in group] == [("e0", "e3")]
    assert census["t"].failed == 1


@settings(deadline=None)
@given(score_sets(), st.integers(0, 9), st.booleans())
def test_every_success_is_chosen_once(scores, seed, mixed) -> None:
    groups, _ = pairs_of_states(scores, mode="every-success", m=1, seed=seed, require_mixed_outcomes=mixed)
    pairs = [pair for group in groups for pair in group]
    by_id = {score.episode_id: score for score in scores}
    states: dict[tuple[str, int], list[Score]] = {}
    for score in scores:
        states.setdefault((score.task, score.initial_state), []).append(score)
    expected = {
        score.episode_id
        for members in states.values()
        for score in members
        if score.success and len(members) > 1 and not (mixed and all(other.success for other in members))
    }
    assert sorted(pair.chosen for pair in pairs) == sorted(expected)
    for pair in pairs:
        rejected = by_id[pair.rejected]
        assert (rejected.task, rejected.initial_state) == (pair.task, pair.initial_state)
        failures = [score for score in states[pair.task, pair.initial_state] if not score.success]
        assert not (rejected.success and failures)
    assert (
        pairs_of_states(scores[::-1], mode="every-success", m=1, seed=seed, require_mixed_outcomes=mixed)[0] == groups
    )


@settings(deadline=None)
@given(score_sets(), st.sampled_from(RANKING), st.integers(1, 3), st.integers(0, 9), st.booleans())
def test_a_random_rejected_side_leaves_the_chosen_ones_as_they_are(scores, mode, m, seed, succeed) -> None:
    options = {"mode": mode, "m": m, "seed": seed, "chosen_must_succeed": succeed, "require_mixed_outcomes": False}
    ranked, census = pairs_of_states(scores, **options)
    drawn, same_census = pairs_of_states(scores, random_rejected=True, **options)
    assert census == same_census
    by_id = {score.episode_id: score for score in scores}
    for group, other in zip(ranked, drawn, strict=True):
        assert [pair.chosen for pair in group] == [pair.chosen for pair in other]
        for pair in other:
            assert pair.rejected != pair.chosen
            assert by_id[pair.rejected].initial_state == pair.initial_state
            assert pair.margin == by_id[pair.chosen].gcpg - by_id[pair.rejected].gcpg


def test_a_random_rejected_side_can_be_any_other_of_the_state() -> None:
    scores = [make_score(f"e{n}", "a", 0, n > 1, (0.0, 0.1 * n, 2.0 * (n > 1))) for n in range(4)]
    drawn = {
        pairs_of_states(scores, mode="best-worst", random_rejected=True, seed=seed)[0][0][0].rejected
        for seed in range(40)
    }
    assert drawn == {"e0", "e1", "e2"}
