"""The steps of recorded episodes, one row each.

Images stay uint8 as recorded and go through the policy's own preprocessing when a micro-batch needs them: the same as
at collection, at a fifth of the memory of normalised ones.
"""

from collections import OrderedDict
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

if TYPE_CHECKING:
    from grape.policies.openvla import OpenVLAPolicy

__all__ = ["ImageCache", "StepDataset", "check_preprocessing", "load_steps"]


class ImageCache:
    """An array of images, uint8 ``(N, H, W, 3)``, that need not be in memory as a whole.

    Episodes stay decoded up to ``budget_bytes``; beyond that the one not used for longest goes. Training on whole
    trajectories reads an episode's rows one after the other, so few episodes at a time are enough.

    Args:
        episodes: Store and id of each episode, in the order of the rows.
        starts: First row of each episode, and the number of all rows at the end.
        budget_bytes: Memory for decoded images; the episode in use is kept in any case.

    Attributes:
        full: Whether an episode has not found room yet.
    """

    def __init__(
        self, episodes: Sequence[tuple[EpisodeSource, str]], starts: Sequence[int], budget_bytes: float
    ) -> None:
        self._episodes = tuple(episodes)
        self._starts = np.asarray(starts, dtype=np.int64)
        self._budget = budget_bytes
        self._held: OrderedDict[int, npt.NDArray[np.uint8]] = OrderedDict()
        self._bytes = 0
        self.full = False

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        """Images of the given rows, in that order, uint8 ``(B, H, W, 3)``.

        Raises:
            DataError: An episode cannot be read any more, or its images differ in shape from the others'.
        """
        rows = np.asarray(rows)
        owners = np.searchsorted(self._starts, rows, side="right") - 1
        found: npt.NDArray[np.uint8] | None = None
        for owner in np.unique(owners):
            images = self._images(int(owner))
            if found is None:
                found = np.empty((len(rows), *images.shape[1:]), dtype=np.uint8)
            mask = owners == owner
            if images.shape[1:] != found.shape[1:]:
                raise DataError(
                    f"Episode {self._episodes[owner][1]} has images of {images.shape[1:]}, others of "
                    f"{found.shape[1:]}.",
                    "Train on one kind of data.",
                )
            found[mask] = images[rows[mask] - self._starts[owner]]
        if found is None:
            raise IndexError("no rows")
        return found

    def keep(self, episode: int, images: npt.NDArray[np.uint8]) -> None:
        """Hold an episode's images that were decoded anyway, ``(T, H, W, 3)``, if they fit."""
        if self._bytes + images.nbytes <= self._budget:
            self._held[episode] = images
            self._bytes += images.nbytes
        else:
            self.full = True

    def _images(self, episode: int) -> npt.NDArray[np.uint8]:
        images = self._held.get(episode)
        if images is None:
            store, name = self._episodes[episode]
            images = store.read(name).frames[:-1]
            self._held[episode] = images
            self._bytes += images.nbytes
            while self._bytes > self._budget and len(self._held) > 1:
                self._bytes -= self._held.popitem(last=False)[1].nbytes
        self._held.move_to_end(episode)
        return images


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
            normalisation differ: then the recorded tokens do not mean the same.
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
