"""Recorder that collects one episode and turns it into a trajectory."""

from collections import deque
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from grape.collect.plan import PlannedEpisode
from grape.core.chunks import Chunks
from grape.core.errors import SimulatorError
from grape.core.tasks import Task
from grape.core.trajectories import EpisodeMeta, Observation, Trajectory
from grape.envs.base import Snapshot
from grape.policies.base import ActionBatch

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
        self._chosen: list[ActionBatch] = []  # one row each, where decisions are on several actions
        self._starts: list[int] = []
        self._pending: deque[tuple[Float32, Float32]] = deque()

    @property
    def over(self) -> bool:
        """Whether the episode ended: by the simulator, at the first success (unless it is to go on) or by its length.

        An episode that is solved at its reset ends after its first decision at the earliest, so that every
        trajectory has a step to learn from and to score.
        """
        latest = self._snapshots[-1]
        ended = latest.terminated or (self._until == "success" and bool(latest.success))
        return bool(self._actions) and (ended or len(self._actions) >= self.task.max_steps)

    @property
    def steps(self) -> int:
        """Control steps so far."""
        return len(self._actions)

    @property
    def decisions(self) -> int:
        """Decisions so far."""
        return len(self._starts) or self.steps

    @property
    def until(self) -> str:
        """When the episode is to end."""
        return self._until

    @property
    def observation(self) -> Observation:
        """The policy's current observation."""
        latest = self._snapshots[-1]
        return Observation(latest.image, latest.proprio, self.task.instruction, latest.cameras)

    def record_state(self, snapshot: Snapshot) -> None:
        """Record the state that followed the last action (or the reset).

        Raises:
            SimulatorError: A keypoint is not finite.
        """
        if not all(np.isfinite(point).all() for point in snapshot.keypoints.values()):
            raise SimulatorError(
                f"{self.planned.episode_id}: the simulator gave a keypoint that is not finite after decision "
                f"{self.decisions}."
            )
        self._snapshots.append(snapshot)
        if self._pending:
            action, label = self._pending.popleft()
            self._actions.append(action)
            self._labels.append(label)

    def record_decision(self, action: Float32, label: Float32, tokens: npt.NDArray[np.int32], logps: Float32) -> None:
        """Record a decision, ``(D,)`` each."""
        self._actions.append(action)
        self._labels.append(label)
        self._tokens.append(tokens)
        self._logps.append(logps)

    def record_chunk(self, actions: Float32, chosen: ActionBatch, labels: Float32 | None = None) -> None:
        """Record a decision on several actions; those count as executed whose states are recorded afterwards.

        Args:
            actions: What is to be executed, in the suite's convention, ``(n, D)``.
            chosen: What the policy chose, one row; of an expert, ``actions`` again, so that it has no tokens.
            labels: What an imitator learns, ``(n, D)``; ``actions`` if not given.
        """
        self._starts.append(self.steps)
        self._chosen.append(chosen)
        self._pending = deque(zip(actions, actions if labels is None else labels, strict=True))

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
        outcomes = [np.nan if snapshot.success is None else snapshot.success for snapshot in self._snapshots]
        signals["success"] = np.array(outcomes, np.float32)
        looks = [*self._starts, self.steps] if self._starts else range(self.steps + 1)
        seen = [self._snapshots[state] for state in looks]
        images = [snapshot.display for snapshot in seen if snapshot.display is not None]
        chunks = self._chunks() if self._starts else None
        actions = np.stack(self._actions).astype(np.float32)
        if chunks is None:
            tokens, logps = np.stack(self._tokens).astype(np.int32), np.stack(self._logps).astype(np.float32)
        else:
            tokens, logps = chunks.executed_tokens(actions.shape[1])
        return Trajectory(
            meta=meta,
            frames=np.stack([snapshot.image for snapshot in seen]),
            proprio=np.stack([snapshot.proprio for snapshot in self._snapshots]).astype(np.float32),
            actions=actions,
            labels=np.stack(self._labels).astype(np.float32),
            action_tokens=tokens,
            token_logps=logps,
            keypoints={
                name: np.stack([snapshot.keypoints[name] for snapshot in self._snapshots]).astype(np.float32)
                for name in first.keypoints
            },
            signals=signals,
            display=np.stack(images) if self._display and len(images) == len(seen) else None,
            chunks=None if chunks is None or chunks.is_plain else chunks,
            cameras={name: np.stack([snapshot.cameras[name] for snapshot in seen]) for name in first.cameras},
        )

    def _chunks(self) -> Chunks:
        first = self._chosen[0]
        sampled = [(batch.tokens, batch.logps) for batch in self._chosen]
        tokens = [tokens for tokens, _ in sampled if tokens is not None]
        logps = [logps for _, logps in sampled if logps is not None]
        return Chunks(
            np.diff([*self._starts, self.steps]).astype(np.int32),
            first.actions.shape[1],
            tokens=np.concatenate(tokens).astype(np.int32) if tokens else None,
            logps=np.concatenate(logps).astype(np.float32) if logps else None,
            support=first.support,
            temperature=first.temperature,
        )
