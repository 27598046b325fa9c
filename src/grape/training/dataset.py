"""The decisions of recorded episodes, one row each.

What was decided is read at the start and checked (:mod:`grape.training.episode_rows`), images when a micro-batch needs
them (:mod:`grape.training.image_cache`). They stay uint8 as recorded and go through the policy's own preprocessing, the
same as at collection.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from sys import intern
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from grape.core.chunks import chunk_steps
from grape.core.errors import CompatibilityError, DataError
from grape.core.events import Reporter
from grape.core.trajectories import Observation
from grape.store import Decisions, EpisodeSource
from grape.training.data_checks import check_proprio_widths, other_decisions
from grape.training.decision_axis import DecisionAxis
from grape.training.episode_rows import Column, DecisionCache, EpisodeDecisions, Rows
from grape.training.image_cache import ImageCache

if TYPE_CHECKING:
    from grape.policies.base import PolicySpec

__all__ = ["StepDataset", "load_steps"]

_NO_IMAGE: npt.NDArray[np.uint8] = np.zeros((0, 0, 3), dtype=np.uint8)
_NO_STATE: npt.NDArray[np.float32] = np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class StepDataset:
    """``N`` decisions of several episodes, episode after episode; ``T`` control steps in all.

    With one action a decision, each control step is a decision of its own (``K = 1``, ``N = T``). What is held of an
    episode does not grow with its steps, but where its policy acts in chunks by the 8 bytes of a decision's bound:
    :class:`~grape.training.episode_rows.Rows` are read when they are needed.

    Attributes:
        images_NHWC: The main camera's image before each decision, uint8.
        instructions: What the policy was told in each episode.
        tokens_NKD: Sampled tokens of a chunk's ``K`` actions, executed or not, int64; -1 where nothing was sampled.
        logps_NKD: Recorded log-probability of each token, float32; NaN where nothing was sampled.
        labels_TD: What an imitator should learn at each control step, un-normalized, float32.
        axis: Where decisions begin on the table's control steps.
        spans: Half-open range [start, stop) of rows, by episode id.
        chunk: Length of the chunks that whoever imitates learns, not that of the recorded tokens.
        proprio_NP: Robot state before each decision as recorded, float32; None where the policy reads none.
        cameras: Images of further cameras before each decision, by name, as ``images_NHWC``.
        unsampled: Numbers of episodes in which an executed token has no finite recorded log-probability.
        unlabeled: Numbers of episodes with labels that are not finite.
    """

    images_NHWC: Rows
    instructions: Sequence[str]
    tokens_NKD: Rows
    logps_NKD: Rows
    labels_TD: Rows
    axis: DecisionAxis
    spans: Mapping[str, tuple[int, int]]
    chunk: int = 1
    proprio_NP: Rows | None = None
    cameras: Mapping[str, Rows] = field(default_factory=dict)
    unsampled: Sequence[int] = ()
    unlabeled: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.axis)

    @property
    def step_spans(self) -> Mapping[str, tuple[int, int]]:
        """Half-open range [start, stop) of the table's control steps, by episode id."""
        if self.axis.bounds is None:
            return self.spans
        return {name: self.axis.steps_of(span) for name, span in self.spans.items()}

    def executed_mask(self, rows_B: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Which actions of some decisions' chunks were executed, bool ``(B, K)``."""
        mask: npt.NDArray[np.bool_] = np.arange(self.tokens_NKD.shape[1]) < self.axis.executed(rows_B)[:, None]
        return mask

    def chunk_labels(self, rows_B: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """What an imitator of chunks should learn at some decisions: the labels from their first control steps on.

        Returns:
            float32 ``(B, chunk, D)``, the episode's last label repeated beyond its end; and which actions lie within
            the episode, bool ``(B, chunk)``.
        """
        rows = np.asarray(rows_B)
        stops_B = self.axis.first_steps(self._starts[self._episodes_of(rows) + 1])
        steps_BK, inside_BK = chunk_steps(self.axis.first_steps(rows), self.chunk, stops_B)
        return self.labels_TD[steps_BK.ravel()].reshape(*steps_BK.shape, -1), inside_BK

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
                main[place],
                states[place],
                self.instructions[episode],
                {name: some[place] for name, some in others.items()},
            )
            for place, episode in enumerate(self._episodes_of(rows).tolist())
        ]

    def episode_of(self, row: int) -> str:
        """Id of the episode that a row belongs to."""
        return self.episode_id(int(self._episodes_of(np.array([row]))[0]))

    def episode_id(self, number: int) -> str:
        """Id of an episode by its number."""
        return list(self.spans)[number]

    def _episodes_of(self, rows_B: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """Numbers of the episodes that rows belong to."""
        return self._starts.searchsorted(rows_B, "right") - 1

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        """First row of each episode, and the number of all rows at the end, int64 ``(E + 1,)``."""
        return np.array([0, *(stop for _, stop in self.spans.values())], dtype=np.int64)


def load_steps(
    stores: Sequence[EpisodeSource],
    episodes: Sequence[Sequence[str]],
    reporter: Reporter,
    image_bytes: float = 4e9,
    *,
    decision_bytes: float = 32e6,
    scattered: bool = False,
    proprio: bool = False,
    cameras: Sequence[str] = (),
    chunk: int = 1,
    spec: "PolicySpec | None" = None,
) -> StepDataset:
    """Read the decisions of episodes once, and again those that have left memory; no image is decoded.

    A damaged image is found when it is needed: training stops there, and goes on from its checkpoint once the file is
    restored. ``EpisodeStore.verify`` reads everything.

    Args:
        stores: Where they are.
        episodes: Ids to read from each store; ids that stand in several stores are prefixed with the store's number.
        reporter: Progress.
        image_bytes: Memory for decoded images; beyond it they are read again when needed.
        decision_bytes: The same for decisions.
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
    places = list(names.values())
    cache = DecisionCache(places, decision_bytes)
    table = _TableFacts()
    with reporter.progress("read episodes", len(names)) as bar:
        for number, (name, (store, episode_id)) in enumerate(names.items()):
            part = store.decisions(episode_id)
            _check_cameras(name, part, cameras)
            if spec is not None and part.facts() != (due := (spec.chunk, spec.support, spec.logp_temperature)):
                raise other_decisions(f"The policy of episode {name}", part.facts(), "The policy to train", due)
            table.add(name, part, store.meta(episode_id).instruction)
            cache.keep(number, EpisodeDecisions.of(part))
            bar.advance()
    table.check(cameras, proprio=proprio)
    rows, steps = (np.cumsum([0, *counts], dtype=np.int64) for counts in (table.decisions, table.steps))
    room, crowded = image_bytes / (1 + len(cameras)), bool(table.camera_shapes)

    def images(shape: tuple[int, int, int], camera: str = "") -> ImageCache:
        return ImageCache(places, rows, shape, room, scattered=scattered, camera=camera, crowded=crowded)

    (shape,), (dim,) = table.image_shapes, table.action_dims
    return StepDataset(
        images_NHWC=images(shape),
        instructions=table.instructions,
        tokens_NKD=Column(cache, "tokens_NKD", rows, (table.length, dim), np.int64, fill=-1),
        logps_NKD=Column(cache, "logps_NKD", rows, (table.length, dim), np.float32, fill=np.nan),
        labels_TD=Column(cache, "labels_TD", steps, (dim,), np.float32),
        axis=table.axis(),
        spans={name: (int(rows[i]), int(rows[i + 1])) for i, name in enumerate(names)},
        chunk=chunk,
        proprio_NP=Column(cache, "proprio_NP", rows, (table.proprio_dim,), np.float32) if proprio else None,
        cameras={name: images(next(iter(table.camera_shapes[name])), name) for name in cameras},
        unsampled=table.unsampled,
        unlabeled=table.unlabeled,
    )


class _TableFacts:
    """What is held of each episode that was read, and what the episodes must agree on."""

    def __init__(self) -> None:
        self.decisions: list[int] = []
        self.steps: list[int] = []
        self.instructions: list[str] = []
        self.unsampled: list[int] = []
        self.unlabeled: list[int] = []
        self.image_shapes: set[tuple[int, int, int]] = set()
        self.action_dims: set[int] = set()
        self.camera_shapes: dict[str, set[tuple[int, int, int]]] = {}
        self.length = 1
        self._executed: list[npt.NDArray[np.int32]] = []
        self._plain = True
        self._proprio_dims: dict[str, int] = {}

    def add(self, name: str, part: Decisions, instruction: str) -> None:
        """Add an episode."""
        if not np.isfinite(part.logps).all():
            self.unsampled.append(len(self.steps))
        if not np.isfinite(part.labels).all():
            self.unlabeled.append(len(self.steps))
        executed = part.executed
        if part.chunks is not None and self._plain and bool((executed != 1).any()):
            self._executed = [np.ones(count, np.int32) for count in self.decisions]
            self._plain = False
        if not self._plain:
            self._executed.append(executed)
        self.decisions.append(len(executed))
        self.steps.append(len(part.labels))
        self.instructions.append(intern(instruction))
        self.image_shapes.add(part.image_shape)
        self.action_dims.add(part.labels.shape[1])
        for camera, shape in part.camera_shapes.items():
            self.camera_shapes.setdefault(camera, set()).add(shape)
        self.length = max(self.length, part.facts()[0])
        self._proprio_dims[name] = part.proprio.shape[1]

    def check(self, cameras: Sequence[str], *, proprio: bool) -> None:
        """Refuse episodes of different kinds of data.

        Raises:
            DataError: Images or actions differ in shape, or so do robot states that are read.
        """
        if len(self.image_shapes) != 1 or len(self.action_dims) != 1:
            raise DataError(
                f"The episodes' images are of the shapes {sorted(self.image_shapes)}, their actions of "
                f"{sorted(self.action_dims)} numbers.",
                "Train on one kind of data.",
            )
        for camera in cameras:
            if len(others := self.camera_shapes[camera]) != 1:
                raise DataError(
                    f"The episodes' images of camera {camera!r} are of the shapes {sorted(others)}.",
                    "Train on one kind of data.",
                )
        if proprio:
            check_proprio_widths(self._proprio_dims)

    @property
    def proprio_dim(self) -> int:
        """Numbers of the robot's state."""
        return next(iter(self._proprio_dims.values()))

    def axis(self) -> DecisionAxis:
        """Where the decisions begin."""
        return DecisionAxis.plain(sum(self.steps)) if self._plain else DecisionAxis.of(np.concatenate(self._executed))


def _check_cameras(name: str, part: Decisions, cameras: Sequence[str]) -> None:
    if missing := [camera for camera in cameras if camera not in part.camera_shapes]:
        there = ", ".join(["the main camera", *part.camera_shapes])
        raise CompatibilityError(
            f"The policy reads images of {', '.join(cameras)} beside the main camera's; episode {name} has none of "
            f"{', '.join(missing)}, but of {there}.",
            "Collect with these cameras, or use a policy that reads the main camera alone.",
        )
