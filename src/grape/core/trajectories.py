"""What happened in one rollout: observations, actions, log-probabilities, keypoints.

A trajectory has two axes. The simulator moves in ``T`` control steps through ``T + 1`` states. The policy looks and
decides ``N <= T`` times, each time on a chunk of actions, and images are recorded where it looked: ``N + 1`` of them,
the last one after the last action. With one action a decision the two axes are one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.chunks import DEFAULT_SUPPORT, Chunks
from grape.core.errors import CompatibilityError, DataError
from grape.core.reading import record

__all__ = ["EpisodeMeta", "Observation", "Trajectory"]

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Observation:
    """A policy's input for one decision.

    Attributes:
        image: RGB image of the main camera, uint8 ``(H, W, 3)``.
        proprio: Robot state, float32 ``(P,)``; units as the suite documents.
        instruction: The task in words.
        cameras: RGB images of further cameras by name, e.g. ``"wrist"``, uint8 ``(H, W, 3)`` each.
    """

    image: npt.NDArray[np.uint8]
    proprio: Float32
    instruction: str
    cameras: Mapping[str, npt.NDArray[np.uint8]] = field(default_factory=dict)

    def images(self, names: Sequence[str]) -> list[npt.NDArray[np.uint8]]:
        """Images of some cameras in their order.

        Args:
            names: The first is the main camera, whatever it is called.

        Raises:
            CompatibilityError: There is no image of a camera.
        """
        if missing := [name for name in names[1:] if name not in self.cameras]:
            raise CompatibilityError(
                f"The policy reads {len(names)} images ({', '.join(names)}); there is none of {', '.join(missing)}.",
                "Use a suite with these cameras, or a policy that reads the main one alone.",
            )
        return [self.image, *(self.cameras[name] for name in names[1:])]


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
        steps: Number of control steps ``T``; with one action a decision, of decisions.
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
    """One recorded rollout: ``T`` control steps, ``N`` decisions; see :mod:`grape.core.trajectories`.

    What is stated here holds for every trajectory: its constructor checks it.

    Attributes:
        meta: Facts of the whole episode.
        frames: The images of the main camera that the policy saw, uint8 ``(N+1, H, W, 3)``; the last one follows the
            last action.
        proprio: Robot state, float32 ``(T+1, P)``.
        actions: Executed actions in the environment's convention, float32 ``(T, D)``.
        labels: What an imitator should learn, float32 ``(T, D)``: the expert's action before noise was added;
            equal to ``actions`` for a policy.
        action_tokens: Sampled token ids of the executed actions, int32 ``(T, D)``; -1 where nothing was sampled
            (experts, policies without tokens).
        token_logps: Log-probability of each of them, float32 ``(T, D)``, under :attr:`support` and
            :attr:`logp_temperature`; NaN where nothing was sampled.
        keypoints: Named 3-D points in meters, world frame, float32 ``(T+1, 3)`` each.
        signals: Named scalars a state, float32 ``(T+1,)`` each, e.g. ``"gripper_opening"``; ``"success"`` is always
            there, 0 or 1; NaN where the outcome is unknown.
        display: Larger images for people only (may be lossy), uint8 ``(N+1, H2, W2, 3)``; None if not recorded.
        chunks: The decisions with all that was sampled, executed or not, whose executed part ``action_tokens`` and
            ``token_logps`` are; None where each control step is a decision of its own (``N = T``) and
            log-probabilities are over the whole vocabulary at temperature 1.
        cameras: Images of further cameras by name, uint8 ``(N+1, H, W, 3)`` each.

    Raises:
        DataError: The parts do not fit.
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
    chunks: Chunks | None = None
    cameras: Mapping[str, npt.NDArray[np.uint8]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        steps, dim = self.actions.shape
        images = self.decisions + 1
        expected: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
            "frames": (self.frames.shape[:1], (images,)),
            "proprio": (self.proprio.shape[:1], (steps + 1,)),
            "labels": (self.labels.shape, (steps, dim)),
            "action_tokens": (self.action_tokens.shape, (steps, dim)),
            "token_logps": (self.token_logps.shape, (steps, dim)),
        }
        expected |= {f"keypoint {name}": (value.shape, (steps + 1, 3)) for name, value in self.keypoints.items()}
        expected |= {f"signal {name}": (value.shape, (steps + 1,)) for name, value in self.signals.items()}
        if self.display is not None:
            expected["display"] = (self.display.shape[:1], (images,))
        expected |= {f"camera {name}": (value.shape[:1], (images,)) for name, value in self.cameras.items()}
        problems = [
            f"{name} is {shape}, not {expected_shape}"
            for name, (shape, expected_shape) in expected.items()
            if shape != expected_shape
        ]
        if self.meta.steps != steps:
            problems.append(f"meta.steps is {self.meta.steps}, not {steps}")
        if "success" not in self.signals:
            problems.append("signal 'success' is missing")
        if self.chunks is not None:
            problems = self.chunks.problems(steps, dim) or problems or self._contradictions(self.chunks)
        if problems:
            raise DataError(f"Episode {self.meta.episode_id} is inconsistent: {'; '.join(problems)}.")

    def _contradictions(self, chunks: Chunks) -> list[str]:
        tokens, logps = chunks.executed_tokens(self.actions.shape[1])
        same = np.array_equal(self.action_tokens, tokens) and np.array_equal(self.token_logps, logps, equal_nan=True)
        return [] if same else ["action_tokens and token_logps are not those of the executed actions"]

    @property
    def steps(self) -> int:
        """Number of control steps ``T``."""
        return int(self.actions.shape[0])

    @property
    def decisions(self) -> int:
        """Number of decisions ``N``."""
        return self.steps if self.chunks is None else len(self.chunks)

    @property
    def chunk_length(self) -> int:
        """Actions ``K`` a decision."""
        return 1 if self.chunks is None else self.chunks.length

    @property
    def decision_starts(self) -> npt.NDArray[np.int64]:
        """First control step of each decision, int64 ``(N,)``."""
        return np.arange(self.steps) if self.chunks is None else self.chunks.starts

    def each_state(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Images one a state, for people and for formats with one row a control step.

        Args:
            images: Of some camera, ``(N+1, H, W, 3)``.

        Returns:
            ``(T+1, H, W, 3)``: at each state the latest image that was taken.
        """
        if self.chunks is None:
            return images
        looks = [*self.decision_starts.tolist(), self.steps]
        latest: npt.NDArray[np.uint8] = images[np.searchsorted(looks, np.arange(self.steps + 1), side="right") - 1]
        return latest

    @property
    def support(self) -> str:
        """What the softmax of ``token_logps`` ran over; empty for a policy without tokens."""
        return DEFAULT_SUPPORT if self.chunks is None else self.chunks.support

    @property
    def logp_temperature(self) -> float:
        """Temperature of ``token_logps``; 0 for a policy without tokens."""
        return 1.0 if self.chunks is None else self.chunks.temperature

    @property
    def logp(self) -> float:
        """R_self: the summed log-probability of executed tokens (arXiv 2411.19309, self-reward); NaN for experts."""
        return float(np.sum(self.token_logps, dtype=np.float64))
