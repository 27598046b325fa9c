"""Recorder that collects one episode and turns it into a trajectory."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from grape.collect.plan import PlannedEpisode
from grape.core.errors import SimulatorError
from grape.core.tasks import Task
from grape.core.trajectories import EpisodeMeta, Observation, Trajectory
from grape.envs.base import Snapshot

__all__ = ["EpisodeRecorder"]

Float32 = npt.NDArray[np.float32]


class EpisodeRecorder:
    """Collects snapshots and decisions of one episode in order.

    Args:
        task: The episode's task.
        planned: The episode's identity.
        display: Whether to keep the larger images.
        until: ``"success"`` ends the episode at its first success, ``"last-step"`` only after its last decision.
    """

    def __init__(self, task: Task, planned: PlannedEpisode, display: bool, until: str = "success") -> None:
        self.task = task
        self.planned = planned
        self._display = display
        self._until = until
        self._snapshots: list[Snapshot] = []
        self._actions: list[Float32] = []
        self._labels: list[Float32] = []
        self._tokens: list[npt.NDArray[np.int32]] = []
        self._logps: list[Float32] = []

    @property
    def over(self) -> bool:
        """Whether the episode ended: at the first success (unless it is to go on) or after the task's last decision.

        An episode that is solved at its reset ends after its first decision at the earliest, so that every
        trajectory has a step to learn from and to score.
        """
        solved = self._until == "success" and self._snapshots[-1].success
        return bool(self._actions) and (solved or len(self._actions) >= self.task.max_steps)

    @property
    def steps(self) -> int:
        """Decisions so far."""
        return len(self._actions)

    @property
    def observation(self) -> Observation:
        """The policy's current observation."""
        latest = self._snapshots[-1]
        return Observation(latest.image, latest.proprio, self.task.instruction)

    def record_state(self, snapshot: Snapshot) -> None:
        """Record the state that followed the last decision (or the reset).

        Raises:
            SimulatorError: A keypoint is not finite.
        """
        if not all(np.isfinite(point).all() for point in snapshot.keypoints.values()):
            raise SimulatorError(
                f"{self.planned.episode_id}: the simulator gave a keypoint that is not finite after decision "
                f"{self.steps}."
            )
        self._snapshots.append(snapshot)

    def record_decision(self, action: Float32, label: Float32, tokens: npt.NDArray[np.int32], logps: Float32) -> None:
        """Record a decision, ``(D,)`` each."""
        self._actions.append(action)
        self._labels.append(label)
        self._tokens.append(tokens)
        self._logps.append(logps)

    def trajectory(self, **facts: str | float | Mapping[str, str]) -> Trajectory:
        """The finished episode.

        Args:
            **facts: Remaining fields of :class:`~grape.core.trajectories.EpisodeMeta`: actor, temperature, hashes,
                prompt, versions.
        """
        first = self._snapshots[0]
        meta = EpisodeMeta(
            episode_id=self.planned.episode_id,
            suite=self.task.suite,
            task=self.task.name,
            task_index=self.task.index,
            instruction=self.task.instruction,
            initial_state=self.planned.initial_state,
            sample=self.planned.sample,
            seed=self.planned.seed,
            success=self._snapshots[-1].success,
            steps=self.steps,
            operator=self.planned.operator,
            extra=first.extra,
            until=self._until,
            **facts,  # type: ignore[arg-type]
        )
        signals = {
            name: np.array([snapshot.signals[name] for snapshot in self._snapshots], np.float32)
            for name in first.signals
        }
        signals["success"] = np.array([snapshot.success for snapshot in self._snapshots], np.float32)
        images = [snapshot.display for snapshot in self._snapshots if snapshot.display is not None]
        return Trajectory(
            meta=meta,
            frames=np.stack([snapshot.image for snapshot in self._snapshots]),
            proprio=np.stack([snapshot.proprio for snapshot in self._snapshots]).astype(np.float32),
            actions=np.stack(self._actions).astype(np.float32),
            labels=np.stack(self._labels).astype(np.float32),
            action_tokens=np.stack(self._tokens).astype(np.int32),
            token_logps=np.stack(self._logps).astype(np.float32),
            keypoints={
                name: np.stack([snapshot.keypoints[name] for snapshot in self._snapshots]).astype(np.float32)
                for name in first.keypoints
            },
            signals=signals,
            display=np.stack(images) if self._display and len(images) == len(self._snapshots) else None,
        )
