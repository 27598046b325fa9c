"""The first public implementation's loss on one window of 8 frame pairs, and its gradient in every parameter."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from grape.policies.openvla import PolicyInputs, load_policy
from grape.training.gradients import Comparisons, frame_logps, one_pass_gradient, two_pass_gradient
from grape.training.losses import LossSettings, preference_loss

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "openvla"
WINDOW = 8
LABELS = 8  # seven action tokens and, as in the first implementation only, the end of the sequence


@pytest.fixture(scope="module")
def window():
    """Policy, reference, inputs and tokens of the 16 frames (chosen ones first), and what must come out."""
    if not GOLDEN.exists():
        pytest.skip(f"golden fixtures are not at {GOLDEN}")
    expected = json.loads((GOLDEN / "tpo_window.json").read_text())
    tensors = load_file(GOLDEN / "tpo_window.safetensors")
    policy = load_policy(GOLDEN / "ckpt", unnorm_key="bridge_orig")
    reference = copy.deepcopy(policy.model)
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            if f"delta.{name}" in tensors:
                parameter += tensors[f"delta.{name}"]
    images = np.load(GOLDEN / "tf_image_ops.npz")
    frames = [images[name] for name in expected["frames"]]
    offset = expected["reject_frame_offset"]
    shown = frames + [frames[(number + offset) % WINDOW] for number in range(WINDOW)]
    ids = [frame[f"ids_{side}"] for side in "cr" for frame in expected["per_frame"]]
    inputs = PolicyInputs(policy.processor.pixels(shown), tuple(tuple(row[:-LABELS]) for row in ids))
    tokens = torch.tensor([row[-LABELS:] for row in ids])
    grads = {name.removeprefix("grad."): value for name, value in tensors.items() if name.startswith("grad.")}
    return policy.model, reference, inputs, tokens, expected, grads


def summed(model, inputs, tokens):
    return lambda rows: model.action_logps(inputs.select(rows.tolist()), tokens[rows]).sum(1)


def test_log_probabilities_of_every_frame(window):
    model, reference, inputs, tokens, expected, _ = window
    for network, side in ((model, "p"), (reference, "r")):
        logps = frame_logps(summed(network, inputs, tokens), 2 * WINDOW, 5)
        due = [frame[f"{side}{which}"] for which in "cr" for frame in expected["per_frame"]]
        # 5e-4 a label
        assert logps.tolist() == pytest.approx(due, abs=LABELS * 5e-4)


@pytest.mark.parametrize("mode", [one_pass_gradient, two_pass_gradient])
@pytest.mark.parametrize("micro_batch", [3, 16])
def test_loss_and_gradient_of_a_window(window, mode, micro_batch):
    model, reference, inputs, tokens, expected, grads = window
    reference_F = frame_logps(summed(reference, inputs, tokens), 2 * WINDOW, 8)
    rows = torch.arange(2 * WINDOW)
    comparisons = Comparisons(
        2 * WINDOW,
        [rows[:WINDOW]],
        [rows[WINDOW:]],
        reference_F[:WINDOW].sum().view(1),
        reference_F[WINDOW:].sum().view(1),
    )
    parameters = dict(model.named_parameters())
    settings = LossSettings(beta=expected["beta"])
    result = mode(
        summed(model, inputs, tokens),
        comparisons,
        lambda sums: preference_loss(sums, settings),
        micro_batch,
        list(parameters.values()),
    )
    assert result.loss == pytest.approx(expected["loss"], abs=1e-4)
    assert result.metrics["rewards/margins"] == pytest.approx(expected["logit"], abs=1e-4)
    gradients = {name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None}
    assert gradients.keys() == expected["grad_norms"].keys()
    assert set(expected["params_without_grad"]) == parameters.keys() - gradients.keys()
    largest = max(expected["grad_norms"].values())
    for name, norm in expected["grad_norms"].items():
        assert float(gradients[name].norm()) == pytest.approx(norm, rel=1e-4, abs=1e-7 * largest), name
    for name, value in grads.items():
        difference = float((gradients[name] - value).norm())
        assert difference <= 1e-4 * float(value.norm()) + 1e-7 * largest, name
