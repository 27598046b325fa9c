"""The steps of recorded episodes, one row each.

What was decided is read at the start, images when a micro-batch needs them (:mod:`grape.training.image_cache`). They
stay uint8 as recorded and go through the policy's own preprocessing, the same as at collection.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from grape.core.errors import CompatibilityError, DataError
from grape.core.events import Reporter
from grape.core.trajectories import EpisodeMeta
from grape.store import Decisions, EpisodeSource
from grape.training.image_cache import ImageCache

if TYPE_CHECKING:
    from grape.policies.openvla import OpenVLAPolicy

__all__ = ["StepDataset", "check_preprocessing", "check_proprio_widths", "check_single_actions", "load_steps"]


@dataclass(frozen=True, eq=False)
class StepDataset:
    """``N`` steps of several episodes, episode after episode.

    Attributes:
        images_NHWC: Image before each decision, uint8; indexed with arrays of rows.
        instructions: What the policy was told at each step, ``N`` strings.
        tokens_ND: Sampled action tokens, int64; -1 where nothing was sampled.
        logps_ND: Recorded log-probability of each token, float32; NaN where nothing was sampled.
        labels_ND: What an imitator should learn, un-normalized, float32.
        spans: Half-open range [start, stop) of rows, by episode id.
        proprio_NP: Robot state before each decision as recorded, float32; None where the policy reads none.
    """

    images_NHWC: ImageCache
    instructions: tuple[str, ...]
    tokens_ND: Tensor
    logps_ND: npt.NDArray[np.float32]
    labels_ND: npt.NDArray[np.float32]
    spans: Mapping[str, tuple[int, int]]
    proprio_NP: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.instructions)

    def proprio_of(self, rows_B: npt.NDArray[np.integer]) -> npt.NDArray[np.float32] | None:
        """Robot states of some rows, ``(B, P)``; None where the policy reads none."""
        return None if self.proprio_NP is None else self.proprio_NP[rows_B]

    def episode_of(self, row: int) -> str:
        """Id of the episode that a row belongs to."""
        return next(name for name, (start, stop) in self.spans.items() if start <= row < stop)


def check_single_actions(stores: Iterable[EpisodeSource]) -> None:
    """Refuse episodes of policies that decide otherwise than those that are trained here.

    Raises:
        CompatibilityError: Decisions are on several actions, or log-probabilities of another support or temperature.
        DataError: What a store says of its decisions is no mapping.
    """
    for store in stores:
        if (chunks := store.contract.get("chunks")) is not None:
            if not isinstance(chunks, Mapping):
                raise DataError(f"{store.path}: 'chunks' of the contract is {chunks!r:.60}.", "Collect it again.")
            raise _other_decisions(store.path, *(chunks.get(name) for name in ("length", "support", "temperature")))


def _other_decisions(where: Path, length: object, support: object, temperature: object) -> CompatibilityError:
    sampled = f"log-probabilities over the {support} at temperature {temperature}" if support else "no tokens"
    return CompatibilityError(
        f"The episodes of {where} are of a policy that decides on {length} action{'s' * (length != 1)} at once, with "
        f"{sampled}. What is trained here decides on one, with log-probabilities over the vocabulary at temperature 1.",
        "Collect with an OpenVLA policy to train on, or evaluate this one with 'grape evaluate'.",
    )


def load_steps(
    stores: Sequence[EpisodeSource],
    episodes: Sequence[Sequence[str]],
    reporter: Reporter,
    image_bytes: float = 4e9,
    *,
    scattered: bool = False,
    proprio: bool = False,
) -> StepDataset:
    """Read the decisions of episodes; no image is decoded.

    A damaged image is found when it is needed: training stops there, and goes on from its checkpoint once the file is
    restored. ``EpisodeStore.verify`` reads everything.

    Args:
        stores: Where they are.
        episodes: Ids to read from each store; ids that stand in several stores are prefixed with the store's number.
        reporter: Progress.
        image_bytes: Memory for decoded images; beyond it they are read again when needed.
        scattered: Whether updates take single steps of more episodes than that memory holds.
        proprio: Whether the policy reads the robot's state.

    Raises:
        DataError: An episode is damaged, images or actions differ in shape, or so do robot states that are read.
        CompatibilityError: Decisions are on several actions, see :func:`check_single_actions`.
    """
    check_single_actions(stores)
    names: dict[str, tuple[EpisodeSource, str]] = {}
    for number, (store, ids) in enumerate(zip(stores, episodes, strict=True)):
        for episode_id in ids:
            names[episode_id if episode_id not in names else f"{number}/{episode_id}"] = (store, episode_id)
    parts: list[Decisions] = []
    instructions: list[str] = []
    with reporter.progress("read episodes", len(names)) as bar:
        for store, episode_id in names.values():
            parts.append(store.decisions(episode_id))
            if (chunks := parts[-1].chunks) is not None:
                raise _other_decisions(store.path, *chunks.facts())
            instructions += [store.meta(episode_id).instruction] * len(parts[-1].labels)
            bar.advance()
    shapes, widths = {part.image_shape for part in parts}, {part.labels.shape[1] for part in parts}
    if len(shapes) != 1 or len(widths) != 1:
        raise DataError(
            f"The episodes' images are of the shapes {sorted(shapes)}, their actions of {sorted(widths)} numbers.",
            "Train on one kind of data.",
        )
    if proprio:
        check_proprio_widths({name: part.proprio.shape[1] for name, part in zip(names, parts, strict=True)})
    (shape,) = shapes
    starts = np.cumsum([0, *(len(part.labels) for part in parts)]).tolist()
    return StepDataset(
        images_NHWC=ImageCache(list(names.values()), starts, shape, image_bytes, scattered=scattered),
        instructions=tuple(instructions),
        tokens_ND=torch.from_numpy(np.concatenate([part.tokens for part in parts]).astype(np.int64)),
        logps_ND=np.concatenate([part.logps for part in parts]),
        labels_ND=np.concatenate([part.labels for part in parts]),
        spans={name: (starts[i], starts[i + 1]) for i, name in enumerate(names)},
        proprio_NP=np.concatenate([part.proprio for part in parts]) if proprio else None,
    )


def check_proprio_widths(widths: Mapping[str, int]) -> None:
    """Refuse robot states that one policy cannot read.

    Args:
        widths: Numbers of the robot's state by episode.

    Raises:
        DataError: An episode has none, or two have different ones.
    """
    first, width = next(iter(widths.items()))
    for name, other in widths.items():
        if not other:
            raise DataError(
                f"Episode {name} has no robot state, which the policy shall read.",
                "Use episodes that 'grape collect' recorded, or train a policy that reads images alone.",
            )
        if other != width:
            raise DataError(
                f"The robot's state has {width} numbers in episode {first}, {other} in episode {name}.",
                "Train on one kind of robot, or on images alone.",
            )


def check_preprocessing(policy: "OpenVLAPolicy", metas: Sequence[EpisodeMeta], where: Path) -> None:
    """Compare how episodes were recorded with how the policy would read them.

    Raises:
        CompatibilityError: Nothing was sampled in an episode, or tokenizer, prompt, image preprocessing or
            normalization differ: then the recorded tokens do not mean the same.
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
                f"tokenizer, action bins or normalization): {meta.preprocessing_hash[:12]}, the policy's is "
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
