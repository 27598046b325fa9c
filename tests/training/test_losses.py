import math
from dataclasses import fields, replace

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


def sums(s_w, s_l, r_w=0.0, r_l=0.0, t_w=8, t_l=8, anchored=True):
    values = (s_w, s_l, r_w, r_l, float(t_w), float(t_l), 1.0, float(anchored))
    return TrajectorySums(*(torch.tensor([value], dtype=torch.float64) for value in values))


def loss_of(pair, **settings):
    """The loss, and its metrics."""
    terms, metrics = preference_loss(pair, LossSettings(**settings))
    return float(sum(terms.values())), metrics


def test_sigmoid_loss_by_hand():
    # S_w - R_w = 2, S_l - R_l = -1, beta 0.5: d = 1.5
    loss, metrics = loss_of(sums(-8.0, -11.0, -10.0, -10.0), beta=0.5)
    assert loss == pytest.approx(math.log(1 + math.exp(-1.5)), rel=1e-12)
    assert metrics["rewards/chosen"] == pytest.approx(1.0)
    assert metrics["rewards/rejected"] == pytest.approx(-0.5)
    assert metrics["rewards/margins"] == pytest.approx(1.5)
    assert metrics["rewards/accuracies"] == 1.0
    assert metrics["logps/chosen"] == -8.0
    assert metrics["logps/rejected"] == -11.0
    assert metrics["saturation"] == pytest.approx(1 / (1 + math.exp(1.5)))


@given(s_w=numbers, s_l=numbers, r_w=numbers, r_l=numbers, beta=st.floats(0.01, 2))
def test_sigmoid_coefficients_have_the_closed_form(s_w, s_l, r_w, r_l, beta):
    _, _, derivatives = coefficients(lambda x: preference_loss(x, LossSettings(beta=beta)), sums(s_w, s_l, r_w, r_l))
    assert derivatives.keys() == {"preference"}
    d_w, d_l = derivatives["preference"]
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
    settings = {"loss_type": loss_type, "length_normalised": normalised, "chosen_floor": 2.0}
    plain, _ = loss_of(sums(s_w, s_l, -3, -5, 4, 9), **settings)
    moved, _ = loss_of(sums(s_w + shift, s_l - shift, -3 + shift, -5 - shift, 4, 9), **settings)
    assert plain == pytest.approx(moved, rel=1e-9, abs=1e-9)


def test_length_normalization_reproduces_the_window_scale():
    window, _ = loss_of(sums(-8.0, -11.0, -10.0, -10.0), beta=0.3)
    # Four times as long with four times the log-ratios looks like one window.
    long, _ = loss_of(sums(-32.0, -44.0, -40.0, -40.0, 32, 32), beta=0.3, length_normalised=True)
    assert long == pytest.approx(window, rel=1e-12)


def test_the_absolute_anchor_is_the_mean_per_token():
    without, _ = loss_of(sums(-28.0, -9.0, t_w=2))
    with_anchor, metrics = loss_of(sums(-28.0, -9.0, t_w=2), nll_weight=10.0, anchor=3.0, tokens_per_step=7)
    assert metrics["loss/nll"] == pytest.approx(2.0)
    assert metrics["loss/anchor"] == pytest.approx(20.0)
    assert with_anchor - without == pytest.approx(20.0)
    assert loss_of(sums(-28.0, -9.0, t_w=2), nll_weight=0.0) == loss_of(sums(-28.0, -9.0, t_w=2))
    assert float(imitation_loss(sums(-28.0, 0.0, t_w=2, t_l=0), 7)[0]["imitation"]) == pytest.approx(2.0)


@given(
    loss_type=st.sampled_from(["sigmoid", "hinge", "ipo"]),
    smoothing=st.sampled_from([0.0, 0.2]),
    normalised=st.booleans(),
    beta=st.floats(0.01, 2),
    anchor=st.floats(0.1, 5),
    steps=st.integers(1, 400),
)
def test_at_the_start_the_anchor_pulls_as_asked_whatever_beta_and_length(
    loss_type, smoothing, normalised, beta, anchor, steps
):
    settings = LossSettings(loss_type, beta, normalised, smoothing if loss_type == "sigmoid" else 0.0, anchor=anchor)
    start = sums(-2.0 * steps, -50.0, -2.0 * steps, -50.0, steps, 17)
    _, _, derivatives = coefficients(lambda x: preference_loss(x, settings), start)
    assert float(derivatives["anchor"][0]) == pytest.approx(anchor * float(derivatives["preference"][0]), rel=1e-9)
    assert float(derivatives["anchor"][0]) < 0
    assert float(derivatives["anchor"][1]) == 0
    failed = sums(-2.0 * steps, -50.0, -2.0 * steps, -50.0, steps, 17, anchored=False)
    _, _, left = coefficients(lambda x: preference_loss(x, settings), failed)
    assert float(left["anchor"][0]) == 0
    assert left["preference"] == derivatives["preference"]


def test_without_a_preference_term_the_anchor_stays_as_it_was():
    start = sums(-20.0, -50.0, -20.0, -50.0, 10, 17)
    both = coefficients(lambda x: preference_loss(x, LossSettings(anchor=2.0)), start)[2]
    terms, metrics = preference_loss(start, LossSettings(preference_weight=0.0, anchor=2.0))
    assert terms.keys() == {"anchor"}
    assert metrics["loss"] == metrics["loss/anchor"] != 0
    assert metrics["loss/preference"] == 0
    alone = coefficients(lambda x: preference_loss(x, LossSettings(preference_weight=0.0, anchor=2.0)), start)[2]
    assert alone["anchor"] == both["anchor"]
    half = coefficients(lambda x: preference_loss(x, LossSettings(preference_weight=0.5, anchor=2.0)), start)[2]
    assert float(half["preference"][0]) == pytest.approx(0.5 * float(both["preference"][0]))
    assert half["anchor"] == both["anchor"]


def test_a_floor_under_the_chosen_side_by_hand():
    # S_w - R_w = -2, S_l - R_l = -5: h = 3, and lambda 1.5 takes 3 off: nothing is gained by lowering both.
    below = sums(-12.0, -15.0, -10.0, -10.0)
    loss, metrics = loss_of(below, beta=0.5, chosen_floor=1.5)
    assert loss == pytest.approx(math.log(2), rel=1e-12)
    assert metrics["rewards/margins"] == pytest.approx(1.5)  # the implicit rewards are as they are
    _, _, derivatives = coefficients(lambda x: preference_loss(x, LossSettings(beta=0.5, chosen_floor=1.5)), below)
    # d loss / dS_w = -beta sigmoid(-d) (1 + lambda), d loss / dS_l = beta sigmoid(-d)
    assert [float(side) for side in derivatives["preference"]] == pytest.approx([-0.625, 0.25])
    above = sums(-8.0, -11.0, -10.0, -10.0)
    assert loss_of(above, beta=0.5, chosen_floor=1.5) == loss_of(above, beta=0.5)


def test_displacement_is_the_change_of_the_chosen_side_per_token():
    _, metrics = loss_of(sums(-13.0, -15.0, -10.0, -10.0, t_w=2), tokens_per_step=3)
    assert metrics["displacement"] == pytest.approx(-0.5)


def test_weights_scale_each_pairs_part():
    one, other = sums(-8.0, -11.0, -10.0, -10.0), sums(-12.0, -9.0, -10.0, -10.0, anchored=False)
    both = TrajectorySums(
        *(torch.cat([getattr(one, item.name), getattr(other, item.name)]) for item in fields(TrajectorySums))
    )
    both = replace(both, weight_P=torch.tensor([1.5, 0.5], dtype=torch.float64))
    settings = {"beta": 0.5, "anchor": 1.0}
    assert loss_of(both, **settings)[0] == pytest.approx(
        (1.5 * loss_of(one, **settings)[0] + 0.5 * loss_of(other, **settings)[0]) / 2
    )


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
        value, metrics, derivatives = coefficients(
            lambda x: preference_loss(x, LossSettings()), sums(sign * 1e6, -sign * 1e6)
        )
        assert math.isfinite(value)
        assert math.isfinite(float(derivatives["preference"][0]))
        assert metrics["saturation"] == pytest.approx(0.0 if sign == 1 else 1.0)
