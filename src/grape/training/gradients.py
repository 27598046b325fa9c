"""The exact gradient of a loss over whole trajectories, at a memory that does not depend on their length.

A loss sees a trajectory only through the sum S of its log-probabilities, so ``grad L = sum dL/dS * grad S`` and
``grad S`` is a sum over frames: frames go through in micro-batches, each with a forward and a backward of its own.
The scalars ``dL/dS`` need all sums first, and there are two ways around that:

- *one pass*: ``grad S_w`` and ``grad S_l`` of a pair accumulate in two buffers of the trainable parameters' size, and
  are added to the update's gradient once both sums are known. Every frame is computed once: the way for adapters on
  large models.
- *two passes*: the sums come from a pass without graph, then each frame is weighted in a second pass. No buffers, and
  frames of several pairs share a micro-batch: the way for full fine-tuning and for small models. The largest
  micro-batch keeps its graph from the first pass to the second, so an update that fits in one is computed once only.

Both equal autograd over the full graph, given that the network is deterministic (no dropout).

The terms of a loss (see :data:`grape.training.losses.LossTerms`) have a gradient each, whose norms are returned; their
sum is the update's gradient. A further term takes one more buffer of the trainable parameters' size and, in two passes,
one more backward over the micro-batches that it weighs (the anchor weighs chosen sides that succeeded).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from grape.training.distributed import local_part
from grape.training.losses import Loss, TrajectorySums, coefficients

__all__ = [
    "Comparisons",
    "GradientResult",
    "LogpFunction",
    "frame_logps",
    "micro_batches",
    "norm_of",
    "one_pass_gradient",
    "two_pass_gradient",
]

# Positions of frames within an update, (B,) -> summed log-probability of each frame's tokens, (B,), with graph.
LogpFunction = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Comparisons:
    """How the ``F`` frames of one update add up to the two sides of its ``P`` comparisons.

    A frame is a decision, or the part of one whose actions a side takes. It may stand in several sides. One side may be
    empty (losses over single episodes).

    Attributes:
        frame_count: F.
        chosen: Positions of the frames of each chosen side, ``P`` tensors of int64.
        rejected: Positions of the frames of each rejected side.
        chosen_reference_P: Reference log-probability of each chosen side, float64.
        rejected_reference_P: The same of each rejected side.
        weight_P: Weight of each comparison in the mean, float64; None weighs all alike, by 1.
        anchored_P: 1 where the anchor may imitate the chosen side, else 0, float64; None allows it everywhere.
        chosen_steps_P: Executed control steps of each chosen side, float64; None counts a frame as one.
        rejected_steps_P: The same of each rejected side.
    """

    frame_count: int
    chosen: Sequence[Tensor]
    rejected: Sequence[Tensor]
    chosen_reference_P: Tensor
    rejected_reference_P: Tensor
    weight_P: Tensor | None = None
    anchored_P: Tensor | None = None
    chosen_steps_P: Tensor | None = None
    rejected_steps_P: Tensor | None = None

    def sums(self, logp_F: Tensor) -> TrajectorySums:
        """Add frames up to sides; differentiable in ``logp_F``, float64 ``(F,)``."""
        return self._assemble(_add_up(logp_F, self.chosen), _add_up(logp_F, self.rejected))

    def _assemble(self, chosen_P: Tensor, rejected_P: Tensor) -> TrajectorySums:
        ones_P = torch.ones(len(self.chosen), dtype=torch.float64)
        return TrajectorySums(
            chosen_P,
            rejected_P,
            self.chosen_reference_P,
            self.rejected_reference_P,
            _counts(self.chosen) if self.chosen_steps_P is None else self.chosen_steps_P,
            _counts(self.rejected) if self.rejected_steps_P is None else self.rejected_steps_P,
            ones_P if self.weight_P is None else self.weight_P,
            ones_P if self.anchored_P is None else self.anchored_P,
        )

    def _micro_batches(self, micro_batch: int, *, apart: bool) -> list[Tensor]:
        """All frames in micro-batches; ``apart`` mixes no frames that the anchor weighs with others, which it skips."""
        anchored_F = torch.zeros(self.frame_count, dtype=torch.bool)
        if apart:
            for number, side in enumerate(self.chosen):
                anchored_F[side] |= self.anchored_P is None or bool(self.anchored_P[number])
        groups = [torch.nonzero(part_F).flatten() for part_F in (anchored_F, ~anchored_F)]
        return [chunk for group in groups if len(group) for chunk in torch.split(group, micro_batch)]


@dataclass(frozen=True, eq=False)
class GradientResult:
    """What a gradient computation returns; the gradient itself is in the parameters' ``grad``.

    Attributes:
        loss: Value of the loss before the update.
        metrics: The loss's metrics.
        sums: Sums of all comparisons, without graph.
        term_norms: L2 norm of each term's gradient; empty for a loss of one term, whose norm is the gradient's own.
    """

    loss: float
    metrics: dict[str, float]
    sums: TrajectorySums
    term_norms: dict[str, float] = field(default_factory=dict)


def two_pass_gradient(
    logps: LogpFunction,
    comparisons: Comparisons,
    loss: Loss,
    micro_batch: int,
    parameters: Sequence[Tensor],
    rounds: int = 0,
    *,
    apart: bool = False,
    reduce: Callable[[], None] = lambda: None,
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
        apart: Whether to compute each term's gradient by itself, for its norm, or only their sum.
        reduce: Replaces ``grad`` of the parameters by its sum over processes; called for every term.
    """
    _clear(parameters)
    chunks = sorted(comparisons._micro_batches(micro_batch, apart=apart), key=len, reverse=True)
    kept_count = max(k for k in range(1, len(chunks) + 1) if k == 1 or sum(map(len, chunks[:k])) <= micro_batch)
    surplus = [chunks[0]] * (rounds - len(chunks))
    for chunk in surplus:
        with torch.no_grad():
            logps(chunk)
    logp_F = torch.empty(comparisons.frame_count, dtype=torch.float64)
    for chunk in chunks[kept_count:]:
        with torch.no_grad():
            logp_F[chunk] = logps(chunk).double()
    kept = [logps(chunk).double() for chunk in chunks[:kept_count]]
    for chunk, logp_B in zip(chunks, kept, strict=False):
        logp_F[chunk] = logp_B.detach()
    logp_F.requires_grad_()
    terms, metrics = loss(comparisons.sums(logp_F))
    value = torch.stack(list(terms.values())).sum()
    weights = {
        name: torch.autograd.grad(term, logp_F, retain_graph=True)[0]
        for name, term in (terms if apart else {"loss": value}).items()
    }
    gradients: dict[str, list[Tensor | None]] = {name: [None] * len(parameters) for name in weights}
    for chunk in chunks:
        logp_B = kept.pop(0) if kept else logps(chunk).double()
        _backward(logp_B, {name: weight_F[chunk] for name, weight_F in weights.items()}, parameters, gradients)
        del logp_B
    for chunk in surplus:
        torch.autograd.backward(logps(chunk).double(), torch.zeros(len(chunk), dtype=torch.float64))
    norms = _add_terms(gradients, parameters, reduce)
    return GradientResult(float(value.detach()), metrics, comparisons.sums(logp_F.detach()), norms)


def one_pass_gradient(
    logps: LogpFunction,
    comparisons: Comparisons,
    loss: Loss,
    micro_batch: int,
    parameters: Sequence[Tensor],
    *,
    reduce: Callable[[], None] = lambda: None,
) -> GradientResult:
    """Every frame once, two buffers and one more for each further term; replaces ``grad`` of ``parameters``.

    The loss must be a mean over comparisons: then a pair's scalars depend on that pair alone, and its buffers can be
    emptied before the next one.

    Args:
        logps: Log-probability of frames under the policy.
        comparisons: The update.
        loss: Loss over sums.
        micro_batch: Frames computed at once; never of two sides.
        parameters: The trainable parameters.
        reduce: Replaces ``grad`` of the parameters by its sum over processes; called for every term.
    """
    pairs = len(comparisons.chosen)
    totals: dict[str, list[Tensor | None]] = {}
    sums_w, sums_l = torch.zeros(pairs, dtype=torch.float64), torch.zeros(pairs, dtype=torch.float64)
    results = []
    for index in range(pairs):
        sums_w[index], gradient_w = _side(logps, comparisons.chosen[index], micro_batch, parameters)
        sums_l[index], gradient_l = _side(logps, comparisons.rejected[index], micro_batch, parameters)
        pair = comparisons._assemble(sums_w, sums_l).pair(index)
        value, metrics, derivatives = coefficients(loss, pair)
        # The first term comes last and takes the memory of the side's gradient.
        for position, (name, (d_w_P, d_l_P)) in reversed(list(enumerate(derivatives.items()))):
            total = totals.setdefault(name, [None] * len(parameters))
            _accumulate(total, gradient_w, float(d_w_P) / pairs, reuse=position == 0)
            _accumulate(total, gradient_l, float(d_l_P) / pairs, reuse=position == 0)
        results.append((value, metrics))
    norms = _add_terms({name: totals[name] for name in reversed(totals)}, parameters, reduce)
    metrics = {name: sum(each[name] for _, each in results) / pairs for name in results[0][1]}
    loss_value = sum(value for value, _ in results) / pairs
    return GradientResult(loss_value, metrics, comparisons._assemble(sums_w, sums_l), norms)


@torch.no_grad()
def frame_logps(logps: LogpFunction, frame_count: int, micro_batch: int, rounds: int = 0) -> Tensor:
    """Log-probability of every frame without graph, float64 ``(F,)``; ``rounds`` as in :func:`two_pass_gradient`."""
    chunks = torch.split(torch.arange(frame_count), micro_batch)
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


def _accumulate(total: list[Tensor | None], gradients: Sequence[Tensor | None], weight: float, *, reuse: bool) -> None:
    """``total += weight * gradients``; may take the memory of the gradients, which are then spent."""
    if not reuse and weight == 0:  # a term without effect on this side
        return
    for position, gradient in enumerate(gradients):
        if gradient is None:
            continue
        held = total[position]
        if held is not None:
            held.add_(gradient, alpha=weight)
        else:
            total[position] = gradient.mul_(weight) if reuse else gradient * weight


def _backward(
    logp_B: Tensor,
    weights: Mapping[str, Tensor],
    parameters: Sequence[Tensor],
    gradients: dict[str, list[Tensor | None]],
) -> None:
    """Add each term's gradient over one micro-batch; where there is one term only, it stays in ``grad``."""
    if len(weights) == 1:
        torch.autograd.backward(logp_B, next(iter(weights.values())))
        return
    # The first term always goes through, so that a parameter that is used has a gradient, if only zeros.
    active = [name for place, (name, weight_B) in enumerate(weights.items()) if place == 0 or bool(weight_B.any())]
    for name in active:
        _put(parameters, gradients[name])
        torch.autograd.backward(logp_B, weights[name], retain_graph=name != active[-1])
        gradients[name] = [parameter.grad for parameter in parameters]
    _clear(parameters)


def _add_terms(
    gradients: Mapping[str, list[Tensor | None]], parameters: Sequence[Tensor], reduce: Callable[[], None]
) -> dict[str, float]:
    """Reduce each term's gradient, leave their sum in ``grad``, and return the terms' norms.

    A single term may lie in ``grad`` already.
    """
    names = list(gradients)
    if len(names) == 1:
        if any(gradient is not None for gradient in gradients[names[0]]):
            _put(parameters, gradients[names[0]])
        reduce()
        return {}
    norms: dict[str, float] = {}
    total: list[Tensor | None] = [None] * len(parameters)
    for name in names:
        _put(parameters, gradients[name])
        reduce()
        reduced = [parameter.grad for parameter in parameters]
        norms[name] = norm_of(reduced)
        _accumulate(total, reduced, 1.0, reuse=True)
    _put(parameters, total)
    return norms


def norm_of(gradients: Iterable[Tensor | None]) -> float:
    """L2 norm of a gradient, or of the part of it that lives in this process."""
    squares = [local_part(gradient).double().square().sum() for gradient in gradients if gradient is not None]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def _counts(sides: Sequence[Tensor]) -> Tensor:
    return torch.tensor([len(side) for side in sides], dtype=torch.float64)


def _add_up(logp_F: Tensor, sides: Sequence[Tensor]) -> Tensor:
    frames = torch.cat(list(sides))
    owner = torch.repeat_interleave(torch.arange(len(sides)), torch.tensor([len(side) for side in sides]))
    return torch.zeros(len(sides), dtype=logp_F.dtype).index_add(0, owner, logp_F[frames])


def micro_batches(count: int, micro_batch: int) -> int:
    """How many micro-batches ``count`` frames make."""
    return -(-count // micro_batch)


def _clear(parameters: Sequence[Tensor]) -> None:
    for parameter in parameters:
        parameter.grad = None


def _put(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
