"""Estimates against what real networks of the same architecture keep and take on the CPU, and at the published size."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from grape.core.errors import SettingsError
from grape.policies.openvla import OpenVLA, OpenVLAConfig, PolicyInputs
from grape.policies.openvla.checkpoint import materialize_buffers
from grape.policies.openvla.weightless import weightless_openvla
from grape.training.estimate import _largest, estimate_training
from grape.training.lora import wrap_with_adapters
from grape.training.meta_profile import adapted_layers, forward_flops, prepare_network, profile_micro_batch
from tests.policies.conftest import make_nano
from tests.policies.test_published_size import PUBLISHED

PROMPT, DIM = 20, 7


def small(width: int = 64, depth: int = 2, heads: int = 4) -> OpenVLAConfig:
    """OpenVLA with two tiny towers and a small language model."""
    text = {
        "model_type": "llama",
        "vocab_size": 320,
        "hidden_size": width,
        "intermediate_size": 5 * width // 2,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
    }
    towers = ["vit_tinydino_patch14_reg4_dinov2", "vit_tinysiglip_patch14_siglip_224"]
    return OpenVLAConfig.from_json(
        {**PUBLISHED, "timm_model_ids": towers, "text_config": text, "n_action_bins": 32, "pad_token_id": 300}
    )


def of(config):
    """What makes the network of a configuration without weights."""
    return functools.partial(weightless_openvla, config)


def weightless(config, dtype, rank=0, **options):
    return prepare_network(weightless_openvla(config, dtype), rank, **options)


def real_network(config, dtype, rank, checkpointing):
    torch.manual_seed(0)
    model = OpenVLA(config).to(dtype).eval()
    materialize_buffers(model)
    if rank:
        wrap_with_adapters(model, adapted_layers(model), rank, 0.0).eval()
    if checkpointing:
        model.checkpoint_activations()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    return model


def batch(micro_batch):
    return PolicyInputs(torch.randn(micro_batch, 6, 224, 224), (tuple(range(PROMPT)),) * micro_batch)


def kept_by_autograd(model, micro_batch):
    """Bytes of all tensors that autograd saves, parameters and repetitions aside; and the inputs, which stay too."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage  # held, so that no address is used twice
        return tensor

    inputs = batch(micro_batch)
    pixels = inputs.pixel_values_BCHW.untyped_storage()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.action_logps(inputs, torch.zeros(micro_batch, DIM, dtype=torch.long)).sum()
    storages[pixels.data_ptr()] = pixels
    return sum(storage.nbytes() for storage in storages.values())


def taken_by_allocator(model, micro_batch):
    """Largest sum of allocations, less deallocations, over forward and backward; and the inputs."""
    inputs, tokens = batch(micro_batch), torch.zeros(micro_batch, DIM, dtype=torch.long)
    taken = allocated(lambda: torch.autograd.backward(model.action_logps(inputs, tokens).sum()))
    return taken + inputs.pixel_values_BCHW.untyped_storage().nbytes()


def allocated(work):
    """Largest sum of allocations, less deallocations, while something runs, bytes."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(changes))


FLOAT, HALF = torch.float32, torch.bfloat16


@pytest.mark.parametrize(
    ("width", "depth", "micro_batch", "dtype", "rank"),
    [(64, 2, 1, FLOAT, 0), (64, 5, 3, HALF, 8), (128, 3, 2, FLOAT, 8), (96, 1, 4, HALF, 4), (128, 2, 1, HALF, 0)],
)
def test_kept_is_what_autograd_saves(width, depth, micro_batch, dtype, rank):
    config = small(width, depth)
    measured = kept_by_autograd(real_network(config, dtype, rank, False), micro_batch)
    rehearsed = profile_micro_batch(weightless(config, dtype, rank), micro_batch, PROMPT)
    assert rehearsed.kept_bytes == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("rank", [0, 8], ids=["full", "lora"])
def test_peak_is_what_the_allocator_gives(checkpointing, rank):
    config = small(128, 6)
    measured = taken_by_allocator(real_network(config, torch.float32, rank, checkpointing), 2)
    network = weightless(config, torch.float32, rank, activation_checkpointing=checkpointing)
    assert profile_micro_batch(network, 2, PROMPT).peak_bytes == pytest.approx(measured, rel=0.03)


def test_autocast_keeps_what_autocast_keeps():
    config = small(128, 3)
    model = real_network(config, torch.float32, 0, False)
    with torch.autocast("cpu", torch.bfloat16):
        measured = kept_by_autograd(model, 2)
    rehearsed = profile_micro_batch(weightless(config, torch.float32), 2, PROMPT, autocast=True)
    assert rehearsed.kept_bytes == pytest.approx(measured, rel=0.01)


def test_operations_by_hand():
    """Twice the parameters of every product a position, and attention; backward through activations costs the same."""
    config, rank = small(64, 2), 8
    sequence = 256 + PROMPT + DIM - 1
    block = 4 * 64 * 64 + 3 * 64 * 160
    attention = 2 * 2 * sequence * sequence * 64
    blocks = 2 * (2 * sequence * block + attention)
    head = 2 * DIM * 64 * 320
    plain = profile_micro_batch(weightless(config, torch.float32), 1, PROMPT, features=True)
    projector = 2 * 256 * (88 * 352 + 352 * 64 + 64 * 64)
    assert plain.forward_flops == pytest.approx(blocks + head + projector, rel=1e-3)
    adapted = profile_micro_batch(weightless(config, torch.float32, rank), 1, PROMPT, features=True)
    low_rank = 2 * (2 * sequence * rank * (4 * 128 + 3 * 224)) + 2 * 256 * rank * (88 + 352 + 352 + 64 + 64 + 64)
    assert adapted.forward_flops == pytest.approx(blocks + head + projector + low_rank, rel=1e-3)
    # No gradient of the frozen weights: one product each, two for adapters, 2.5 for attention. The images' features
    # need none, so the projector's first layer has no product.
    through = 2 * (2 * sequence * block + 2.5 * attention) + head + projector - 2 * 256 * 88 * 352 + 2 * low_rank
    assert adapted.backward_flops == pytest.approx(through, rel=1e-2)


def test_micro_batches_scale():
    config = small()
    estimates = [
        estimate_training(of(config), instruction_tokens=PROMPT, micro_batch=size, frames=10, lora_rank=4)
        for size in (1, 4)
    ]
    one, four = estimates
    assert one.step_flops == four.step_flops
    assert four.memory.kept == pytest.approx(4 * one.memory.kept, rel=0.01)
    assert four.flops == 10 * four.step_flops == 10 * (four.forward_flops + four.backward_flops)


def test_where_the_memory_goes():
    config = small()
    one = estimate_training(of(config), instruction_tokens=PROMPT, micro_batch=1, lora_rank=4)
    adapters = one.trainable_parameters * 4
    assert one.memory.weights == one.parameters * 2
    assert one.memory.adapters == one.memory.gradients == adapters
    assert one.memory.buffers == one.memory.moments == 2 * adapters
    anchored = estimate_training(of(config), instruction_tokens=PROMPT, micro_batch=1, lora_rank=4, terms=2)
    assert anchored.memory.buffers == 3 * adapters
    supervised = estimate_training(
        of(config), instruction_tokens=PROMPT, micro_batch=1, lora_rank=4, gradient="supervised"
    )
    assert supervised.memory.buffers == 0
    assert one.memory.peak - supervised.memory.peak == 2 * adapters
    full = estimate_training(of(config), instruction_tokens=PROMPT, micro_batch=1, gradient="two-pass")
    assert full.memory.weights == full.parameters * 4  # what trains is float32
    assert full.step_flops == 2 * full.forward_flops + full.backward_flops
    assert full.parameters > full.trainable_parameters > one.trainable_parameters  # the towers' last blocks stay


def test_cached_features_leave_the_towers_out():
    config = small()
    whole, cached = (
        estimate_training(of(config), instruction_tokens=PROMPT, micro_batch=1, lora_rank=4, cached_features=flag)
        for flag in (False, True)
    )
    assert whole.forward_flops - cached.forward_flops == whole.tower_flops == cached.tower_flops > 0
    with pytest.raises(SettingsError, match="towers that train"):
        estimate_training(of(config), instruction_tokens=PROMPT, micro_batch=1, cached_features=True)


def test_largest_micro_batch_fits_and_one_more_does_not():
    config = small(64, 1)
    shape = {"instruction_tokens": PROMPT, "lora_rank": 4, "dtype": "float32"}
    one, five, six = (estimate_training(of(config), micro_batch=size, **shape).memory.peak for size in (1, 5, 6))
    for memory, largest in ((one - 1, 0), (five, 5), (six - 1, 5)):
        estimate = estimate_training(of(config), micro_batch=1, memory_gb=(memory + 0.5) / 1e9, **shape)
        assert estimate.largest_micro_batch == estimate.to_json()["largest_micro_batch"] == largest


@given(
    demands=st.lists(st.tuples(st.integers(0, 10**4), st.integers(1, 500)), min_size=1, max_size=4),
    memory=st.integers(0, 10**5),
)
def test_search_for_the_largest_is_exact(demands, memory):
    """Each demand is a constant and a slope: the optimizer's, the forward's, the backward's."""

    def peak(count):
        return max(constant + slope * count for constant, slope in demands)

    largest = _largest(peak, memory)
    assert largest == 0 or peak(largest) <= memory
    assert peak(largest + 1) > memory


def test_published_size():
    """OpenVLA-7B with LoRA of rank 32: about 41 GB at a micro-batch of 8, about 20 GB at 1."""
    config = OpenVLAConfig.from_json(PUBLISHED)
    shape = {"instruction_tokens": 34, "lora_rank": 32, "dtype": "bfloat16"}
    eight = estimate_training(of(config), micro_batch=8, **shape)
    assert eight.parameters == 7_541_237_184
    assert eight.memory.peak == pytest.approx(41e9, rel=0.15)
    # Activations are proportional to frames (shown above on small networks), so one of them takes an eighth.
    one = dataclasses.replace(eight.memory, kept=eight.memory.kept // 8, passes=eight.memory.passes // 8)
    assert one.peak == pytest.approx(20e9, rel=0.15)
    assert eight.step_flops == pytest.approx(8.49e12, rel=0.03)
    assert eight.sequence == 296


def test_nonsense_is_refused():
    with pytest.raises(SettingsError, match="micro-batch of 0"):
        estimate_training(of(small()), instruction_tokens=PROMPT, micro_batch=0)
    with pytest.raises(SettingsError, match="LoRA rank -1"):
        estimate_training(of(small()), instruction_tokens=PROMPT, micro_batch=1, lora_rank=-1)


def test_forward_of_a_policy_needs_no_weights():
    policy = make_nano(np.random.default_rng(0).uniform(-1.0, 1.0, (64, 7)).astype(np.float32))
    counted = forward_flops(policy, "open the drawer")
    inputs = policy.encode_images(np.zeros((1, 64, 64, 3), dtype=np.uint8), ["open the drawer"])
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        policy.model.action_logps(inputs, torch.zeros(1, 7, dtype=torch.long))
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.01)
    policy.model.to("meta")
    assert forward_flops(policy, "open the drawer") == counted
    assert sorted(adapted_layers(policy.model)) == sorted(policy.lora_targets())
