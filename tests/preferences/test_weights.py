"""Weights by margin."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grape.preferences.weights import WEIGHT_BOUND, margin_weights

MARGINS = st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=30)


@settings(deadline=None)
@given(MARGINS)
def test_weights_are_bounded_have_mean_one_and_follow_the_margins(margins: list[float]) -> None:
    weights = margin_weights(margins)
    assert sum(weights) / len(weights) == pytest.approx(1.0, abs=1e-9)
    assert all(1 / WEIGHT_BOUND <= weight <= WEIGHT_BOUND for weight in weights)
    between = [
        (margin, weight)
        for margin, weight in zip(margins, weights, strict=True)
        if 1 / WEIGHT_BOUND < weight < WEIGHT_BOUND
    ]
    for margin, weight in between:  # proportional wherever no bound holds
        assert weight / margin == pytest.approx(between[0][1] / between[0][0], rel=1e-9)
    ordered = sorted(zip(margins, weights, strict=True))
    assert [weight for _, weight in ordered] == sorted(weights)


@settings(deadline=None)
@given(MARGINS, st.floats(0.01, 100))
def test_the_unit_of_margins_does_not_matter(margins: list[float], unit: float) -> None:
    assert margin_weights([unit * margin for margin in margins]) == pytest.approx(margin_weights(margins), rel=1e-6)


def test_equal_margins_weigh_one_and_an_outlier_is_bounded() -> None:
    assert margin_weights([0.3] * 5) == pytest.approx([1.0] * 5)
    weights = margin_weights([1000.0, *[1.0] * 9])
    assert weights == pytest.approx([4.0, *[6 / 9] * 9])
    assert margin_weights([2.0, 1.0, 3.0]) == pytest.approx([1.0, 0.5, 1.5])
