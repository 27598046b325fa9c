"""One micro-batch of training without weights: the real network on the meta device, with an account of its cost.

Tensors on the meta device have shapes and no memory, but every operation runs, PEFT's and autograd's included. So what
a step computes and what autograd keeps is counted where it happens, not derived on paper, and follows every change of
the network by itself. What it cannot see is the inside of kernels (workspaces) and what the allocator adds to sizes.
"""

import contextlib
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

from grape.policies.base import TrainablePolicy, WeightlessNetwork, sum_executed
from grape.training.lora import wrap_with_adapters

__all__ = [
    "Account",
    "MemoryProfile",
    "adapted_layers",
    "forward_flops",
    "prepare_network",
    "profile_micro_batch",
    "tower_flops",
]

# Parts of the network whose linear layers get adapters unless others are named.
_ADAPTED = ("language_model.model.layers.", "projector.", "proprio_projector.")


@dataclass(frozen=True)
class MemoryProfile:
    """What one micro-batch of ``B`` frames takes.

    Attributes:
        forward_flops: Floating-point operations of the forward pass: matrix products, attention and convolutions, a
            multiplication and an addition counting as two. Attention counts as the full square, also where it is
            causal.
        backward_flops: The same of the backward pass: only through what leads to trainable parameters. With
            activation checkpointing it includes the second forward.
        kept_bytes: Memory taken between the passes beside parameters: inputs, and what autograd keeps.
        peak_bytes: Largest memory taken at any time of the two passes beside parameters and their gradients.
    """

    forward_flops: int
    backward_flops: int
    kept_bytes: int
    peak_bytes: int


def prepare_network(
    network: WeightlessNetwork,
    lora_rank: int = 0,
    lora_targets: Sequence[str] = (),
    *,
    activation_checkpointing: bool = False,
) -> WeightlessNetwork:
    """The network as it trains, changed in place.

    Args:
        network: The network; all its parameters train.
        lora_rank: Rank of the adapters, which are float32 as PEFT makes them; 0 trains all parameters.
        lora_targets: Full names of the adapted layers; empty means :func:`adapted_layers`.
        activation_checkpointing: Whether blocks keep their input only.

    Raises:
        SettingsError: Adapters are wanted and PEFT is not installed.
    """
    module = network.module.eval()
    if lora_rank:
        with torch.device("meta"):
            wrap_with_adapters(module, list(lora_targets) or adapted_layers(module), lora_rank, 0.0).eval()
    if activation_checkpointing:
        network.checkpoint_activations()
    return network


def adapted_layers(model: nn.Module) -> list[str]:
    """Every linear layer of the language model's blocks, and the projectors; in the network's order."""
    return [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name.startswith(_ADAPTED)
    ]


def profile_micro_batch(
    network: WeightlessNetwork,
    micro_batch: int,
    prompt_tokens: int,
    *,
    features: bool = False,
    autocast: bool = False,
    backward: bool = True,
) -> MemoryProfile:
    """Forward and backward of one micro-batch whose prompts are equally long and whose chunks are executed whole.

    Args:
        network: From :func:`prepare_network`.
        micro_batch: Frames, B.
        prompt_tokens: Length of the encoded prompt with begin-of-sequence and template.
        features: Whether the vision towers' outputs are given, computed before.
        autocast: Whether a network in float32 computes its products in bfloat16.
        backward: False profiles the forward pass alone, without graph, as a policy that acts takes it.
    """
    module = network.module
    for parameter in module.parameters():
        # As from the second micro-batch on: gradients are there and are added to.
        parameter.grad = torch.empty_like(parameter) if backward and parameter.requires_grad else None
    known = [*module.parameters(), *module.buffers()]
    known += [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    with Account(known) as account, _Unbroken(), _as_on_gpu(autocast), torch.set_grad_enabled(backward):
        inputs = network.inputs(micro_batch, prompt_tokens, features)
        tokens_BKD = torch.empty(micro_batch, *network.actions, dtype=torch.long, device="meta")
        executed_B = torch.empty(micro_batch, dtype=torch.long, device="meta")
        total = sum_executed(network.token_logps(inputs, tokens_BKD), executed_B).sum()
        kept, forward_flops = account.now, account.flops
        if backward:
            torch.autograd.backward(total)
    return MemoryProfile(forward_flops, account.flops - forward_flops, kept, account.peak)


def forward_flops(policy: TrainablePolicy, instruction: str) -> int | None:
    """Floating-point operations of the forward pass of one decision; None where its network cannot be estimated.

    They are counted on a network of that shape without weights.
    """
    network = policy.weightless(torch.float32)
    if network is None:
        return None
    return profile_micro_batch(prepare_network(network), 1, policy.prompt_length(instruction)).forward_flops


def tower_flops(network: WeightlessNetwork) -> int:
    """Floating-point operations of the vision towers on one observation's images, forward."""
    inputs = network.inputs(1, 1, False)
    with Account() as account, _as_on_gpu(), torch.no_grad():
        network.features(inputs)
    return int(account.flops)


class Account(TorchDispatchMode):
    """Adds up what operations compute, and the memory of the tensors they make for as long as something holds them.

    Args:
        known: Tensors that do not count as memory, e.g. parameters; they must outlive the mode.

    Attributes:
        flops: Floating-point operations so far, by PyTorch's own formulas.
        now: Bytes held at this moment.
        peak: Largest value of ``now`` so far.
    """

    def __init__(self, known: Sequence[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._held = {tensor.untyped_storage()._cdata for tensor in known}
        self.flops = 0
        self.now = 0
        self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation and count it, and the memory behind its results, once each."""
        given = dict(kwargs or {})
        result = func(*args, **given)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **given, out_val=result)
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._hold(tensor.untyped_storage())
        return result

    def _hold(self, storage: torch.UntypedStorage) -> None:
        identity, size = storage._cdata, storage.nbytes()
        if identity in self._held:
            return
        self._held.add(identity)
        weakref.finalize(storage, self._release, identity, size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _release(self, identity: int, size: int) -> None:
        self._held.remove(identity)
        self.now -= size


class _Unbroken(TorchFunctionMode):
    """Answers yes to the one question the network asks of values, which meta tensors do not have.

    It is whether positions run on without a break: transformers looks for packed sequences, and here are none.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return True if func is torch.Tensor.__bool__ else func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _as_on_gpu(autocast: bool = False) -> Iterator[None]:
    """Let the meta device do two things as a GPU does, which it cannot by itself.

    It has no fused attention and would keep the whole S x S matrix; the fused operation keeps queries, keys, values,
    result and one number a row. And it has no autocast: products in bfloat16 of weights in float32. A mode could not
    do this, since modes are off where blocks are computed again in the backward pass.
    """
    before = {name: getattr(F, name) for name in ("scaled_dot_product_attention", "linear", "conv2d")}
    after = {**before, "scaled_dot_product_attention": _fused_attention}
    if autocast:
        after = {name: _in_bfloat16(function) for name, function in after.items()}
    try:
        for name, function in after.items():
            setattr(F, name, function)
        yield
    finally:
        for name, function in before.items():
            setattr(F, name, function)


def _in_bfloat16(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def lower(value: Any) -> Any:
        return value.to(torch.bfloat16) if isinstance(value, Tensor) and value.dtype == torch.float32 else value

    def computed(*args: Any, **kwargs: Any) -> Tensor:
        return function(*map(lower, args), **{name: lower(value) for name, value in kwargs.items()})

    return computed


def _fused_attention(
    query_BHQE: Tensor,
    key_BHSE: Tensor,
    value_BHSE: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if enable_gqa:
        repeats = query_BHQE.shape[1] // key_BHSE.shape[1]
        key_BHSE, value_BHSE = (x.repeat_interleave(repeats, dim=1) for x in (key_BHSE, value_BHSE))
    if attn_mask is not None and attn_mask.dtype == torch.bool:  # each layer makes numbers of it, and keeps them
        attn_mask = torch.zeros_like(attn_mask, dtype=query_BHQE.dtype).masked_fill(~attn_mask, -torch.inf)
    result = torch.ops.aten._scaled_dot_product_efficient_attention(
        query_BHQE, key_BHSE, value_BHSE, attn_mask, True, dropout_p, is_causal, scale=scale
    )
    return cast(Tensor, result[0])
