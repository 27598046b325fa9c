"""The exact gradient of a loss over whole trajectories, at a memory that does not depend on their length.

A loss sees a trajectory only through the sum S of its log-probabilities, so ``grad L = sum dL/dS * grad S`` and
``grad S`` is a sum over frames: frames go through in micro-batches, each with a forward and a backward of its own.
The scalars ``dL/dS`` need all sums first, and there are two ways around that:

- *one pass*: ``grad S_w`` and ``grad S_l`` of a pair accumulate in two buffers of the trainable parameters' size, and
  are added to the update's gradient once both sums are known. Every frame is computed once: the way for adapters on
  large models.
- *two passes*: the sums come from a pass without graph, then each frame is weighted in a second pass. No buffers, and
  frames of several pairs share a micro-batch: the way for full fine-tuning and for small models. The last micro-batch
  of the first pass keeps its graph, so an update that fits in one micro-batch is computed once only.

Both equal autograd over the full graph, given that the network is deterministic (no dropout).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from grape.training.losses import Loss, TrajectorySums, coefficients

__all__ = [
    "Comparisons",
    "GradientResult",
    "LogpFunction",
    "frame_logps",
    "micro_batches",
    "one_pass_gradient",
    "two_pass_gradient",
]

# Positions of frames within an update, (B,) -> summed log-probability of each frame's tokens, (B,), with graph.
LogpFunction = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Comparisons:
    """How the ``F`` frames of one update add up to the two sides of its ``P`` comparisons.

    A frame may stand in several sides. A side may be empty on the rejected part (imitation).

    Attributes:
        frame_count: F.
        chosen: Positions of the frames of each chosen side, ``P`` tensors of int64.
        rejected: Positions of the frames of each rejected side.
        chosen_reference_P: Reference log-probability of each chosen side, float64.
        rejected_reference_P: The same of each rejected side.
    """

    frame_count: int
    chosen: Sequence[Tensor]
    rejected: Sequence[Tensor]
    chosen_reference_P: Tensor
    rejected_reference_P: Tensor

    def sums(self, logp_F: Tensor) -> TrajectorySums:
        """Add frames up to sides; differentiable in ``logp_F``, float64 ``(F,)``."""
        return self._assemble(_add_up(logp_F, self.chosen), _add_up(logp_F, self.rejected))

    def _assemble(self, chosen_P: Tensor, rejected_P: Tensor) -> TrajectorySums:
        return TrajectorySums(
            chosen_P,
            rejected_P,
            self.chosen_reference_P,
            self.rejected_reference_P,
            torch.tensor([len(side) for side in self.chosen], dtype=torch.float64),
            torch.tensor([len(side) for side in self.rejected], dtype=torch.float64),
        )


@dataclass(frozen=True, eq=False)
class GradientResult:
    """What a gradient computation found; the gradient itself is in the parameters' ``grad``.

    Attributes:
        loss: Value of the loss before the update.
        metrics: The loss's metrics.
        sums: Sums of all comparisons, without graph.
    """

    loss: float
    metrics: dict[str, float]
    sums: TrajectorySums


def two_pass_gradient(
    logps: LogpFunction,
    comparisons: Comparisons,
    loss: Loss,
    micro_batch: int,
    parameters: Sequence[Tensor],
    rounds: int = 0,
) -> GradientResult:
    """Sums first, weighted backward second; replaces ``grad`` of ``parameters``.

    Args:
        logps: Log-probability of frames under the policy.
        comparisons: The update.
        loss: Loss over sums.
        micro_batch: Frames computed at once.
        parameters: The trainable parameters.
        rounds: Micro-batches to go through at least; the surplus weighs nothing. Sharded parameters need it: every
            process must call the network equally often.
    """
    _clear(parameters)
    chunks = _chunks(comparisons.frame_count, micro_batch)
    surplus = [chunks[0]] * (rounds - len(chunks))
    for chunk in surplus:
        with torch.no_grad():
            logps(chunk)
    logp_F = torch.empty(comparisons.frame_count, dtype=torch.float64)
    for chunk in chunks[:-1]:
        with torch.no_grad():
            logp_F[chunk] = logps(chunk).double()
    kept_B = logps(chunks[-1]).double()
    logp_F[chunks[-1]] = kept_B.detach()
    logp_F.requires_grad_()
    value, metrics = loss(comparisons.sums(logp_F))
    (weight_F,) = torch.autograd.grad(value, logp_F)
    torch.autograd.backward(kept_B, weight_F[chunks[-1]])
    del kept_B
    for chunk in chunks[:-1]:
        torch.autograd.backward(logps(chunk).double(), weight_F[chunk])
    for chunk in surplus:
        torch.autograd.backward(logps(chunk).double(), torch.zeros(len(chunk), dtype=torch.float64))
    return GradientResult(float(value.detach()), metrics, comparisons.sums(logp_F.detach()))


def one_pass_gradient(
    logps: LogpFunction, comparisons: Comparisons, loss: Loss, micro_batch: int, parameters: Sequence[Tensor]
) -> GradientResult:
    """Every frame once, two buffers; replaces ``grad`` of ``parameters``.

    The loss must be a mean over comparisons, as all losses of :mod:`grape.training.losses` are: then a pair's
    scalars depend on that pair alone, and its buffers can be emptied before the next one.

    Args:
        logps: Log-probability of frames under the policy.
        comparisons: The update.
        loss: Loss over sums.
        micro_batch: Frames computed at once; never of two sides.
        parameters: The trainable parameters.
    """
    pairs = len(comparisons.chosen)
    total: list[Tensor | None] = [None] * len(parameters)
    sums_w, sums_l = torch.zeros(pairs, dtype=torch.float64), torch.zeros(pairs, dtype=torch.float64)
    results = []
    for index in range(pairs):
        sums_w[index], gradient_w = _side(logps, comparisons.chosen[index], micro_batch, parameters)
        sums_l[index], gradient_l = _side(logps, comparisons.rejected[index], micro_batch, parameters)
        pair = comparisons._assemble(sums_w, sums_l).pair(index)
        value, metrics, d_w_P, d_l_P = coefficients(loss, pair)
        _accumulate(total, gradient_w, float(d_w_P) / pairs)
        _accumulate(total, gradient_l, float(d_l_P) / pairs)
        results.append((value, metrics))
    for parameter, gradient in zip(parameters, total, strict=True):
        parameter.grad = gradient
    metrics = {name: sum(found[name] for _, found in results) / pairs for name in results[0][1]}
    return GradientResult(sum(value for value, _ in results) / pairs, metrics, comparisons._assemble(sums_w, sums_l))


@torch.no_grad()
def frame_logps(logps: LogpFunction, frame_count: int, micro_batch: int, rounds: int = 0) -> Tensor:
    """Log-probability of every frame without graph, float64 ``(F,)``; ``rounds`` as in :func:`two_pass_gradient`."""
    chunks = _chunks(frame_count, micro_batch)
    for _ in range(rounds - len(chunks)):
        logps(chunks[0])
    return torch.cat([logps(chunk).double() for chunk in chunks])


def _side(
    logps: LogpFunction, frames_T: Tensor, micro_batch: int, parameters: Sequence[Tensor]
) -> tuple[float, list[Tensor | None]]:
    """S of one side and its gradient, which leaves the parameters' ``grad`` empty."""
    _clear(parameters)
    total = 0.0
    for start in range(0, len(frames_T), micro_batch):
        logp_B = logps(frames_T[start : start + micro_batch]).double()
        torch.autograd.backward(logp_B.sum())
        total += float(logp_B.detach().sum())
    gradients = [parameter.grad for parameter in parameters]
    _clear(parameters)
    return total, gradients


def _accumulate(total: list[Tensor | None], gradients: Sequence[Tensor | None], weight: float) -> None:
    """``total += weight * gradients``, reusing the memory of the gradients."""
    for position, gradient in enumerate(gradients):
        if gradient is None:
            continue
        held = total[position]
        if held is None:
            total[position] = gradient.mul_(weight)
        else:
            held.add_(gradient, alpha=weight)


def _add_up(logp_F: Tensor, sides: Sequence[Tensor]) -> Tensor:
    frames = torch.cat(list(sides))
    owner = torch.repeat_interleave(torch.arange(len(sides)), torch.tensor([len(side) for side in sides]))
    return torch.zeros(len(sides), dtype=logp_F.dtype).index_add(0, owner, logp_F[frames])


def micro_batches(count: int, micro_batch: int) -> int:
    """How many micro-batches ``count`` frames make."""
    return -(-count // micro_batch)


def _chunks(count: int, micro_batch: int) -> list[Tensor]:
    return list(torch.split(torch.arange(count), micro_batch))


def _clear(parameters: Sequence[Tensor]) -> None:
    for parameter in parameters:
        parameter.grad = None
