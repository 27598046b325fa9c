import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grape.training.gradients import Comparisons, frame_logps, one_pass_gradient, two_pass_gradient
from grape.training.losses import LossSettings, imitation_loss, preference_loss
from tests.training.standin import TOKENS, TinyActionModel, random_update

LENGTHS = [(5, 9), (12, 3), (1, 16), (7, 7)]
MODES = {"one-pass": one_pass_gradient, "two-pass": partial(two_pass_gradient, apart=True)}
LOSSES = {
    "sigmoid": LossSettings(beta=0.02),
    "smoothed": LossSettings(beta=0.02, label_smoothing=0.1),
    "hinge": LossSettings("hinge", beta=0.02),
    "ipo": LossSettings("ipo", beta=0.05),
    "length-normalised": LossSettings(beta=0.1, length_normalised=True),
    "anchored": LossSettings(beta=0.02, nll_weight=10.0, tokens_per_step=TOKENS),
    "relative anchor": LossSettings(beta=0.02, anchor=1.5, tokens_per_step=TOKENS),
    "floor": LossSettings(beta=0.02, chosen_floor=3.0),
    "all at once": LossSettings(
        "ipo", beta=0.1, length_normalised=True, anchor=3.0, chosen_floor=2.0, tokens_per_step=TOKENS
    ),
}


def make(lengths=LENGTHS):
    torch.manual_seed(1)
    model = TinyActionModel()
    pixels, tokens, comparisons = random_update(lengths)
    return model, lambda index: model.action_logps(pixels[index], tokens[index]).sum(1), comparisons


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def full_graph(model, logps, comparisons, loss):
    model.zero_grad(set_to_none=True)
    terms, metrics = loss(comparisons.sums(logps(torch.arange(comparisons.frame_count)).double()))
    value = sum(terms.values())
    value.backward()
    return float(value.detach()), metrics, gradients(model)


def relative(a, b):
    assert a.keys() == b.keys()
    difference = sum(float((a[name] - b[name]).double().square().sum()) for name in a)
    return (difference / sum(float(b[name].double().square().sum()) for name in b)) ** 0.5


@pytest.mark.parametrize("loss_name", LOSSES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("micro_batch", [1, 4, 1000])
def test_equals_autograd_over_the_full_graph(mode, loss_name, micro_batch):
    model, logps, comparisons = make()
    loss = lambda sums: preference_loss(sums, LOSSES[loss_name])  # noqa: E731
    value, metrics, expected = full_graph(model, logps, comparisons, loss)
    result = MODES[mode](logps, comparisons, loss, micro_batch, list(model.parameters()))
    assert relative(gradients(model), expected) <= 1e-5
    assert result.loss == pytest.approx(value, rel=1e-6)
    assert result.metrics == pytest.approx(metrics, rel=1e-5)
    assert model.unused.weight.grad is None


@pytest.mark.parametrize("mode", MODES)
def test_windows_equal_autograd_over_the_full_graph(mode):
    """Overlapping windows share frames: 8 steps at stride 1, as the first public implementation cut them."""
    model, logps, whole = make([(12, 10), (9, 14)])
    windows = [
        (chosen[k : k + 8], rejected[k : k + 8])
        for chosen, rejected in zip(whole.chosen, whole.rejected, strict=True)
        for k in range(min(len(chosen), len(rejected)) - 7)
    ]
    references = torch.linspace(-90, -110, 2 * len(windows), dtype=torch.float64).view(2, -1)
    comparisons = Comparisons(whole.frame_count, *zip(*windows, strict=True), references[0], references[1])
    assert len(windows) == 5
    loss = lambda sums: preference_loss(sums, LOSSES["sigmoid"])  # noqa: E731
    value, _, expected = full_graph(model, logps, comparisons, loss)
    result = MODES[mode](logps, comparisons, loss, 4, list(model.parameters()))
    assert relative(gradients(model), expected) <= 1e-5
    assert result.loss == pytest.approx(value, rel=1e-6)


def test_many_pairs_an_update_equal_one_large_batch_and_surplus_rounds_weigh_nothing():
    model, logps, comparisons = make()
    loss = lambda sums: preference_loss(sums, LOSSES["anchored"])  # noqa: E731
    _, _, expected = full_graph(model, logps, comparisons, loss)
    calls = []
    counted = lambda index: calls.append(len(index)) or logps(index)  # noqa: E731
    two_pass_gradient(counted, comparisons, loss, 16, list(model.parameters()), rounds=9)
    assert relative(gradients(model), expected) <= 1e-5
    assert len(calls) == 2 * 9 - 1


@pytest.mark.parametrize("mode", MODES)
def test_a_wrong_sign_or_scale_would_be_seen(mode):
    """The tolerance separates: a pair left out, or a mean taken for a sum, is far outside."""
    model, logps, comparisons = make()
    loss = lambda sums: preference_loss(sums, LOSSES["sigmoid"])  # noqa: E731
    _, _, expected = full_graph(model, logps, comparisons, loss)
    fewer = Comparisons(
        comparisons.frame_count,
        comparisons.chosen[:-1],
        comparisons.rejected[:-1],
        comparisons.chosen_reference_P[:-1],
        comparisons.rejected_reference_P[:-1],
    )
    MODES[mode](logps, fewer, loss, 4, list(model.parameters()))
    assert relative(gradients(model), expected) > 1e-2


def test_modes_agree_where_pairs_share_frames():
    model, logps, comparisons = make()
    shared = Comparisons(
        comparisons.frame_count,
        [comparisons.chosen[0], comparisons.chosen[0], comparisons.chosen[1]],
        [comparisons.rejected[0], comparisons.rejected[1], comparisons.rejected[1]],
        comparisons.chosen_reference_P[[0, 0, 1]],
        comparisons.rejected_reference_P[[0, 1, 1]],
    )
    loss = lambda sums: preference_loss(sums, LOSSES["anchored"])  # noqa: E731
    _, _, expected = full_graph(model, logps, shared, loss)
    for gradient in MODES.values():
        gradient(logps, shared, loss, 5, list(model.parameters()))
        assert relative(gradients(model), expected) <= 1e-5


@pytest.mark.parametrize("mode", MODES)
def test_imitation_has_no_rejected_side(mode):
    model, logps, comparisons = make()
    none = torch.zeros(0, dtype=torch.int64)
    zeros = torch.zeros(len(LENGTHS), dtype=torch.float64)
    imitated = Comparisons(comparisons.frame_count, comparisons.chosen, [none] * len(LENGTHS), zeros, zeros)
    loss = lambda sums: imitation_loss(sums, TOKENS)  # noqa: E731
    _, _, expected = full_graph(model, logps, imitated, loss)
    MODES[mode](logps, imitated, loss, 3, list(model.parameters()))
    assert relative(gradients(model), expected) <= 1e-5


@pytest.mark.parametrize("mode", MODES)
def test_one_update_of_many_pairs_is_the_mean_of_single_pairs(mode):
    """Accumulation really accumulates: P pairs at once equal the mean of P gradients."""
    model, logps, comparisons = make()
    loss = lambda sums: preference_loss(sums, LOSSES["anchored"])  # noqa: E731
    MODES[mode](logps, comparisons, loss, 4, list(model.parameters()))
    together = gradients(model)
    mean = {name: torch.zeros_like(value) for name, value in together.items()}
    for index in range(len(LENGTHS)):
        single = Comparisons(
            comparisons.frame_count,
            comparisons.chosen[index : index + 1],
            comparisons.rejected[index : index + 1],
            comparisons.chosen_reference_P[index : index + 1],
            comparisons.rejected_reference_P[index : index + 1],
        )
        MODES[mode](logps, single, loss, 4, list(model.parameters()))
        for name, value in gradients(model).items():
            mean[name] += value / len(LENGTHS)
    assert relative(together, mean) <= 1e-5


sides = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(
    lengths=sides,
    loss_type=st.sampled_from(["sigmoid", "hinge", "ipo"]),
    normalised=st.booleans(),
    anchor=st.sampled_from([{"anchor": 0.0}, {"anchor": 1.5}, {"nll_weight": 4.0}]),
    floor=st.sampled_from([0.0, 2.0]),
    micro_batch=st.integers(1, 30),
    data=st.data(),
)
def test_weights_masks_and_terms_equal_autograd(lengths, loss_type, normalised, anchor, floor, micro_batch, data):
    """Sum and norm of every term, for random shapes, weights and anchored sides, empty rejected sides included."""
    model, logps, comparisons = make(lengths)
    count = len(lengths)
    weights = data.draw(st.lists(st.just(0.0) | st.floats(0.01, 3), min_size=count, max_size=count))
    anchored = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    comparisons = replace(
        comparisons,
        weight_P=torch.tensor(weights, dtype=torch.float64),
        anchored_P=torch.tensor(anchored, dtype=torch.float64),
    )
    normalised = normalised and all(length for _, length in lengths)
    chosen = LossSettings(loss_type, 0.05, normalised, chosen_floor=floor, tokens_per_step=TOKENS, **anchor)
    loss = lambda sums: preference_loss(sums, chosen)  # noqa: E731
    value, metrics, expected = full_graph(model, logps, comparisons, loss)
    norms = {}
    for name in loss(comparisons.sums(logps(torch.arange(comparisons.frame_count)).double()))[0]:
        term = lambda sums, name=name: ({name: loss(sums)[0][name]}, {})  # noqa: E731
        alone = full_graph(model, logps, comparisons, term)[2]
        norms[name] = sum(float(gradient.double().square().sum()) for gradient in alone.values()) ** 0.5
    for gradient in MODES.values():
        result = gradient(logps, comparisons, loss, micro_batch, list(model.parameters()))
        accumulated = gradients(model)
        assert accumulated.keys() == expected.keys()
        scale = max(float(each.abs().max()) for each in expected.values())
        assert all(torch.allclose(accumulated[key], expected[key], rtol=1e-4, atol=1e-5 * scale) for key in expected)
        assert result.loss == pytest.approx(value, rel=1e-5, abs=1e-6)
        assert result.metrics == pytest.approx(metrics, rel=1e-4, abs=1e-5)
        assert result.term_norms == (pytest.approx(norms, rel=1e-4, abs=1e-5 * scale) if len(norms) > 1 else {})


@pytest.mark.parametrize("mode", MODES)
def test_each_term_is_reduced_before_its_norm_is_taken(mode):
    """Two processes with the same pairs: every term's gradient doubles, and so does its norm."""
    model, logps, comparisons = make()
    parameters = list(model.parameters())
    loss = lambda sums: preference_loss(sums, LOSSES["relative anchor"])  # noqa: E731
    alone = MODES[mode](logps, comparisons, loss, 4, parameters)
    expected = {name: 2 * gradient for name, gradient in gradients(model).items()}

    def double():
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(2)

    together = MODES[mode](logps, comparisons, loss, 4, parameters, reduce=double)
    assert relative(gradients(model), expected) <= 1e-6
    assert together.term_norms == pytest.approx({name: 2 * norm for name, norm in alone.term_norms.items()})


def test_without_terms_apart_the_sum_is_the_same():
    model, logps, comparisons = make()
    loss = lambda sums: preference_loss(sums, LOSSES["relative anchor"])  # noqa: E731
    _, _, expected = full_graph(model, logps, comparisons, loss)
    result = two_pass_gradient(logps, comparisons, loss, 16, list(model.parameters()))
    assert relative(gradients(model), expected) <= 1e-5
    assert result.term_norms == {}


@pytest.mark.parametrize("micro_batch", [7, 60])
def test_the_anchor_costs_one_more_backward_over_the_sides_it_weighs_and_no_forward(micro_batch):
    model, logps, comparisons = make()
    comparisons = replace(comparisons, anchored_P=torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64))
    anchored = LENGTHS[0][0] + LENGTHS[3][0]
    forwards, backwards = [], []

    def counting(index):
        logps_B = logps(index)
        forwards.append(len(index))
        if logps_B.requires_grad:
            logps_B.register_hook(lambda gradient: backwards.append(len(gradient)))
        return logps_B

    loss = lambda sums: preference_loss(sums, LOSSES["relative anchor"])  # noqa: E731
    two_pass_gradient(counting, comparisons, loss, micro_batch, list(model.parameters()), apart=True)
    frames = comparisons.frame_count
    assert sum(backwards) == frames + anchored
    assert sum(forwards) == (frames if micro_batch >= frames else 2 * frames - micro_batch)


def test_frame_logps_are_those_of_one_batch():
    _, logps, comparisons = make()
    expected = logps(torch.arange(comparisons.frame_count)).double()
    assert torch.allclose(frame_logps(logps, comparisons.frame_count, 3), expected, atol=1e-5)


def count_frames(mode, micro_batch):
    model, logps, comparisons = make()
    seen = []

    def counting(index):
        seen.append((len(index), torch.is_grad_enabled()))
        return logps(index)

    loss = lambda sums: preference_loss(sums, LOSSES["sigmoid"])  # noqa: E731
    gradient = {"one-pass": one_pass_gradient, "two-pass": two_pass_gradient}[mode]
    gradient(counting, comparisons, loss, micro_batch, list(model.parameters()))
    return seen, comparisons.frame_count


def test_each_frame_is_computed_as_often_as_promised():
    seen, frames = count_frames("one-pass", 4)
    assert sum(size for size, _ in seen) == frames
    seen, frames = count_frames("two-pass", 1000)
    assert seen == [(frames, True)]
    seen, frames = count_frames("two-pass", 16)
    assert sum(size for size, graph in seen if graph) == frames
    assert frames % 16
    assert sum(size for size, graph in seen if not graph) == frames - 16  # the graph of a full one is kept
    assert max(size for size, _ in seen) <= 16


@pytest.mark.parametrize("mode", MODES)
def test_peak_memory_does_not_depend_on_the_length(mode):
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("the peak of resident memory cannot be reset here")
    # In a process of its own: what other tests freed in this one would be used first, and nothing would seem to grow.
    # Blocks above 64 KiB go back to the system at once, so that the resident size tells what lives.
    process = subprocess.run(
        [sys.executable, "-m", "tests.training.peak_memory", mode],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 16)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    short, long, graph = json.loads(process.stdout)
    assert short > (2 << 20)  # a micro-batch's activations weigh something, or nothing is measured
    assert long <= 1.1 * short
    # The measure sees what it should: the full graph of 192 frames is far above both.
    assert graph > 3 * max(short, long)
