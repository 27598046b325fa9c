import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grape.training.losses import (
    LossSettings,
    TrajectorySums,
    coefficients,
    hinge_loss,
    imitation_loss,
    ipo_loss,
    preference_loss,
    sigmoid_loss,
)

numbers = st.floats(-200, 200)


def sums(s_w, s_l, r_w=0.0, r_l=0.0, t_w=8, t_l=8):
    values = (s_w, s_l, r_w, r_l, float(t_w), float(t_l))
    return TrajectorySums(*(torch.tensor([value], dtype=torch.float64) for value in values))


def test_sigmoid_loss_by_hand():
    # S_w - R_w = 2, S_l - R_l = -1, beta 0.5: d = 1.5
    loss, metrics = preference_loss(sums(-8.0, -11.0, -10.0, -10.0), LossSettings(beta=0.5))
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-1.5)), rel=1e-12)
    assert metrics["rewards/chosen"] == pytest.approx(1.0)
    assert metrics["rewards/rejected"] == pytest.approx(-0.5)
    assert metrics["rewards/margins"] == pytest.approx(1.5)
    assert metrics["rewards/accuracies"] == 1.0
    assert metrics["logps/chosen"] == -8.0
    assert metrics["logps/rejected"] == -11.0
    assert metrics["saturation"] == pytest.approx(1 / (1 + math.exp(1.5)))


@given(s_w=numbers, s_l=numbers, r_w=numbers, r_l=numbers, beta=st.floats(0.01, 2))
def test_sigmoid_coefficients_have_the_closed_form(s_w, s_l, r_w, r_l, beta):
    _, _, d_w, d_l = coefficients(lambda x: preference_loss(x, LossSettings(beta=beta)), sums(s_w, s_l, r_w, r_l))
    d = beta * ((s_w - r_w) - (s_l - r_l))
    expected = -beta / (1 + math.exp(d)) if d < 500 else 0.0
    assert float(d_w) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert float(d_l) == pytest.approx(-expected, rel=1e-9, abs=1e-12)


@given(
    loss_type=st.sampled_from(["sigmoid", "hinge", "ipo"]),
    normalised=st.booleans(),
    shift=numbers,
    s_w=numbers,
    s_l=numbers,
)
def test_loss_depends_on_log_ratios_alone(loss_type, normalised, shift, s_w, s_l):
    settings = LossSettings(loss_type=loss_type, length_normalised=normalised)
    plain, _ = preference_loss(sums(s_w, s_l, -3, -5, 4, 9), settings)
    moved, _ = preference_loss(sums(s_w + shift, s_l - shift, -3 + shift, -5 - shift, 4, 9), settings)
    assert float(plain) == pytest.approx(float(moved), rel=1e-9, abs=1e-9)


def test_length_normalization_reproduces_the_window_scale():
    window, _ = preference_loss(sums(-8.0, -11.0, -10.0, -10.0), LossSettings(beta=0.3))
    # Four times as long with four times the log-ratios looks like one window.
    long, _ = preference_loss(sums(-32.0, -44.0, -40.0, -40.0, 32, 32), LossSettings(beta=0.3, length_normalised=True))
    assert float(long) == pytest.approx(float(window), rel=1e-12)


def test_anchor_is_the_mean_per_token():
    without, _ = preference_loss(sums(-28.0, -9.0, t_w=2), LossSettings())
    with_anchor, metrics = preference_loss(sums(-28.0, -9.0, t_w=2), LossSettings(nll_weight=10.0, tokens_per_step=7))
    assert metrics["loss/nll"] == pytest.approx(2.0)
    assert float(with_anchor - without) == pytest.approx(20.0)
    assert float(imitation_loss(sums(-28.0, 0.0, t_w=2, t_l=0), 7)[0]) == pytest.approx(2.0)


def test_label_smoothing_bounds_the_reward():
    d = torch.linspace(-10, 10, 2001, dtype=torch.float64)
    assert torch.equal(sigmoid_loss(d), -torch.nn.functional.logsigmoid(d))
    smoothed = sigmoid_loss(d, 0.1)
    # The minimum lies where sigmoid(d) = 0.9.
    assert float(d[smoothed.argmin()]) == pytest.approx(math.log(9), abs=0.01)


def test_hinge_and_ipo_by_hand():
    assert hinge_loss(torch.tensor([-1.0, 0.5, 1.0, 3.0])).tolist() == [2.0, 0.5, 0.0, 0.0]
    assert ipo_loss(torch.tensor([5.0, 6.0]), 0.1).tolist() == [0.0, 1.0]


def test_confident_pairs_do_not_overflow():
    for sign in (1, -1):
        value, metrics, d_w, _ = coefficients(
            lambda x: preference_loss(x, LossSettings()), sums(sign * 1e6, -sign * 1e6)
        )
        assert math.isfinite(value)
        assert math.isfinite(float(d_w))
        assert metrics["saturation"] == pytest.approx(0.0 if sign == 1 else 1.0)
