"""Log-probabilities of recorded steps: the policy's, and the reference's without a second copy of the model.

Vision towers that nothing trains give the same features in every epoch, for the reference and for the policy. The last
bits of a matrix product may depend on what shares its batch, and a resumed run must see the same features as an
uninterrupted one. So which rows' features are kept does not depend on the order of the calls: the first ones, as many
as the memory holds, computed in fixed blocks of neighboring rows. Those of other rows are computed for each call.

The policy that collected the episodes is the reference of its iteration, so what was recorded at collection is what
is needed; a sample is computed again before training to see that policy, prompt, images and tokens are the same.
Otherwise the starting policy is evaluated once on all steps, before its first update.
"""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from grape.core.errors import CompatibilityError, DataError
from grape.core.files import read_json_mapping, write_bytes, write_json
from grape.core.seeds import derive_rng
from grape.policies.openvla.model import PolicyInputs
from grape.training.dataset import StepDataset
from grape.training.distributed import SINGLE_PROCESS, ProcessGroup
from grape.training.gradients import frame_logps

if TYPE_CHECKING:
    from grape.policies.openvla import OpenVLAPolicy

__all__ = ["StepLogprobs", "check_parity", "parity_alarm", "recomputed_reference", "recorded_reference"]


class StepLogprobs:
    """``log pi(a_t | o_t, q)`` of the rows of a step table.

    Args:
        policy: The policy; its weights may change between calls, but not which of them are trainable.
        steps: The steps.
        block: Rows whose features are computed at once.
        feature_bytes: Memory for features of frozen towers; 0 computes them at every call.
        autocast: Type to compute in where the weights are kept in a finer one; None computes in the weights' type.
    """

    def __init__(
        self,
        policy: "OpenVLAPolicy",
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
        self.towers_frozen = not any(p.requires_grad for p in policy.model.vision_backbone.parameters())
        self._kept: dict[int, Tensor] = {}

    def __call__(self, rows_B: Tensor) -> Tensor:
        """Log-probability of each token, float32 ``(B, D)``, with graph.

        Args:
            rows_B: Which rows, int64.
        """
        model = self._policy.model
        inputs, tokens_BD = self._inputs(rows_B), self.steps.tokens_NKD[rows_B, 0]
        with torch.autocast(model.device.type, dtype=self._autocast, enabled=self._autocast is not None):
            return model.action_logps(inputs, tokens_BD)

    def _inputs(self, rows_B: Tensor) -> PolicyInputs:
        rows = rows_B.numpy()
        instructions = [self.steps.instructions[row] for row in rows]
        if not (self.towers_frozen and self._budget):
            return self._policy.encode_images(self.steps.images_NHWC[rows], instructions, self._proprio(rows))
        prompt_ids = tuple(self._policy.processor.prompt_ids(instruction) for instruction in instructions)
        features: dict[int, Tensor] = {}
        for block in np.unique(rows[rows < self._rows_to_keep] // self._block).tolist():
            first = block * self._block
            features |= dict(enumerate(self._kept_block(block), first))
        others = np.unique(rows[rows >= self._rows_to_keep])
        if len(others):
            features |= dict(zip(others.tolist(), self._features(others), strict=True))
        features_BNC = torch.stack([features[row] for row in rows.tolist()])
        proprio_BP = self._policy.standardized_proprio(self._proprio(rows))
        return PolicyInputs(None, prompt_ids, features_BNC, proprio_BP)

    def _proprio(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32] | None:
        return None if self.steps.proprio_NP is None else self.steps.proprio_NP[rows]

    @cached_property
    def _rows_to_keep(self) -> int:
        """Rows whose features fit into the memory, in whole blocks; the first ones are kept."""
        rows = int(self._budget // self._features(np.zeros(1, dtype=np.int64)).nbytes)
        return len(self.steps) if rows >= len(self.steps) else rows // self._block * self._block

    def _kept_block(self, block: int) -> Tensor:
        """Features of a whole block, ``(rows, N, C)``."""
        if block not in self._kept:
            rows = np.arange(block * self._block, min((block + 1) * self._block, len(self.steps)))
            self._kept[block] = self._features(rows)
        return self._kept[block]

    @torch.no_grad()
    def _features(self, rows_B: npt.NDArray[np.int64]) -> Tensor:
        """Features of some rows, computed now, ``(B, N, C)``."""
        pixels = self._policy.processor.pixels(self.steps.images_NHWC[rows_B])
        return self._policy.model.image_features(pixels).cpu()


def recorded_reference(steps: StepDataset) -> npt.NDArray[np.float64]:
    """Recorded log-probability of every step, float64 ``(N,)``.

    Raises:
        DataError: An episode has steps whose tokens were not sampled.
    """
    reference_N: npt.NDArray[np.float64] = steps.logps_NKD[:, 0].sum(axis=1, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(reference_N))
    if len(bad):
        raise DataError(
            f"Episode {steps.episode_of(int(bad[0]))} has no finite recorded log-probabilities.",
            "Use --reference recomputed with another --out, or collect again.",
        )
    return reference_N


def recomputed_reference(
    logps: StepLogprobs, count: int, micro_batch: int, path: Path, processes: ProcessGroup = SINGLE_PROCESS
) -> npt.NDArray[np.float64]:
    """Log-probability of every step under the starting policy, float64 ``(N,)``.

    Args:
        logps: The policy before its first update; not called where ``path`` exists already.
        count: Number of steps, N.
        micro_batch: Steps computed at once.
        path: Safetensors file that keeps the result, so that a resumed run has the starting policy's values.
        processes: Each computes a part.
    """
    kept = processes.run_on_main(lambda: _kept_reference(path))
    if kept is not None:
        return kept
    share = -(-count // processes.size)  # the same for all: a sharded network is called equally often
    rows = (torch.arange(share) + processes.rank * share).clamp(max=count - 1)
    part_F = frame_logps(lambda positions: logps(rows[positions]).sum(1).cpu(), share, micro_batch)
    reference_N = torch.cat(processes.gather(part_F))[:count].contiguous()
    if processes.is_main:
        write_bytes(path, save({"reference_N": reference_N}))
    return reference_N.numpy()


def _kept_reference(path: Path) -> npt.NDArray[np.float64] | None:
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="np") as handle:
            kept: npt.NDArray[np.float64] = handle.get_tensor("reference_N")
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is truncated ({error}).", "Delete the run's folder and train again.") from error
    return kept


def parity_alarm(threshold: float | None, device: torch.device) -> float:
    """Alarm level of :func:`check_parity`, nats a token.

    On a CPU the same weights give the same numbers but for the last bits, in bfloat16 as well (3e-6 measured on nano),
    while adapters merged into bfloat16 weights are off by 1e-2. GPUs choose kernels by the batch, so they differ more.

    Args:
        threshold: The user's choice; None chooses by device.
        device: Where the policy computes.
    """
    if threshold is not None:
        return threshold
    return 0.002 if device.type == "cpu" else 0.05


def check_parity(
    logps: StepLogprobs,
    steps: StepDataset,
    count: int,
    threshold: float,
    seed: int,
    micro_batch: int,
    path: Path,
    processes: ProcessGroup = SINGLE_PROCESS,
    own_R: npt.NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Compare recorded log-probabilities with the policy's own on a sample of steps.

    Args:
        logps: The policy before its first update; not called where ``path`` exists already.
        steps: The steps.
        count: Size of the sample.
        threshold: Alarm level of the mean absolute difference per token, nats.
        seed: Seed of the sample.
        micro_batch: Steps computed at once.
        path: JSON file that keeps the result for resumed runs.
        processes: All compute the same; process 0 writes.
        own_R: Rows to sample from, ascending: those that the policy collected itself; None takes all.

    Returns:
        ``{"max_abs", "mean_abs", "steps"}``; differences per token in nats.

    Raises:
        CompatibilityError: The mean difference lies above the threshold.
    """
    kept: dict[str, Any] | None = processes.run_on_main(lambda: _kept(path) if path.exists() else None)
    if kept is not None:
        return kept
    candidates = np.arange(len(steps)) if own_R is None else own_R
    rows = candidates[np.sort(derive_rng(seed, "parity").permutation(len(candidates))[:count])]
    with torch.no_grad():
        parts = [logps(part).cpu() for part in torch.split(torch.from_numpy(rows), micro_batch)]
    own_ND = torch.cat(parts).double().numpy()
    difference_ND = np.abs(own_ND - steps.logps_NKD[rows, 0])
    comparison = {  # in the order in which a resumed run reads it back
        "max_abs": float(difference_ND.max()),
        "mean_abs": float(difference_ND.mean()),
        "steps": len(rows),
    }
    if not comparison["mean_abs"] <= threshold:  # also catches NaN
        worst = steps.episode_of(int(rows[difference_ND.mean(axis=1).argmax()]))
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
