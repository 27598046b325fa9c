"""The steps of recorded episodes in memory, one row each, and the network's view of them.

Pictures stay uint8 as recorded and go through the policy's own road when a micro-batch needs them: the same road as at
collection, at a fifth of the memory of normalised ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from grape.core.errors import CompatibilityError, DataError
from grape.core.events import Reporter
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.policies.base import PolicySpec
from grape.store import EpisodeStore

if TYPE_CHECKING:
    from grape.policies.openvla import OpenVLAPolicy

__all__ = ["StepTable", "check_preprocessing", "load_steps"]


@dataclass(frozen=True, eq=False)
class StepTable:
    """``N`` steps of several episodes, episode after episode.

    Attributes:
        images_NHWC: Picture before each decision, uint8.
        instructions: What the policy was told at each step, ``N`` strings.
        tokens_ND: Sampled action tokens, int64; -1 where nothing was sampled.
        logps_ND: Recorded log-probability of each token, float32; NaN where nothing was sampled.
        labels_ND: What an imitator should learn, un-normalised, float32.
        spans: First row and row behind the last, by episode id.
    """

    images_NHWC: npt.NDArray[np.uint8]
    instructions: tuple[str, ...]
    tokens_ND: Tensor
    logps_ND: npt.NDArray[np.float32]
    labels_ND: npt.NDArray[np.float32]
    spans: Mapping[str, tuple[int, int]]

    def __len__(self) -> int:
        return len(self.instructions)

    def episode_of(self, row: int) -> str:
        """Id of the episode that a row belongs to."""
        return next(name for name, (start, stop) in self.spans.items() if start <= row < stop)

    def logps(self, policy: "OpenVLAPolicy", rows_B: Tensor) -> Tensor:
        """``log pi(a_t | o_t, q)`` of recorded steps under a policy, with graph.

        Args:
            policy: The policy.
            rows_B: Which rows, int64.

        Returns:
            float32 ``(B, D)``, one column a token.
        """
        index = rows_B.numpy()
        inputs = policy.encode(self.images_NHWC[index], [self.instructions[row] for row in index])
        return policy.model.action_logps(inputs, self.tokens_ND[rows_B])


def load_steps(stores: Sequence[EpisodeStore], episodes: Sequence[Sequence[str]], reporter: Reporter) -> StepTable:
    """Read episodes into memory.

    Args:
        stores: Where they are.
        episodes: Ids to read from each store; ids that stand in several stores are prefixed with the store's number.
        reporter: Progress.

    Raises:
        DataError: An episode is damaged, or pictures or actions differ in shape.
    """
    parts: dict[str, Trajectory] = {}
    with reporter.progress("read episodes", sum(len(ids) for ids in episodes)) as bar:
        for number, (store, ids) in enumerate(zip(stores, episodes, strict=True)):
            for episode_id in ids:
                parts[episode_id if episode_id not in parts else f"{number}/{episode_id}"] = store.read(episode_id)
                bar.advance()
    shapes = {(part.frames.shape[1:], part.actions.shape[1:]) for part in parts.values()}
    if len(shapes) != 1:
        raise DataError(
            f"The episodes' pictures and actions have different shapes: {sorted(shapes)}.", "Train on one kind of data."
        )
    starts = np.cumsum([0, *(part.steps for part in parts.values())]).tolist()
    return StepTable(
        images_NHWC=np.concatenate([part.frames[:-1] for part in parts.values()]),
        instructions=tuple(part.meta.instruction for part in parts.values() for _ in range(part.steps)),
        tokens_ND=torch.from_numpy(np.concatenate([part.action_tokens for part in parts.values()]).astype(np.int64)),
        logps_ND=np.concatenate([part.token_logps for part in parts.values()]),
        labels_ND=np.concatenate([part.labels for part in parts.values()]),
        spans={name: (starts[i], starts[i + 1]) for i, name in enumerate(parts)},
    )


def check_preprocessing(policy: "OpenVLAPolicy", spec: PolicySpec, metas: Sequence[EpisodeMeta], where: Path) -> None:
    """Compare how episodes were recorded with how the policy would read them.

    Raises:
        CompatibilityError: Nothing was sampled in an episode, or tokenizer, prompt, picture road or normalisation
            differ: then the recorded tokens do not mean the same.
    """
    for meta in metas:
        if meta.actor != "policy":
            raise CompatibilityError(
                f"Episode {meta.episode_id} of {where} was played by an expert: it has no sampled tokens.",
                "Pairs for training come from 'grape collect --policy FOLDER'. Demonstrations are for 'grape sft'.",
            )
        if meta.preprocessing_hash != spec.preprocessing_hash:
            raise CompatibilityError(
                f"Episode {meta.episode_id} of {where} was recorded with another pre-processing (prompt, picture road, "
                f"tokenizer, action bins or normalisation): {meta.preprocessing_hash[:12]}, the policy's is "
                f"{spec.preprocessing_hash[:12]}.",
                "Train the policy that collected these episodes, or collect again with this one.",
            )
        if meta.prompt != policy.prompt(meta.instruction):
            raise CompatibilityError(
                f"Episode {meta.episode_id} of {where} was recorded with the prompt {meta.prompt!r}, the policy reads "
                f"{policy.prompt(meta.instruction)!r}.",
                "Collect again with this version.",
            )
