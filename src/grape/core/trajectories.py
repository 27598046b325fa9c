"""What happened in one rollout: observations, actions, log-probabilities, keypoints.

A trajectory has two axes. The simulator moves in ``T`` control steps through ``T + 1`` states. The policy looks and
decides ``N <= T`` times, each time on a chunk of actions, and images are recorded where it looked: ``N + 1`` of them,
the last one after the last action. With one action a decision the two axes are one.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.arrays import image_array, numbers
from grape.core.chunks import DEFAULT_SUPPORT, Chunks
from grape.core.errors import CompatibilityError, DataError, did_you_mean
from grape.core.reading import record
from grape.core.seeds import derive_seed
from grape.core.tasks import plain_name

__all__ = ["EpisodeMeta", "Observation", "Trajectory", "rollout_id", "rollout_seed"]

Float32 = npt.NDArray[np.float32]


def rollout_id(task: str, initial_state: int, sample: int) -> str:
    """Name of a rollout within its store."""
    return f"{task}-i{initial_state:06d}-k{sample:02d}"


def rollout_seed(run_seed: int, suite: str, task: str, initial_state: int, sample: int) -> int:
    """Seed of a rollout; it follows from what the rollout is, whatever else is played."""
    return derive_seed(run_seed, "episode", suite, task, initial_state, sample)


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

    @classmethod
    def from_arrays(
        cls,
        *,
        task: str,
        instruction: str,
        images: npt.ArrayLike,
        actions: npt.ArrayLike,
        success: bool | None,
        initial_state: int = 0,
        sample: int = 0,
        suite: str = "own",
        proprio: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        tokens: npt.ArrayLike | None = None,
        logps: npt.ArrayLike | None = None,
        chunks: Chunks | None = None,
        keypoints: Mapping[str, npt.ArrayLike] | None = None,
        signals: Mapping[str, npt.ArrayLike] | None = None,
        cameras: Mapping[str, npt.ArrayLike] | None = None,
        **facts: Any,
    ) -> "Trajectory":
        """A trajectory of any simulator or robot, from arrays or lists of its ``T`` control steps and ``N`` decisions.

        What is left out was not recorded: without keypoints and signals only the outcome ranks it,
        without log-probabilities it cannot be trained on by preferences.

        Args:
            task: The task's name.
            instruction: What the policy was told.
            images: What the policy saw, and the image after the last action: uint8 RGB, ``(N+1, H, W, 3)``.
            actions: Executed actions in the environment's convention, ``(T, D)``.
            success: Whether the task was solved; None where nobody knows, which is not failure.
            initial_state: Index of the initial state: trajectories of equal task and state are compared.
            sample: Number of the rollout among those from the same initial state.
            suite: Name of the simulator or robot.
            proprio: Robot state before every action and after the last, ``(T+1, P)``.
            labels: What an imitator should learn, ``(T, D)``; the actions if not given.
            tokens: Sampled action tokens where each step is a decision, ``(T, D)``.
            logps: Log-probability of each of them over the whole vocabulary at temperature 1, ``(T, D)``.
            chunks: The decisions, in place of ``tokens`` and ``logps``: for a policy that decides on several actions at
                once, or whose log-probabilities are over other tokens or at another temperature.
            keypoints: Named points in meters, world frame, ``(T+1, 3)`` each; NaN where a point was lost.
            signals: Named scalars a state, ``(T+1,)`` each.
            cameras: Images of further cameras by name, as ``images``.
            **facts: Further fields of :class:`EpisodeMeta`, e.g. ``seed``, ``policy_hash``, ``preprocessing_hash``,
                ``prompt`` and ``temperature`` of the policy that acted, or ``actor="expert"``.

        Raises:
            DataError: An array has another shape or type, or a number that must be finite is not; the message names it.
        """
        acted = numbers("actions", actions, 2)
        steps, dim = acted.shape
        decisions = steps if chunks is None else len(chunks)
        if not steps:
            raise DataError("actions are empty.", "A trajectory has at least one action.")
        if (tokens is None) != (logps is None) or (tokens is not None and chunks is not None):
            raise DataError(
                "tokens, logps and chunks do not go together.",
                "Give tokens and logps, or chunks alone, or none of them.",
            )
        if chunks is not None:
            executed_tokens, executed_logps = chunks.executed_tokens(dim)
        elif tokens is not None and logps is not None:
            executed_tokens = numbers("tokens", tokens, 2, np.int32)
            executed_logps = numbers("logps", logps, 2)
        else:
            executed_tokens, executed_logps = (
                np.full((steps, dim), -1, np.int32),
                np.full((steps, dim), np.nan, np.float32),
            )
        scalars = {name: numbers(f"signal {name}", value, 1, finite=False) for name, value in (signals or {}).items()}
        if "success" not in scalars:
            scalars["success"] = (
                np.zeros(steps + 1, np.float32) if success is not None else np.full(steps + 1, np.nan, np.float32)
            )
            if success:
                scalars["success"][-1] = 1.0
        known = {item.name for item in dataclasses.fields(EpisodeMeta)}
        if unknown := [fact for fact in facts if fact not in known]:
            raise DataError(f"Unknown fact {unknown[0]!r} of a trajectory.", did_you_mean(unknown[0], known))
        meta = {
            "episode_id": rollout_id(plain_name(task), initial_state, sample),
            "suite": suite,
            "task": task,
            "task_index": 0,
            "instruction": instruction,
            "initial_state": initial_state,
            "sample": sample,
            "seed": rollout_seed(0, suite, task, initial_state, sample),
            "success": None if success is None else bool(success),
            "steps": steps,
            "actor": "policy",
        }
        return cls(
            meta=EpisodeMeta(**(meta | facts)),
            frames=image_array("images", images, decisions),
            proprio=np.zeros((steps + 1, 0), np.float32) if proprio is None else numbers("proprio", proprio, 2),
            actions=acted,
            labels=acted if labels is None else numbers("labels", labels, 2),
            action_tokens=executed_tokens,
            token_logps=executed_logps,
            keypoints={
                point: numbers(f"keypoint {point}", value, 2, finite=False)
                for point, value in (keypoints or {}).items()
            },
            signals=scalars,
            chunks=None if chunks is None or chunks.is_plain else chunks,
            cameras={
                camera: image_array(f"camera {camera}", value, decisions) for camera, value in (cameras or {}).items()
            },
        )

    def __repr__(self) -> str:
        """One line: the episode, its task and outcome, how long it is and what it holds."""
        outcome = {True: "success", False: "failure", None: "outcome unknown"}[self.meta.success]
        height, width = self.frames.shape[1:3]
        parts = [f"{self.meta.suite}/{self.meta.task}", outcome, f"{self.steps} control steps"]
        if self.decisions != self.steps:
            parts.append(f"{self.decisions} decisions")
        if height:
            parts.append(" + ".join((f"images {height}x{width}", *self.cameras)))
        if self.keypoints:
            parts.append(f"{len(self.keypoints)} keypoints")
        if np.isfinite(self.logp):
            parts.append(f"R_self {self.logp:.4g}")
        return f"Trajectory({self.meta.episode_id!r}, {', '.join(parts)})"

    def _repr_html_(self) -> str:
        """The same line and a film strip, which notebooks show."""
        from grape.core.film_strips import strip_rows  # workers in another interpreter may lack Pillow

        return strip_rows([(repr(self), self.frames)])

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
