"""The estimate of policies that decide in chunks, against what a real network keeps and takes on the CPU."""

import functools
from dataclasses import replace

import pytest
import torch

from grape.policies.openvla import PolicyInputs
from grape.policies.openvla.checkpoint import materialize_buffers
from grape.policies.openvla.proprio import ProprioProjector
from grape.policies.openvla_oft.conventions import PRESETS, Layout
from grape.policies.openvla_oft.model import OpenVLAOFT
from grape.policies.openvla_oft.nano import NANO_CONVENTIONS
from grape.policies.openvla_oft.weightless import weightless_oft
from grape.training.estimate import estimate_training
from grape.training.lora import wrap_with_adapters
from grape.training.meta_profile import adapted_layers, forward_flops, prepare_network, profile_micro_batch
from tests.openvla_oft.conftest import make_nano
from tests.training.test_estimate import PROMPT, allocated, small

CAMERAS, CHUNK, DIM, STATE = ("agentview", "wrist"), 4, 7, 5
LAYOUT = Layout(chunk=CHUNK, action_dim=DIM, cameras=CAMERAS, proprio_dim=STATE)


def taken_by_allocator(config, conventions, layout, rank, checkpointing, micro_batch):
    torch.manual_seed(0)
    model = OpenVLAOFT(config, conventions, layout).eval()
    model.proprio_projector = ProprioProjector(STATE, config.hidden)
    materialize_buffers(model)
    if rank:
        wrap_with_adapters(model, adapted_layers(model), rank, 0.0).eval()
    if checkpointing:
        model.checkpoint_activations()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    pixels = torch.randn(micro_batch, 6 * len(CAMERAS), 224, 224)
    inputs = PolicyInputs(pixels, (tuple(range(PROMPT)),) * micro_batch, None, torch.zeros(micro_batch, STATE))
    tokens = torch.full((micro_batch, CHUNK, DIM), model.window.start)
    executed = torch.full((micro_batch,), CHUNK)
    taken = allocated(lambda: torch.autograd.backward(model.decision_logps(inputs, tokens, executed).sum()))
    return taken + pixels.untyped_storage().nbytes()


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("rank", [0, 8], ids=["full", "lora"])
@pytest.mark.parametrize(
    ("conventions", "placeholders"),
    [(NANO_CONVENTIONS, "per-action"), (PRESETS["openvla-oft"], "zeros")],
    ids=["nano", "published"],
)
def test_peak_is_what_the_allocator_gives(conventions, placeholders, rank, checkpointing):
    config, layout = small(128, 6), replace(LAYOUT, placeholders=placeholders)
    measured = taken_by_allocator(config, conventions, layout, rank, checkpointing, 2)
    network = prepare_network(
        weightless_oft(config, conventions, layout, torch.float32), rank, activation_checkpointing=checkpointing
    )
    assert profile_micro_batch(network, 2, PROMPT).peak_bytes == pytest.approx(measured, rel=0.03)


def test_a_longer_chunk_and_a_second_camera_take_more():
    config = small()

    def estimate(**changes):
        layout = Layout(**{"chunk": 4, "action_dim": DIM, **changes})
        build = functools.partial(weightless_oft, config, NANO_CONVENTIONS, layout)
        return estimate_training(build, instruction_tokens=PROMPT, micro_batch=2)

    one, long, two = estimate(), estimate(chunk=8), estimate(cameras=CAMERAS)
    assert estimate(placeholders="per-action").sequence == one.sequence - 4 * (DIM - 1)
    assert long.sequence == one.sequence + 4 * DIM
    assert two.sequence == one.sequence + 256
    assert two.tower_flops == 2 * one.tower_flops
    assert one.memory.passes < long.memory.passes < two.memory.passes
    assert long.parameters == one.parameters


def test_forward_of_a_policy_needs_no_weights():
    policy = make_nano(cameras=CAMERAS, proprio_dim=4)
    counted = forward_flops(policy, "open the drawer")
    policy.model.to("meta")
    assert counted is not None
    assert forward_flops(policy, "open the drawer") == counted > 0
    assert make_nano(chunk=6).weightless(torch.float32).actions == (6, 7)
