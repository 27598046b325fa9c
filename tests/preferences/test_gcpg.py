"""The formula, its normalizations and its calibration."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from grape.preferences.gcpg import (
    PUBLISHED_WEIGHTS,
    RawTerms,
    calibrate,
    external_term,
    normalize_self,
    outcome_groups,
    pooled_spread,
    typical_spread,
    weighted_terms,
)


def raw_terms(r_self, steps, cost, success, state, task=None) -> RawTerms:
    return RawTerms(
        r_self=np.array(r_self, dtype=np.float64),
        steps=np.array(steps),
        cost=np.array(cost, dtype=np.float64),
        success=np.array(success, dtype=np.float64),
        task=np.zeros(len(steps), dtype=np.int64) if task is None else np.array(task),
        state=np.array(state),
        tasks=("first", "second"),
    )


HAND = raw_terms([-30.0, -48.0, np.nan], [10, 16, 8], [0.0, np.log(4.0), np.log(2.0)], [1, 0, 1], [0, 0, 1])


def test_published_formula_by_hand() -> None:
    calibration = calibrate(HAND, from_data=False)
    assert (calibration.normalisation, calibration.weights) == ("raw", PUBLISHED_WEIGHTS)
    assert calibration.beta == {"first": 1.0, "second": 1.0}
    terms = weighted_terms(HAND, calibration)
    expected = [[-0.30, 0.01, 2.0], [-0.48, 0.0025, 0.0], [0.0, 0.005, 2.0]]
    np.testing.assert_allclose(terms, expected, rtol=1e-12)
    np.testing.assert_allclose(terms.sum(-1), [1.71, -0.4775, 2.005])


def test_given_weights_and_beta_by_hand() -> None:
    calibration = calibrate(HAND, from_data=False, weights=(0.1, 3.0, 1.0), beta=0.5, normalisation="step-mean")
    expected = [[-0.3, 3.0, 1.0], [-0.3, 1.5, 0.0], [0.0, 3.0 / np.sqrt(2.0), 1.0]]
    np.testing.assert_allclose(weighted_terms(HAND, calibration), expected, rtol=1e-12)


def test_standardized_self_by_hand() -> None:
    raw = raw_terms([-10, -30, -20, -8, np.nan], [10, 10, 10, 4, 5], [0] * 5, [0] * 5, [0, 0, 1, 2, 2])
    np.testing.assert_allclose(normalize_self(raw, "step-mean"), [-1, -3, -2, -2, np.nan])
    np.testing.assert_allclose(normalize_self(raw, "state-standardised"), [1, -1, 0, 0, np.nan])
    spread = np.std([-1, -3, -2, -2])
    np.testing.assert_allclose(normalize_self(raw, "task-standardised"), [1 / spread, -1 / spread, 0, 0, np.nan])


def test_pooled_spread_by_hand() -> None:
    values, group = np.array([1.0, 3.0, 10.0, 10.0, 7.0]), np.array([0, 0, 1, 1, 2])
    assert pooled_spread(values, group) == pytest.approx(np.sqrt(2.0 / 2.0))
    assert pooled_spread(values, np.arange(5)) is None
    assert pooled_spread(np.array([np.nan, 1.0]), np.array([0, 0])) is None
    assert pooled_spread(np.full(6, 0.1 + 0.2), np.zeros(6, dtype=int)) == 0.0
    assert pooled_spread(np.full(3, np.nan), np.zeros(3, dtype=int)) is None


def test_external_term_never_reaches_zero() -> None:
    raw = raw_terms([0.0, 0.0], [1, 1], [0.0, 1e9], [1, 0], [0, 0])
    assert external_term(raw, {"first": 1.0, "second": 1.0}).tolist() == [1.0, np.finfo(float).tiny]


def test_each_task_has_a_beta_of_its_own() -> None:
    """A long specification does not saturate beside a short one."""
    raw = raw_terms([0.0] * 4, [5] * 4, [0.1, 0.3, 40.0, 120.0], [1, 0, 1, 0], [0, 0, 1, 1], [0, 0, 1, 1])
    calibration = calibrate(raw)
    assert calibration.beta == pytest.approx({"first": 5.0, "second": 1.0 / 80.0})
    np.testing.assert_allclose(external_term(raw, calibration.beta), np.exp([-0.5, -1.5, -0.5, -1.5]))


def test_spreads_are_those_among_equal_outcomes() -> None:
    """The distance between successes and failures says nothing about the order among equals."""
    raw = raw_terms([-1.0, -2.0, -3.0, -4.0], [1] * 4, [0.0, 0.2, 9.0, 9.2], [1, 1, 0, 0], [0] * 4)
    calibration = calibrate(raw, beta=1.0)
    assert calibration.spreads["self"] == pytest.approx(1.0 / 0.953873)
    among = np.exp([0.0, -0.2, -9.0, -9.2])
    expected = np.mean([among[0] - among[1], among[2] - among[3]])
    assert calibration.spreads["ext"] == pytest.approx(expected / 0.953873)
    assert calibration.contributions["ext"] == pytest.approx(calibration.contributions["self"])


def test_a_few_far_values_do_not_set_the_scale() -> None:
    """Costs have heavy tails: with equal standard deviations R_self would decide nearly everything."""
    rng = np.random.default_rng(0)
    cost = np.where(rng.random(400) < 0.15, 4.0, 1.0) + rng.gamma(2.0, 0.02, 400)
    raw = raw_terms(rng.normal(-10.0, 2.0, 400), [10] * 400, cost, [0] * 400, np.repeat(np.arange(50), 8))
    terms = weighted_terms(raw, calibrate(raw))
    one, other = (np.arange(400).reshape(50, 8)[:, columns].ravel() for columns in np.triu_indices(8, k=1))
    of_self, of_ext = (terms[one] - terms[other])[:, :2].T
    opposed = of_self * of_ext < 0
    assert 0.4 < np.mean(np.abs(of_self)[opposed] > np.abs(of_ext)[opposed]) < 0.6
    assert pooled_spread(terms[:, 1], raw.state) == pytest.approx(0.5)


def test_where_no_two_outcomes_are_equal_spreads_are_those_within_states() -> None:
    alone = raw_terms([-1.0, -2.0], [1, 1], [0.0, 1.0], [1, 0], [0, 0])
    assert any("two episodes of one outcome" in note for note in calibrate(alone).notes)
    assert calibrate(alone).spreads["self"] == pytest.approx(1.0 / 0.953873)


@pytest.mark.parametrize("kind", [None, "raw", "state-standardised", "task-standardised"])
def test_noise_is_not_scaled_up(kind) -> None:
    """At a low temperature log-probabilities hardly differ; what is left of them must not rank."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0.0, 1e-4, 24)
    raw = raw_terms(10 * noise, [10] * 24, rng.gamma(2.0, 1.0, 24), rng.random(24) < 0.5, np.repeat([0, 1, 2], 8))
    terms = weighted_terms(raw, calibrate(raw, normalisation=kind))
    among = outcome_groups(raw)
    assert pooled_spread(terms[:, 0], among) < 0.02
    assert pooled_spread(terms[:, 1], among) == pytest.approx(0.5)
    if kind in (None, "raw"):
        assert any("noise" in note for note in calibrate(raw, normalisation=kind).notes)


@st.composite
def stores(draw: st.DrawFn) -> RawTerms:
    states, samples = draw(st.integers(2, 6)), draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = states * samples
    scale = 10 ** draw(st.floats(-2, 2))
    return raw_terms(
        -rng.gamma(2.0, scale, count) - 0.1 * scale,
        rng.integers(4, 17, count),
        rng.gamma(2.0, 10 ** draw(st.floats(-1, 0.7)), count),
        rng.random(count) < draw(st.floats(0, 1)),
        np.repeat(np.arange(states), samples),
        np.repeat(np.arange(states) % 2, samples),
    )


KINDS = st.sampled_from([None, "raw", "step-mean", "state-standardised", "task-standardised"])


@settings(deadline=None)  # the machine may be busy
@given(stores(), KINDS, st.floats(0.05, 1))
def test_calibration_makes_the_soft_terms_contribute_alike(raw: RawTerms, kind, share: float) -> None:
    calibration = calibrate(raw, normalisation=kind, soft_share=share)
    assume(not calibration.notes)
    terms = weighted_terms(raw, calibration)
    among = outcome_groups(raw)
    spread = [pooled_spread(terms[:, column], group) for column, group in enumerate((among, among, raw.state))]
    typical = [typical_spread(terms[:, column], among) for column in range(2)]
    assert typical[0] == pytest.approx(typical[1])
    assert max(spread[:2]) == pytest.approx(share * 2.0)
    assert calibration.weights[2] == 2.0
    assert calibration.contributions["self"] == pytest.approx(typical[0])
    assert calibration.contributions["success"] == pytest.approx(spread[2])


@settings(deadline=None)
@given(stores(), st.floats(0.1, 10), st.floats(0.1, 10), st.floats(0.1, 10))
def test_proportions_of_the_weights_are_kept(raw: RawTerms, first: float, second: float, third: float) -> None:
    calibration = calibrate(raw, weights=(first, second, third))
    assume(not calibration.notes)
    own, ext = calibration.contributions["self"], calibration.contributions["ext"]
    assert own is not None
    assert ext is not None
    assert own / ext == pytest.approx(first / second)


@settings(deadline=None)
@given(stores())
def test_a_silenced_term_stays_silent(raw: RawTerms) -> None:
    for position in range(3):
        weights = [0.01, 0.01, 2.0]
        weights[position] = 0.0
        calibration = calibrate(raw, weights=weights)
        assume(not calibration.notes)
        terms = weighted_terms(raw, calibration)
        assert not terms[:, position].any()
        spread = [pooled_spread(terms[:, other], outcome_groups(raw)) for other in {0, 1} - {position}]
        assert max(spread) == pytest.approx(0.5)


@settings(deadline=None)
@given(stores(), st.floats(0.01, 100), st.floats(0.01, 100))
def test_ranking_does_not_depend_on_units(raw: RawTerms, nats: float, cost: float) -> None:
    scaled = dataclasses.replace(raw, r_self=raw.r_self * nats, cost=raw.cost * cost)
    assume(not calibrate(raw).notes)
    assume(not calibrate(scaled).notes)
    first, second = (weighted_terms(item, calibrate(item)) for item in (raw, scaled))
    np.testing.assert_allclose(first, second, rtol=1e-6, atol=1e-9)


@settings(deadline=None)
@given(stores(), st.randoms(use_true_random=False))
def test_order_of_episodes_does_not_matter(raw: RawTerms, random) -> None:
    order = np.array(random.sample(range(len(raw.steps)), len(raw.steps)))
    shuffled = dataclasses.replace(
        raw, **{name: x[order] for name, x in vars(raw).items() if isinstance(x, np.ndarray)}
    )
    first, second = (weighted_terms(item, calibrate(item)) for item in (raw, shuffled))
    np.testing.assert_allclose(first[order], second, rtol=1e-9)


@settings(deadline=None)
@given(stores())
def test_success_dominates_but_does_not_silence(raw: RawTerms) -> None:
    assume(0 < raw.success.mean() < 1)
    assume(not calibrate(raw).notes)
    terms = weighted_terms(raw, calibrate(raw))
    soft = pooled_spread(terms[:, 0] + terms[:, 1], outcome_groups(raw))
    assert soft is not None
    assert 0 <= soft <= 1.0 + 1e-9  # at most half of the gap of 2 between success and failure
    assert terms[:, 0].any()
    assert terms[:, 1].any()


def test_beta_does_not_depend_on_the_success_rate() -> None:
    few = raw_terms([-1] * 4, [1] * 4, [0.2, 4.0, 4.0, 4.0], [1, 0, 0, 0], [0] * 4)
    many = raw_terms([-1] * 4, [1] * 4, [0.2, 0.2, 0.2, 4.0], [1, 1, 1, 0], [0] * 4)
    assert calibrate(few).beta["first"] == pytest.approx(1 / 2.1)
    assert calibrate(many).beta["first"] == pytest.approx(1 / 2.1)
    assert calibrate(raw_terms([-1], [1], [0.0], [1], [0])).beta["first"] == 1.0


def test_what_cannot_be_calibrated_is_said() -> None:
    single = calibrate(raw_terms([-1, -2], [1, 1], [1, 2], [1, 0], [0, 1]))
    assert single.weights == PUBLISHED_WEIGHTS
    assert [note.split(":")[1].strip() for note in single.notes] == ["no initial state has two episodes."] * 2
    experts = calibrate(raw_terms([np.nan] * 2, [1, 1], [1, 2], [1, 1], [0, 0]))
    assert experts.notes == ("No episode was sampled from a policy: R_self does not count.",)
    assert weighted_terms(raw_terms([np.nan] * 2, [1, 1], [1, 2], [1, 1], [0, 0]), experts)[:, 0].tolist() == [0, 0]
    constant = calibrate(raw_terms([-1, -2], [1, 1], [3, 3], [1, 1], [0, 0]))
    assert constant.notes == ("The weight of term 'ext' stays as given: it does not vary among equal outcomes.",)
