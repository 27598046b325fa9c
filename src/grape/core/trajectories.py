"""What happened in one rollout: observations, actions, log-probabilities, keypoints.

A trajectory of ``T`` decisions has ``T + 1`` observations: one before each action and one after the
last. Everything that describes a state has ``T + 1`` rows; everything that describes a decision has ``T``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError
from grape.core.reading import record

__all__ = ["EpisodeMeta", "Observation", "Trajectory"]

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Observation:
    """A policy's input for one decision.

    Attributes:
        image: RGB image, uint8 ``(H, W, 3)``.
        proprio: Robot state, float32 ``(P,)``; units as the suite documents.
        instruction: The task in words.
    """

    image: npt.NDArray[np.uint8]
    proprio: Float32
    instruction: str


@record
@dataclass(frozen=True)
class EpisodeMeta:
    """Metadata of an episode. Holds no times of day: equal runs give equal bytes.

    Attributes:
        episode_id: Unique within a store and usable as a file name.
        suite: The suite's registered name.
        task: The task's name within its suite.
        task_index: The task's position within its suite.
        instruction: What the policy was told.
        initial_state: Index of the initial state.
        sample: Number of the rollout among those from the same initial state.
        seed: Seed of this episode's randomness (sampling, noise of experts).
        success: I_success: whether the task was solved; None where nobody knows, which is not failure.
        steps: Number of decisions ``T``.
        actor: ``"policy"`` or ``"expert"``.
        operator: Style of the expert, e.g. ``"clean"``; empty for a policy.
        temperature: Sampling temperature; 0 for greedy decoding and for experts.
        policy_hash: Hash of the policy's weights and configuration; empty for experts.
        preprocessing_hash: Hash of prompt, image preprocessing, tokenizer and normalization; empty for experts.
        prompt: The text the policy read; empty for experts.
        versions: Versions of what made the episode, e.g. ``{"mujoco": "3.3.2"}``.
        extra: Anything more a suite wants to keep; JSON values only.
        until: When the episode was to end: ``"success"``, at the first success; ``"last-step"``, after the last
            decision whatever happened before, so that ``success`` speaks of the last state.
    """

    episode_id: str
    suite: str
    task: str
    task_index: int
    instruction: str
    initial_state: int
    sample: int
    seed: int
    success: bool | None
    steps: int
    actor: str
    operator: str = ""
    temperature: float = 0.0
    policy_hash: str = ""
    preprocessing_hash: str = ""
    prompt: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    until: str = "success"


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One recorded rollout.

    Attributes:
        meta: Facts of the whole episode.
        frames: The images the policy saw, uint8 ``(T+1, H, W, 3)``; the last one follows the last action.
        proprio: Robot state, float32 ``(T+1, P)``.
        actions: Executed actions in the environment's convention, float32 ``(T, D)``.
        labels: What an imitator should learn, float32 ``(T, D)``: the expert's action before noise was added;
            equal to ``actions`` for a policy.
        action_tokens: Sampled token ids, int32 ``(T, D)``; -1 where nothing was sampled (experts).
        token_logps: Log-probability of each sampled token under temperature 1, float32 ``(T, D)``; NaN for experts.
        keypoints: Named 3-D points in meters, world frame, float32 ``(T+1, 3)`` each.
        signals: Named scalars a state, float32 ``(T+1,)`` each, e.g. ``"gripper_opening"``; ``"success"`` is always
            there, 0 or 1; NaN where the outcome is unknown.
        display: Larger images for people only (may be lossy), uint8 ``(T+1, H2, W2, 3)``; None if not recorded.
    """

    meta: EpisodeMeta
    frames: npt.NDArray[np.uint8]
    proprio: Float32
    actions: Float32
    labels: Float32
    action_tokens: npt.NDArray[np.int32]
    token_logps: Float32
    keypoints: Mapping[str, Float32]
    signals: Mapping[str, Float32]
    display: npt.NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        steps, dim = self.actions.shape
        expected: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
            "frames": (self.frames.shape[:1], (steps + 1,)),
            "proprio": (self.proprio.shape[:1], (steps + 1,)),
            "labels": (self.labels.shape, (steps, dim)),
            "action_tokens": (self.action_tokens.shape, (steps, dim)),
            "token_logps": (self.token_logps.shape, (steps, dim)),
        }
        expected |= {f"keypoint {name}": (value.shape, (steps + 1, 3)) for name, value in self.keypoints.items()}
        expected |= {f"signal {name}": (value.shape, (steps + 1,)) for name, value in self.signals.items()}
        if self.display is not None:
            expected["display"] = (self.display.shape[:1], (steps + 1,))
        problems = [
            f"{name} is {shape}, not {expected_shape}"
            for name, (shape, expected_shape) in expected.items()
            if shape != expected_shape
        ]
        if self.meta.steps != steps:
            problems.append(f"meta.steps is {self.meta.steps}, not {steps}")
        if "success" not in self.signals:
            problems.append("signal 'success' is missing")
        if problems:
            raise DataError(f"Episode {self.meta.episode_id} is inconsistent: {'; '.join(problems)}.")

    @property
    def steps(self) -> int:
        """Number of decisions ``T``."""
        return int(self.actions.shape[0])

    @property
    def logp(self) -> float:
        """R_self: the summed log-probability of all sampled tokens (arXiv 2411.19309, self-reward); NaN for experts."""
        return float(np.sum(self.token_logps, dtype=np.float64))
