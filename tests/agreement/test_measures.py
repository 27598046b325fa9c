"""Concordance, Krippendorff's alpha and calibration against values computed by hand and published ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grape.agreement import concordance_between, krippendorff_alpha, reliability_of
from grape.agreement.probabilities import calibration_of
from grape.costs import concordance

NAN = float("nan")

#: Four observers, twelve units: Krippendorff (2011), Computing Krippendorff's alpha-reliability, example C to E.
PUBLISHED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
).T


def test_alpha_is_the_published_one() -> None:
    assert krippendorff_alpha(PUBLISHED) == pytest.approx(0.849, abs=5e-4)
    assert krippendorff_alpha(np.full((4, 3), 2.0)) is None
    assert krippendorff_alpha([[1.0, NAN], [NAN, 0.0]]) is None


def test_alpha_by_hand_counts_both_orders_of_a_couple() -> None:
    # Two raters, two couples: agreed once, opposed once. Both orders: values 1, 1, -1, -1 and 1, -1, -1, 1, halved.
    # n = 4, n(1) = n(-1) = 2; D_o = 2 * 4 / 4 = 2; D_e = 2 * 2 * 2 * 4 / (4 * 3) = 8 / 3; alpha = 1 - 3 / 4.
    measured = reliability_of(np.array([[1.0, 1.0], [1.0, -1.0]]), [0, 1])
    assert measured.alpha == pytest.approx(0.25)
    assert (measured.interval, measured.couples, measured.states) == (None, 2, 2)
    # Without both orders a rater who always says "the first one" would agree with everybody by chance alone.
    assert reliability_of(np.array([[1.0, 1.0]] * 8), range(8)).alpha == pytest.approx(1.0)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.sampled_from([-1.0, 0.0, 1.0, NAN]), min_size=3, max_size=3), min_size=2), st.data())
def test_alpha_does_not_depend_on_which_side_is_called_first(rows: list[list[float]], data: st.DataObject) -> None:
    orders = np.array(rows)
    flips = np.array(data.draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=len(rows), max_size=len(rows))))
    one, other = (reliability_of(table, [0] * len(rows)).alpha for table in (orders, orders * flips[:, None]))
    assert one == (None if other is None else pytest.approx(other))


def test_intervals_of_alpha_hold_that_of_chance_as_often_as_they_say() -> None:
    states = np.repeat(np.arange(20), 4).tolist()
    held = 0
    for seed in range(60):
        measured = reliability_of(np.random.default_rng(seed).choice([-1.0, 1.0], (80, 3)), states, seed)
        assert measured.interval is not None
        held += measured.interval[0] < 0.0 < measured.interval[1]
    assert 52 <= held <= 60  # 57 of 60 at 95 %


def test_concordance_by_hand() -> None:
    source, reference = np.array([1.0, -1.0, 0.0, NAN, 1.0]), np.array([1.0, 1.0, -1.0, 1.0, 0.0])
    measured = concordance_between(source, reference, [0, 0, 1, 1, 2])
    assert measured.value == pytest.approx((1 + 0 + 0.5) / 3)
    assert (measured.couples, measured.states) == (3, 2)
    assert 0.0 < measured.low < 0.5 < measured.high < 1.0
    assert concordance_between(source, np.zeros(5), [0] * 5).value is None


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 2)), min_size=2, max_size=12))
def test_concordance_with_success_is_that_of_costs(episodes: list[tuple[int, bool, int]]) -> None:
    cost, success, state = zip(*episodes, strict=True)
    expected, count = concordance([float(value) for value in cost], success, state)
    rows = [
        (np.sign(cost[b] - cost[a]), float(success[a]) - float(success[b]), state[a])
        for a in range(len(episodes))
        for b in range(a + 1, len(episodes))
        if state[a] == state[b]
    ]
    orders = np.array(rows, dtype=np.float64).reshape(-1, 3)
    measured = concordance_between(orders[:, 0], orders[:, 1], [row[2] for row in rows])
    assert measured.couples == count
    assert measured.value == (None if expected is None else pytest.approx(expected))


def test_couples_of_one_state_are_not_independent() -> None:
    source, reference = np.array([1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0] * 5), np.ones(40)
    together = concordance_between(source, reference, np.repeat(np.arange(10), 4).tolist())
    apart = concordance_between(source, reference, list(range(40)))
    assert together.value == apart.value == 0.5
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


def test_calibration_by_hand() -> None:
    p = np.array([0.9, 0.1, 0.9, 0.5, NAN, 0.6])
    success = np.array([1.0, -1.0, -1.0, 1.0, 1.0, 0.0])
    measured = calibration_of(p, success, [0, 1, 2, 3, 4, 5])
    assert measured is not None
    assert measured["couples"] == 4
    assert measured["brier"] == pytest.approx((0.01 + 0.01 + 0.81 + 0.25) / 4)
    low, high = measured["bins"]
    assert (low["couples"], low["confidence"], low["accuracy"]) == (1, 0.5, 0.5)
    assert (high["couples"], high["accuracy"]) == (3, pytest.approx(2 / 3))
    assert high["confidence"] == pytest.approx(0.9)
    assert measured["calibration_error"] == pytest.approx(0.75 * (0.9 - 2 / 3))
    assert calibration_of(p, np.zeros(6), [0] * 6) is None
    # Which side is called first does not matter.
    flipped = calibration_of(1.0 - p, -success, [0, 1, 2, 3, 4, 5])
    assert flipped is not None
    assert flipped["brier"] == pytest.approx(measured["brier"])
    assert flipped["calibration_error"] == pytest.approx(measured["calibration_error"])
