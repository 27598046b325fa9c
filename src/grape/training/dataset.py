"""The decisions of recorded episodes, one row each.

What was decided is read at the start, images when a micro-batch needs them (:mod:`grape.training.image_cache`). They
stay uint8 as recorded and go through the policy's own preprocessing, the same as at collection.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from grape.core.chunks import PLAIN, cut_chunks
from grape.core.errors import CompatibilityError, DataError
from grape.core.events import Reporter
from grape.core.trajectories import EpisodeMeta, Observation
from grape.store import Decisions, EpisodeSource
from grape.training.decision_axis import DecisionAxis
from grape.training.image_cache import ImageCache

if TYPE_CHECKING:
    from grape.policies.base import PolicySpec

__all__ = ["StepDataset", "check_decisions", "check_preprocessing", "check_proprio_widths", "load_steps"]

_NO_IMAGE: npt.NDArray[np.uint8] = np.zeros((0, 0, 3), dtype=np.uint8)
_NO_STATE: npt.NDArray[np.float32] = np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class StepDataset:
    """``N`` decisions of several episodes, episode after episode; ``T`` control steps in all.

    With one action a decision, each control step is a decision of its own (``K = 1``, ``N = T``).

    Attributes:
        images_NHWC: The main camera's image before each decision, uint8; indexed with arrays of rows.
        instructions: What the policy was told at each decision, ``N`` strings.
        tokens_NKD: Sampled tokens of a chunk's ``K`` actions, executed or not, int64; -1 where nothing was sampled.
        logps_NKD: Recorded log-probability of each token, float32; NaN where nothing was sampled.
        executed_N: Executed actions of each decision, int64, 1 to ``K``.
        starts_N: First control step of each decision within its episode, int64.
        labels_TD: What an imitator should learn at each control step, un-normalized, float32.
        labels_NKD: The labels from each decision's first control step on, cut to the chunks of whoever learns them
            (their ``K`` is not that of the recorded tokens), float32; beyond an episode's end its last one.
        inside_NK: Which of ``labels_NKD`` lie within the episode, bool.
        spans: Half-open range [start, stop) of rows, by episode id.
        proprio_NP: Robot state before each decision as recorded, float32; None where the policy reads none.
        cameras: Images of further cameras before each decision, by name, as ``images_NHWC``.
    """

    images_NHWC: ImageCache
    instructions: tuple[str, ...]
    tokens_NKD: Tensor
    logps_NKD: npt.NDArray[np.float32]
    executed_N: npt.NDArray[np.int64]
    starts_N: npt.NDArray[np.int64]
    labels_TD: npt.NDArray[np.float32]
    labels_NKD: npt.NDArray[np.float32]
    inside_NK: npt.NDArray[np.bool_]
    spans: Mapping[str, tuple[int, int]]
    proprio_NP: npt.NDArray[np.float32] | None = None
    cameras: Mapping[str, ImageCache] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.instructions)

    @property
    def axis(self) -> DecisionAxis:
        """Where decisions begin on the table's control steps."""
        return DecisionAxis.of(self.executed_N)

    @property
    def step_spans(self) -> Mapping[str, tuple[int, int]]:
        """Half-open range [start, stop) of the table's control steps, by episode id."""
        axis = self.axis
        return {name: axis.steps_of(span) for name, span in self.spans.items()}

    @property
    def executed_mask(self) -> npt.NDArray[np.bool_]:
        """Which actions of each chunk were executed, bool ``(N, K)``."""
        mask: npt.NDArray[np.bool_] = np.arange(self.tokens_NKD.shape[1]) < self.executed_N[:, None]
        return mask

    def observations(self, rows_B: npt.NDArray[np.integer], *, images: bool = True) -> list[Observation]:
        """What the policy saw before some decisions.

        Args:
            rows_B: Which rows, in any order.
            images: Whether images are read; without, they are empty, for whoever has features of them.
        """
        rows = np.asarray(rows_B)
        main = self.images_NHWC[rows] if images else [_NO_IMAGE] * len(rows)
        others = {name: cache[rows] for name, cache in self.cameras.items()} if images else {}
        states = [_NO_STATE] * len(rows) if self.proprio_NP is None else self.proprio_NP[rows]
        return [
            Observation(
                main[place], states[place], self.instructions[row], {name: some[place] for name, some in others.items()}
            )
            for place, row in enumerate(rows.tolist())
        ]

    def episode_of(self, row: int) -> str:
        """Id of the episode that a row belongs to."""
        return next(name for name, (start, stop) in self.spans.items() if start <= row < stop)


def check_decisions(stores: Iterable[EpisodeSource], spec: "PolicySpec | None" = None) -> None:
    """Refuse sampled episodes whose decisions are not all of one kind, or not of the kind of the policy to train.

    Log-probabilities of chunks of another length, over another support or at another temperature are of other events:
    none of them can be the reference of the others.

    Args:
        stores: Where the episodes are.
        spec: Contract of the policy to train; None compares the stores with each other alone.

    Raises:
        CompatibilityError: Chunk length, support or temperature differ, or the episodes have no tokens.
        DataError: What a store says of its decisions is no mapping.
    """
    expected: tuple[str, tuple[object, ...]] | None = None
    if spec is not None:
        expected = "The policy to train", (spec.chunk, spec.support, spec.logp_temperature)
    for store in stores:
        chunks = store.contract.get("chunks")
        if chunks is not None and not isinstance(chunks, Mapping):
            raise DataError(f"{store.path}: 'chunks' of the contract is {chunks!r:.60}.", "Collect it again.")
        names = ("length", "support", "temperature")
        facts: tuple[object, ...] = PLAIN if chunks is None else tuple(chunks.get(name) for name in names)
        who = f"The policy of the episodes of {store.path}"
        if not facts[1]:
            raise CompatibilityError(
                f"{who} has no action tokens, so nothing says how likely its actions were.",
                "Use its episodes as demonstrations ('grape sft'), or collect with a policy that has tokens.",
            )
        if expected is None:
            expected = who, facts
        elif facts != expected[1]:
            raise _other_decisions(who, facts, *expected)


def _other_decisions(
    who: str, facts: tuple[object, ...], other: str, expected: tuple[object, ...]
) -> CompatibilityError:
    return CompatibilityError(
        f"{who} {_described(facts)}. {other} {_described(expected)}. Log-probabilities of the one are not comparable "
        "with the other's.",
        "Train the policy that collected these episodes, with the conventions of that collection, or collect again "
        "with this one. As demonstrations ('grape sft') both serve.",
    )


def _described(facts: tuple[object, ...]) -> str:
    length, support, temperature = facts
    sampled = f"log-probabilities over the {support} at temperature {temperature:g}" if support else "no tokens"
    return f"decides on {length} action{'s' * (length != 1)} at once, with {sampled}"


def load_steps(
    stores: Sequence[EpisodeSource],
    episodes: Sequence[Sequence[str]],
    reporter: Reporter,
    image_bytes: float = 4e9,
    *,
    scattered: bool = False,
    proprio: bool = False,
    cameras: Sequence[str] = (),
    chunk: int = 1,
    spec: "PolicySpec | None" = None,
) -> StepDataset:
    """Read the decisions of episodes; no image is decoded.

    A damaged image is found when it is needed: training stops there, and goes on from its checkpoint once the file is
    restored. ``EpisodeStore.verify`` reads everything.

    Args:
        stores: Where they are.
        episodes: Ids to read from each store; ids that stand in several stores are prefixed with the store's number.
        reporter: Progress.
        image_bytes: Memory for decoded images; beyond it they are read again when needed.
        scattered: Whether updates take single decisions of more episodes than that memory holds.
        proprio: Whether the policy reads the robot's state.
        cameras: Names of further cameras that the policy reads.
        chunk: Length of the chunks that labels are cut to.
        spec: Contract of a policy whose sampled tokens the episodes must hold; None takes decisions of any kind, whose
            tokens are then padded with -1 to the longest chunk.

    Raises:
        DataError: An episode is damaged, images or actions differ in shape, or so do robot states that are read.
        CompatibilityError: An episode lacks images of a camera, or its decisions are not those of ``spec``.
    """
    names: dict[str, tuple[EpisodeSource, str]] = {}
    for number, (store, ids) in enumerate(zip(stores, episodes, strict=True)):
        for episode_id in ids:
            names[episode_id if episode_id not in names else f"{number}/{episode_id}"] = (store, episode_id)
    parts: list[Decisions] = []
    instructions: list[str] = []
    with reporter.progress("read episodes", len(names)) as bar:
        for name, (store, episode_id) in names.items():
            part = store.decisions(episode_id)
            _check_cameras(name, part, cameras)
            if spec is not None and part.facts() != (due := (spec.chunk, spec.support, spec.logp_temperature)):
                raise _other_decisions(f"The policy of episode {name}", part.facts(), "The policy to train", due)
            parts.append(part)
            instructions += [store.meta(episode_id).instruction] * len(part.executed)
            bar.advance()
    shapes, widths = {part.image_shape for part in parts}, {part.labels.shape[1] for part in parts}
    if len(shapes) != 1 or len(widths) != 1:
        raise DataError(
            f"The episodes' images are of the shapes {sorted(shapes)}, their actions of {sorted(widths)} numbers.",
            "Train on one kind of data.",
        )
    for camera in cameras:
        if len(others := {part.camera_shapes[camera] for part in parts}) != 1:
            raise DataError(
                f"The episodes' images of camera {camera!r} are of the shapes {sorted(others)}.",
                "Train on one kind of data.",
            )
    if proprio:
        check_proprio_widths({name: part.proprio.shape[1] for name, part in zip(names, parts, strict=True)})
    rows = np.cumsum([0, *(len(part.executed) for part in parts)]).tolist()
    places, room = list(names.values()), image_bytes / (1 + len(cameras))
    crowded = any(part.camera_shapes for part in parts)

    def images(shape: tuple[int, int, int], camera: str = "") -> ImageCache:
        return ImageCache(places, rows, shape, room, scattered=scattered, camera=camera, crowded=crowded)

    length = max(part.facts()[0] for part in parts)
    sampled = [_padded(part, length) for part in parts]
    cut = [cut_chunks(part.labels, part.starts, chunk) for part in parts]
    return StepDataset(
        images_NHWC=images(shapes.pop()),
        instructions=tuple(instructions),
        tokens_NKD=torch.from_numpy(np.concatenate([tokens for tokens, _ in sampled]).astype(np.int64)),
        logps_NKD=np.concatenate([logps for _, logps in sampled]),
        executed_N=np.concatenate([part.executed for part in parts]).astype(np.int64),
        starts_N=np.concatenate([part.starts for part in parts]),
        labels_TD=np.concatenate([part.labels for part in parts]),
        labels_NKD=np.concatenate([labels for labels, _ in cut]),
        inside_NK=np.concatenate([inside for _, inside in cut]),
        spans={name: (rows[i], rows[i + 1]) for i, name in enumerate(names)},
        proprio_NP=np.concatenate([part.proprio[part.starts] for part in parts]) if proprio else None,
        cameras={name: images(parts[0].camera_shapes[name], name) for name in cameras},
    )


def _check_cameras(name: str, part: Decisions, cameras: Sequence[str]) -> None:
    if missing := [camera for camera in cameras if camera not in part.camera_shapes]:
        there = ", ".join(["the main camera", *part.camera_shapes])
        raise CompatibilityError(
            f"The policy reads images of {', '.join(cameras)} beside the main camera's; episode {name} has none of "
            f"{', '.join(missing)}, but of {there}.",
            "Collect with these cameras, or use a policy that reads the main camera alone.",
        )


def _padded(part: Decisions, length: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Sampled tokens and log-probabilities of an episode's decisions, ``(N, length, D)``."""
    tokens, logps = part.sampled()
    room = ((0, 0), (0, length - tokens.shape[1]), (0, 0))
    return np.pad(tokens, room, constant_values=-1), np.pad(logps, room, constant_values=np.nan)


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


def check_preprocessing(expected: str, prompt: Callable[[str], str], metas: Sequence[EpisodeMeta], where: Path) -> None:
    """Compare how episodes were recorded with how the policy would read them.

    Args:
        expected: The policy's hash of preprocessing, from its contract.
        prompt: The text the policy reads for an instruction.
        metas: Facts of the episodes.
        where: Where they lie, for messages.

    Raises:
        CompatibilityError: Nothing was sampled in an episode, or tokenizer, prompt, image preprocessing or
            normalization differ: then the recorded tokens do not mean the same.
    """
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
        if meta.prompt != prompt(meta.instruction):
            raise CompatibilityError(
                f"Episode {meta.episode_id} of {where} was recorded with the prompt {meta.prompt!r}, the policy reads "
                f"{prompt(meta.instruction)!r}.",
                "Collect again with this version.",
            )
