"""Log-probabilities of recorded decisions: the policy's, and the reference's without a second copy of the model.

Parts of the network that nothing trains, vision towers for example, give the same features in every epoch, for the
reference and for the policy. The last bits of a matrix product may depend on what shares its batch, and a resumed run
must see the same features as an uninterrupted one. So which rows' features are kept does not depend on the order of the
calls: the first ones, as many as the memory holds, computed in fixed blocks of neighboring rows. Those of other rows
are computed for each call.

The policy that collected the episodes is the reference of its iteration, so what was recorded at collection is what
is needed; a sample is computed again before training to see that policy, prompt, images and tokens are the same.
Otherwise the starting policy is evaluated once on all decisions, before its first update.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from grape.core.errors import CompatibilityError, DataError, PolicyError
from grape.core.files import read_json_mapping, write_bytes, write_json
from grape.core.seeds import derive_rng
from grape.policies.base import FIX_POLICY, TrainablePolicy
from grape.training.dataset import StepDataset
from grape.training.decision_axis import Segments
from grape.training.distributed import SINGLE_PROCESS, ProcessGroup
from grape.training.episode_rows import rows_of
from grape.training.gradients import frame_logps

__all__ = [
    "RecordedReference",
    "StepLogprobs",
    "check_parity",
    "module_device",
    "parity_alarm",
    "recomputed_reference",
    "recorded_reference",
]

_KEPT = "reference_N"
"""Name of the kept reference, as release 0.1 wrote it: one number a control step."""


class StepLogprobs:
    """Log-probabilities of the decisions of a step table.

    Args:
        policy: The policy; its weights may change between calls, but not which of them are trainable.
        steps: The decisions.
        block: Rows whose features are computed at once.
        feature_bytes: Memory for features of what does not train; 0 computes them at every call.
        autocast: Type to compute in where the weights are kept in a finer one; None computes in the weights' type.
    """

    def __init__(
        self,
        policy: TrainablePolicy,
        steps: StepDataset,
        block: int,
        feature_bytes: float = 0.0,
        autocast: torch.dtype | None = None,
    ) -> None:
        self._policy = policy
        self.steps = steps
        self._block = block
        self._budget = feature_bytes
        self._autocast = autocast
        self._kept: dict[int, Tensor] = {}

    def __call__(self, rows_B: Tensor) -> Tensor:
        """Log-probability of each token, float32 ``(B, K, D)``, with graph; 0 behind the executed actions.

        Args:
            rows_B: Which rows, int64.
        """
        executed_B = torch.from_numpy(self.steps.axis.executed(rows_B.numpy()))
        return self._masked(rows_B, torch.zeros_like(rows_B), executed_B)

    def sums(self, segments: Segments) -> Tensor:
        """Summed log-probability of the tokens of runs of executed actions, float32 ``(B,)``, with graph.

        Args:
            segments: The runs.
        """
        if bool(segments.first_F.any()):  # a side that begins inside a chunk
            return self._masked(segments.rows_F, segments.first_F, segments.stop_F).flatten(1).sum(dim=1)
        inputs, tokens_BKD = self._inputs(segments.rows_F), self._tokens(segments.rows_F)
        with self._computing():
            return self._policy.decision_logps(inputs, tokens_BKD, segments.stop_F)

    def executed(self, batch: int) -> npt.NDArray[np.float64]:
        """Log-probability of every executed token of the table, float64 ``(T, D)``, without graph.

        Args:
            batch: Decisions computed at once.
        """
        with torch.no_grad():
            parts = [self(rows).cpu() for rows in torch.split(torch.arange(len(self.steps)), batch)]
        tokens_TD: npt.NDArray[np.float64] = torch.cat(parts).double().numpy()[_whole_mask(self.steps)]
        return tokens_TD

    def _masked(self, rows_B: Tensor, first_B: Tensor, stop_B: Tensor) -> Tensor:
        inputs, tokens_BKD = self._inputs(rows_B), self._tokens(rows_B)
        with self._computing():
            logps_BKD = self._policy.token_logps(inputs, tokens_BKD)
        actions_K = torch.arange(tokens_BKD.shape[1])
        mask_BK = (actions_K >= first_B[:, None]) & (actions_K < stop_B[:, None])
        return torch.where(mask_BK[..., None].to(logps_BKD.device), logps_BKD, 0.0)

    def _tokens(self, rows_B: Tensor) -> Tensor:
        return torch.from_numpy(self.steps.tokens_NKD[rows_B.numpy()])

    def _computing(self) -> torch.autocast:
        device = module_device(self._policy.module)
        return torch.autocast(device.type, dtype=self._autocast, enabled=self._autocast is not None)

    def _inputs(self, rows_B: Tensor) -> Any:
        rows = rows_B.numpy()
        if not (self._budget and self._feature_bytes):
            return self._policy.encode(self.steps.observations(rows))
        features: dict[int, Tensor] = {}
        for block in np.unique(rows[rows < self._rows_to_keep] // self._block).tolist():
            first = block * self._block
            features |= dict(enumerate(self._kept_block(block), first))
        others = np.unique(rows[rows >= self._rows_to_keep])
        if len(others):
            features |= dict(zip(others.tolist(), self._features(others), strict=True))
        stacked = torch.stack([features[row] for row in rows.tolist()])
        return self._policy.encode(self.steps.observations(rows, images=False), features=stacked)

    @cached_property
    def _feature_bytes(self) -> int:
        """Memory of one row's features; 0 where the policy has none."""
        one = self._policy.features(self.steps.observations(np.zeros(1, dtype=np.int64)))
        return 0 if one is None else one.nbytes

    @cached_property
    def _rows_to_keep(self) -> int:
        """Rows whose features fit into the memory, in whole blocks; the first ones are kept."""
        rows = int(self._budget // self._feature_bytes)
        return len(self.steps) if rows >= len(self.steps) else rows // self._block * self._block

    def _kept_block(self, block: int) -> Tensor:
        """Features of a whole block, ``(rows, ...)``."""
        if block not in self._kept:
            rows = np.arange(block * self._block, min((block + 1) * self._block, len(self.steps)))
            self._kept[block] = self._features(rows)
        return self._kept[block]

    def _features(self, rows_B: npt.NDArray[np.int64]) -> Tensor:
        """Features of some rows, computed now, ``(B, ...)``."""
        features = self._policy.features(self.steps.observations(rows_B))
        if features is None or len(features) != len(rows_B):
            raise PolicyError("A policy has features for some observations and not for others.", FIX_POLICY)
        return features


def module_device(module: nn.Module) -> torch.device:
    """Where a network's weights are."""
    return next(iter(module.parameters()), torch.zeros(())).device


class RecordedReference:
    """Recorded log-probability of each control step, summed over its tokens, read when it is needed.

    Args:
        steps: The decisions; an executed token of each has a finite log-probability.
    """

    def __init__(self, steps: StepDataset) -> None:
        self._steps = steps

    def __getitem__(self, steps: slice) -> npt.NDArray[np.float64]:
        """The numbers of a range of control steps, float64 ``(stop - start,)``."""
        axis = self._steps.axis
        start, stop, _ = steps.indices(axis.steps)
        if start >= stop:
            return np.zeros(0)
        first, last = axis.rows_at(np.array([start, stop - 1])).tolist()
        rows = np.arange(first, last + 1)
        executed_SD = self._steps.logps_NKD[first : last + 1][self._steps.executed_mask(rows)]
        offset = start - int(axis.first_steps(rows[:1])[0])
        reference_S: npt.NDArray[np.float64] = executed_SD.sum(axis=1, dtype=np.float64)
        return reference_S[offset : offset + stop - start]


def recorded_reference(steps: StepDataset) -> RecordedReference:
    """Recorded log-probability of every control step.

    Raises:
        DataError: An episode has control steps whose tokens were not sampled.
    """
    if steps.unsampled:
        raise DataError(
            f"Episode {steps.episode_id(steps.unsampled[0])} has no finite recorded log-probabilities.",
            "Use --reference recomputed with another --out, or collect again.",
        )
    return RecordedReference(steps)


def _whole_mask(steps: StepDataset) -> npt.NDArray[np.bool_]:
    """Which actions of all decisions' chunks were executed, bool ``(N, K)``."""
    return steps.executed_mask(np.arange(len(steps)))


def recomputed_reference(
    logps: StepLogprobs, micro_batch: int, path: Path, processes: ProcessGroup = SINGLE_PROCESS
) -> npt.NDArray[np.float64]:
    """Log-probability of every control step under the starting policy, float64 ``(T,)``.

    Args:
        logps: The policy before its first update; not called where ``path`` exists already.
        micro_batch: Decisions computed at once.
        path: Safetensors file that keeps the result, so that a resumed run has the starting policy's values.
        processes: Each computes a part.
    """
    kept = processes.run_on_main(lambda: _kept_reference(path))
    if kept is not None:
        return kept
    steps = logps.steps
    count = len(steps)
    share = -(-count // processes.size)  # the same for all: a sharded network is called equally often
    rows = (torch.arange(share) + processes.rank * share).clamp(max=count - 1)
    part_FK = frame_logps(lambda positions: logps(rows[positions]).sum(dim=2).cpu(), share, micro_batch)
    reference_T = torch.cat(processes.gather(part_FK))[:count][torch.from_numpy(_whole_mask(steps))]
    if processes.is_main:
        write_bytes(path, save({_KEPT: reference_T}))
    return reference_T.numpy()


def _kept_reference(path: Path) -> npt.NDArray[np.float64] | None:
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="np") as handle:
            kept: npt.NDArray[np.float64] = handle.get_tensor(_KEPT)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is truncated ({error}).", "Delete the run's folder and train again.") from error
    return kept


def parity_alarm(threshold: float | None, module: torch.nn.Module) -> float:
    """Alarm level of :func:`check_parity`, nats a token.

    On a CPU float32 weights give the same numbers but for the last bits. GPUs choose kernels by the batch, and some
    processors do in bfloat16 (6e-3 measured on nano, where others give 3e-6), so that the same policy differs more.

    Args:
        threshold: The user's choice; None chooses by device and precision.
        module: The policy's network.
    """
    if threshold is not None:
        return threshold
    exact = all(value.device.type == "cpu" and value.dtype == torch.float32 for value in module.parameters())
    return 0.002 if exact else 0.05


def check_parity(
    logps: StepLogprobs,
    steps: StepDataset,
    count: int,
    threshold: float,
    seed: int,
    micro_batch: int,
    path: Path,
    processes: ProcessGroup = SINGLE_PROCESS,
    own: Sequence[tuple[int, int]] | None = None,
) -> dict[str, Any]:
    """Compare recorded log-probabilities of executed tokens with the policy's own on a sample of decisions.

    Args:
        logps: The policy before its first update; not called where ``path`` exists already.
        steps: The decisions.
        count: Size of the sample.
        threshold: Alarm level of the mean absolute difference per token, nats.
        seed: Seed of the sample.
        micro_batch: Decisions computed at once.
        path: JSON file that keeps the result for resumed runs.
        processes: All compute the same; process 0 writes.
        own: Rows to sample from, as ranges: those that the policy collected itself; None takes all.

    Returns:
        ``{"max_abs", "mean_abs", "steps"}``; differences per token in nats.

    Raises:
        CompatibilityError: The mean difference lies above the threshold.
    """
    kept: dict[str, Any] | None = processes.run_on_main(lambda: _kept(path) if path.exists() else None)
    if kept is not None:
        return kept
    rows = _sample([(0, len(steps))] if own is None else own, count, derive_rng(seed, "parity"))
    with torch.no_grad():
        parts = [logps(part).cpu() for part in torch.split(torch.from_numpy(rows), micro_batch)]
    own_RKD, mask_RK = torch.cat(parts).double().numpy(), steps.executed_mask(rows)
    difference_MD = np.abs(own_RKD[mask_RK] - steps.logps_NKD[rows][mask_RK])
    comparison = {  # in the order in which a resumed run reads it back
        "max_abs": float(difference_MD.max()),
        "mean_abs": float(difference_MD.mean()),
        "steps": len(rows),
    }
    if not comparison["mean_abs"] <= threshold:  # also catches NaN
        worst = steps.episode_of(int(np.repeat(rows, mask_RK.sum(axis=1))[difference_MD.mean(axis=1).argmax()]))
        raise CompatibilityError(
            f"Recorded and recomputed log-probabilities differ by {comparison['mean_abs']:.3g} nats a token on average "
            f"(alarm at {threshold:g}), most in episode {worst}.",
            "Likely causes: another policy collected the episodes, another preprocessing of images or prompt, "
            "another tokenizer, or another precision. --reference recomputed with another --out trains against the "
            "starting policy instead, if that is what you want.",
        )
    if processes.is_main:
        write_json(path, comparison)
    return comparison


def _sample(spans: Sequence[tuple[int, int]], count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """So many rows of some ranges, ascending; all of them where there are fewer."""
    total = sum(stop - start for start, stop in spans)
    return rows_of(spans, np.sort(rng.choice(total, min(count, total), replace=False)))


def _kept(path: Path) -> dict[str, Any]:
    """The result that an earlier start of the run kept.

    Raises:
        DataError: The file holds something else.
    """
    hint = f"Delete {path.name}: it is computed again."
    comparison = read_json_mapping(path, hint=hint, within=path.parent)
    if comparison.keys() != {"steps", "mean_abs", "max_abs"} or not all(
        type(v) in (int, float) for v in comparison.values()
    ):
        raise DataError(f"{path} holds no comparison of log-probabilities.", hint)
    return comparison
