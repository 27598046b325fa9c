"""The steps of recorded episodes, one row each.

Images stay uint8 as recorded and go through the policy's own preprocessing when a micro-batch needs them: the same as
at collection, at a fifth of the memory of normalised ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from grape.core.errors import CompatibilityError, DataError
from grape.core.events import Reporter
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.store import EpisodeSource
from grape.store.rlds.demonstrations import RldsDemonstrations
from grape.training.image_cache import ImageCache

if TYPE_CHECKING:
    from grape.policies.openvla import OpenVLAPolicy

__all__ = ["StepDataset", "check_preprocessing", "load_steps"]


@dataclass(frozen=True, eq=False)
class StepDataset:
    """``N`` steps of several episodes, episode after episode.

    Attributes:
        images_NHWC: Image before each decision, uint8; indexed with arrays of rows.
        instructions: What the policy was told at each step, ``N`` strings.
        tokens_ND: Sampled action tokens, int64; -1 where nothing was sampled.
        logps_ND: Recorded log-probability of each token, float32; NaN where nothing was sampled.
        labels_ND: What an imitator should learn, un-normalised, float32.
        spans: Half-open range [start, stop) of rows, by episode id.
    """

    images_NHWC: ImageCache
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


def load_steps(
    stores: Sequence[EpisodeSource],
    episodes: Sequence[Sequence[str]],
    reporter: Reporter,
    image_bytes: float = 4e9,
) -> StepDataset:
    """Read episodes, all of them once: what is damaged is found before any work.

    Of RLDS data sets, whose records were checked when they were listed, images are decoded only until the memory for
    them is full.

    Args:
        stores: Where they are.
        episodes: Ids to read from each store; ids that stand in several stores are prefixed with the store's number.
        reporter: Progress.
        image_bytes: Memory for decoded images; beyond it they are read again when needed.

    Raises:
        DataError: An episode is damaged, or images or actions differ in shape.
    """
    names: dict[str, tuple[EpisodeSource, str]] = {}
    for number, (store, ids) in enumerate(zip(stores, episodes, strict=True)):
        for episode_id in ids:
            names[episode_id if episode_id not in names else f"{number}/{episode_id}"] = (store, episode_id)
    starts = np.cumsum([0, *(store.meta(episode_id).steps for store, episode_id in names.values())]).tolist()
    images = ImageCache(list(names.values()), starts, image_bytes)
    parts: list[Trajectory] = []
    sizes: set[tuple[int, ...]] = set()
    widths: set[int] = set()
    with reporter.progress("read episodes", len(names)) as bar:
        for position, (store, episode_id) in enumerate(names.values()):
            decode = not (images.full and isinstance(store, RldsDemonstrations))
            part = store.read(episode_id, frames=decode)
            widths.add(part.actions.shape[1])
            if decode:
                sizes.add(part.frames.shape[1:])
                images.keep(position, part.frames[:-1])
            parts.append(replace(part, frames=part.frames[:, :0, :0].copy()))  # a view would hold them all
            bar.advance()
    if len(sizes) != 1 or len(widths) != 1:
        raise DataError(
            f"The episodes' images are of the shapes {sorted(sizes)}, their actions of {sorted(widths)} numbers.",
            "Train on one kind of data.",
        )
    return StepDataset(
        images_NHWC=images,
        instructions=tuple(part.meta.instruction for part in parts for _ in range(part.steps)),
        tokens_ND=torch.from_numpy(np.concatenate([part.action_tokens for part in parts]).astype(np.int64)),
        logps_ND=np.concatenate([part.token_logps for part in parts]),
        labels_ND=np.concatenate([part.labels for part in parts]),
        spans={name: (starts[i], starts[i + 1]) for i, name in enumerate(names)},
    )


def check_preprocessing(policy: "OpenVLAPolicy", metas: Sequence[EpisodeMeta], where: Path) -> None:
    """Compare how episodes were recorded with how the policy would read them.

    Raises:
        CompatibilityError: Nothing was sampled in an episode, or tokenizer, prompt, image preprocessing or
            normalisation
            differ: then the recorded tokens do not mean the same.
    """
    expected = policy.preprocessing_hash
    for meta in metas:
        if meta.actor != "policy":
            raise CompatibilityError(
                f"Episode {meta.episode_id} of {where} was played by an expert: it has no sampled tokens.",
                "Pairs for training come from 'grape collect --policy FOLDER'. Demonstrations are for 'grape sft'.",
            )
        if meta.preprocessing_hash != expected:
            raise CompatibilityError(
                f"Episode {meta.episode_id} of {where} was recorded with other preprocessing (prompt, images, "
                f"tokenizer, action bins or normalisation): {meta.preprocessing_hash[:12]}, the policy's is "
                f"{expected[:12]}.",
                "Train the policy that collected these episodes, or collect again with this one. For imported pairs "
                "give the import's --norm-stats and --unnorm-key.",
            )
        if meta.prompt != policy.prompt(meta.instruction):
            raise CompatibilityError(
                f"Episode {meta.episode_id} of {where} was recorded with the prompt {meta.prompt!r}, the policy reads "
                f"{policy.prompt(meta.instruction)!r}.",
                "Collect again with this version.",
            )
