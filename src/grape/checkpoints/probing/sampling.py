"""Decisions of demonstrations that ``probe`` scores: a seeded sample over tasks and episodes, and their contents."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from grape.core.chunks import cut_chunks
from grape.core.errors import CompatibilityError, DataError
from grape.core.events import Reporter
from grape.core.seeds import derive_rng
from grape.core.tasks import GripperConvention, RotationConvention
from grape.core.trajectories import EpisodeMeta
from grape.policies.action_conventions import roll_pitch_yaw_from_axis_angle
from grape.policies.probes import Probe, ProbeBatch
from grape.store import Decisions, EpisodeSource
from grape.store.rlds.standardize import gripper_from_loader

__all__ = ["SampledDecision", "Sampler", "choose_episodes"]

Item = TypeVar("Item")
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SampledDecision:
    """One decision of a demonstration.

    Attributes:
        episode_id: Its episode.
        task: That episode's task.
        position: On the episode's decision axis, where an image was recorded.
        step: Its control step.
    """

    episode_id: str
    task: str
    position: int
    step: int


def choose_episodes(source: EpisodeSource, count: int, seed: int) -> list[EpisodeMeta]:
    """At most ``count`` episodes, one task after the other, so that each task has its share.

    Rollouts of a policy that are known to have failed demonstrate nothing and are left out; of experts the labels are
    right whatever became of the noise that was added.

    Raises:
        DataError: There are none.
    """
    metas = [meta for meta in source.metas() if meta.actor == "expert" or meta.success is not False]
    metas = [meta for meta in metas if meta.steps > 0]
    if not metas:
        raise DataError(
            f"{source.path} holds no demonstration: no episode of an expert, and none of a policy that succeeded.",
            "Collect some with 'grape collect --policy expert', or name a data set as rlds:/path/name.",
        )
    tasks = _shuffled(sorted({meta.task for meta in metas}), seed, "probe", "tasks")
    return _in_turn(_shuffled([meta for meta in metas if meta.task == task], seed, "probe", task) for task in tasks)[
        :count
    ]


def _shuffled(items: Sequence[Item], *seed: int | str) -> list[Item]:
    return [items[index] for index in derive_rng(*seed).permutation(len(items))]


def _in_turn(groups: Iterable[Sequence[Item]]) -> list[Item]:
    """The first item of each group, then the second of each that has one, and so on."""
    rounds = itertools.zip_longest(*([(item,) for item in group] for group in groups), fillvalue=())
    return [item for row in rounds for cell in row for item in cell]


class Sampler:
    """Reads a sample of decisions in the checkpoint's own terms.

    Args:
        source: Demonstrations.
        probe: The checkpoint.
        count: Decisions to sample; fewer where there are not so many.
        seed: Seed of the sample.
        reporter: Told what is assumed.

    Attributes:
        decisions: The sample, episode after episode.
        instructions: What its episodes were told, sorted.

    Raises:
        CompatibilityError: Actions, gripper, cameras or robot states are not what the checkpoint decides or reads.
        DataError: There are no demonstrations, fewer than two decisions, or an episode is damaged.
    """

    def __init__(self, source: EpisodeSource, probe: Probe, count: int, seed: int, reporter: Reporter) -> None:
        self._source = source
        self._probe = probe
        self._gripper, self._rotation = _conversions(source, probe, reporter)
        metas = choose_episodes(source, count, seed)
        if any(meta.actor != "expert" for meta in metas):
            reporter.warn(
                f"Some episodes of {source.path} were decided by a policy: what fits best is what that policy was run "
                "with, which need not be what this one was trained with."
            )
        self._metas = {meta.episode_id: meta for meta in metas}
        self._decisions = {meta.episode_id: self._checked(meta.episode_id) for meta in metas}
        self.decisions = self._sample(count, seed)
        if len(self.decisions) < 2:
            raise DataError(
                f"{source.path} holds a single decision: nothing can be measured.", "Give more demonstrations."
            )
        self.instructions = sorted({meta.instruction for meta in metas})
        for camera in self._probe.cameras[1:]:  # an image of each is read, so that what lacks is told before weights
            self._camera_images(self.decisions[0].episode_id, [self.decisions[0].position], camera)

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks in the sample, sorted."""
        return sorted({decision.task for decision in self.decisions})

    def _checked(self, episode_id: str) -> Decisions:
        decisions = self._source.decisions(episode_id)
        where = f"Episode {episode_id} of {self._source.path}"
        dim = decisions.labels.shape[1]
        if dim != self._probe.action_dim:
            raise CompatibilityError(
                f"{where} has actions of {dim} dimensions; under its statistics {self._probe.unnorm_key!r} the "
                f"checkpoint decides {self._probe.action_dim}.",
                "Use demonstrations of the checkpoint's robot, or choose other statistics with --unnorm-key.",
            )
        if not np.isfinite(decisions.labels).all():
            raise DataError(f"{where} has labels that are not finite.", "Leave that episode out.")
        needed, width = self._probe.proprio_dim, decisions.proprio.shape[1]
        if needed and width != needed:
            raise CompatibilityError(
                f"The checkpoint reads {needed} numbers of the robot's state; {where[0].lower()}{where[1:]} has "
                f"{width or 'none'}.",
                "Use an episode store of the checkpoint's robot: RLDS data sets are read without the state.",
            )
        return decisions

    def _sample(self, count: int, seed: int) -> list[SampledDecision]:
        """Decisions of each task and episode in turn, then sorted, so that a file is read once."""
        tasks: dict[str, list[list[SampledDecision]]] = {}
        for episode_id, decisions in self._decisions.items():
            starts = np.arange(len(decisions.labels)) if decisions.chunks is None else decisions.chunks.starts
            task = self._metas[episode_id].task
            entries = [SampledDecision(episode_id, task, place, int(start)) for place, start in enumerate(starts)]
            tasks.setdefault(task, []).append(_shuffled(entries, seed, "probe", "decisions", episode_id))
        chosen = _in_turn([_in_turn(episodes) for episodes in tasks.values()])[:count]
        return sorted(chosen, key=lambda decision: (decision.task, decision.episode_id, decision.step))

    def labels(self, decisions: Sequence[SampledDecision]) -> tuple[Float32, npt.NDArray[np.bool_]]:
        """Demonstrated chunks in the checkpoint's convention, ``(N, K, D)``, and what lies in episodes, ``(N, K)``."""
        parts = []
        for decision in decisions:
            labels = self._converted(self._decisions[decision.episode_id].labels)
            parts.append(cut_chunks(labels, np.array([decision.step]), self._probe.chunk))
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def read(self, decisions: Sequence[SampledDecision]) -> ProbeBatch:
        """Images, instructions, labels and states of some decisions, which stand episode after episode.

        Raises:
            CompatibilityError: A further camera's images are missing.
            DataError: An episode is damaged.
        """
        images: list[list[npt.NDArray[np.uint8]]] = []
        for episode_id in dict.fromkeys(decision.episode_id for decision in decisions):
            positions = [decision.position for decision in decisions if decision.episode_id == episode_id]
            views = [self._source.images(episode_id, positions)]
            views += [self._camera_images(episode_id, positions, camera) for camera in self._probe.cameras[1:]]
            images += [list(row) for row in zip(*views, strict=True)]
        states = [self._decisions[decision.episode_id].proprio[decision.step] for decision in decisions]
        return ProbeBatch(
            images,
            [self._metas[decision.episode_id].instruction for decision in decisions],
            *self.labels(decisions),
            np.stack(states) if self._probe.proprio_dim else None,
        )

    def _converted(self, labels: Float32) -> Float32:
        """Labels in the checkpoint's convention."""
        if self._rotation:
            labels = roll_pitch_yaw_from_axis_angle(labels)
        return gripper_from_loader(labels, self._gripper) if self._gripper else labels

    def _camera_images(self, episode_id: str, positions: Sequence[int], camera: str) -> npt.NDArray[np.uint8]:
        try:
            return self._source.images(episode_id, positions, camera)
        except DataError as error:
            if "camera" not in error.message:
                raise
            raise CompatibilityError(
                f"The checkpoint reads images of {len(self._probe.cameras)} cameras ({', '.join(self._probe.cameras)}"
                f"); {self._source.path} has none of {camera!r}.",
                "Use demonstrations recorded with these cameras. Of a checkpoint that does not say how many it reads, "
                "--cameras does.",
            ) from error


def _conversions(source: EpisodeSource, probe: Probe, reporter: Reporter) -> tuple[str, bool]:
    """The gripper's convention that labels are converted to (empty: they stay), and whether rotations are."""
    space: Any = source.contract.get("action_space") or {}
    recorded, rotation = str(space.get("gripper", "")), str(space.get("rotation", ""))
    converts = (probe.rotation, rotation) == (RotationConvention.ROLL_PITCH_YAW, RotationConvention.AXIS_ANGLE)
    loader = GripperConvention.ONE_OPENS
    if not probe.gripper:
        if recorded not in ("", loader, GripperConvention.NONE):
            reporter.warn(
                f"In the demonstrations the last action dimension means {recorded!r}; the checkpoint does not say what "
                f"it means there. Published ones mean {str(loader.value)!r}: then nothing fits these demonstrations."
            )
        return "", converts
    if recorded in ("", probe.gripper):
        return "", converts
    if recorded == loader:
        return probe.gripper, converts
    raise CompatibilityError(
        f"In the demonstrations the last action dimension means {recorded!r}, to the checkpoint {probe.gripper!r}.",
        "Use demonstrations of the suite that the checkpoint was trained for, or export them with 'grape export rlds'.",
    )
