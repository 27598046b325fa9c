"""Scores of trajectories and the preference pairs made from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from grape.core.reading import record

__all__ = ["ConstraintScore", "PreferencePair", "Score", "StageScore"]


@record
@dataclass(frozen=True)
class ConstraintScore:
    """One constraint's part in a stage's cost.

    Attributes:
        name: The constraint's name within its stage.
        kind: ``"subgoal"`` or ``"path"``.
        cost: Aggregated raw cost C_ij, in ``unit``, before the threshold.
        threshold: tau_ij, same unit.
        weight: lambda_ij.
        contribution: ``weight * max(0, cost - threshold)``, unit-free after scaling.
        unit: Unit of cost and threshold.
        objectives: Tags such as ``"completion"``, ``"safety"``, ``"efficiency"``.
        curve: The raw cost at each state of the stage, for plots.
    """

    name: str
    kind: str
    cost: float
    threshold: float
    weight: float
    contribution: float
    unit: str
    objectives: tuple[str, ...] = ()
    curve: tuple[float, ...] = ()


@record
@dataclass(frozen=True)
class StageScore:
    """One stage's cost C_i and where the stage lay.

    Attributes:
        name: The stage's name.
        start: First state index of the stage (inclusive).
        end: Last state index (inclusive); ``end < start`` for a stage that was never entered.
        reached: Whether the stage was entered.
        done: Whether its ``done_when`` held.
        cost: C_i, finite and not negative.
        constraints: The parts of the cost.
        position: Place of the stage, from 0, in the order in which the stages were done; None where the specification
            allows one order only.
    """

    name: str
    start: int
    end: int
    reached: bool
    done: bool
    cost: float
    constraints: tuple[ConstraintScore, ...] = ()
    position: int | None = None

    def curve_states(self, constraint: ConstraintScore) -> list[float]:
        """The state at which each value of a constraint's curve stands; a fraction where values are fewer than states.

        Args:
            constraint: One of the stage, with the curve of an episode that entered it.
        """
        count, states = len(constraint.curve), self.end - self.start + 1
        # Quantities of a step (speeds) have a value at every state of the stage but its first.
        first, stride = (1, 1.0) if count == states - 1 else (0, states / max(1, count))
        return [self.start + first + (index + 0.5) * stride - 0.5 for index in range(count)]


@record
@dataclass(frozen=True)
class Score:
    """Score of one trajectory (arXiv 2411.19309, guided-cost preference generation).

    Attributes:
        episode_id: The trajectory.
        task: Task name within its suite.
        initial_state: Index of the initial state.
        success: I_success; None where the outcome is unknown.
        steps: Number of control steps T.
        r_self: Unweighted self-reward, sum of log-probabilities; None where nothing was sampled.
        r_ext: External reward ``exp(-sum_i C_i)`` in (0, 1]; 1 where the task has no cost specification. Of another
            scorer, its value.
        cost: ``sum_i C_i``.
        terms: Normalized, weighted terms whose sum is ``gcpg``: ``{"self": ..., "ext": ..., "success": ...}``.
        gcpg: R_GCPG.
        stages: Detail a stage; empty where the task has no specification, and is scored by success alone.
        external: Name of the scorer whose value is the external reward; empty where costs are.
    """

    episode_id: str
    task: str
    initial_state: int
    success: bool | None
    steps: int
    r_self: float | None
    r_ext: float
    cost: float
    terms: Mapping[str, float]
    gcpg: float
    stages: tuple[StageScore, ...] = ()
    external: str = ""


@record
@dataclass(frozen=True)
class PreferencePair:
    """Two trajectories of the same task and initial state, or parts of them, and why one is preferred.

    Attributes:
        pair_id: Unique within a pair file.
        task: Task name within its suite.
        initial_state: Index of the shared initial state.
        chosen: Episode id of the preferred trajectory.
        rejected: Episode id of the other.
        margin: R_GCPG of chosen minus that of rejected; of a stage-wise pair the stage's cost of rejected minus that of
            chosen; of a judge ``2 p - 1`` with its probability ``p`` that chosen is better.
        mode: How the pair was made, e.g. ``"best-worst"``.
        reason: One sentence for people.
        terms: What the margin is made of: differences of the score's terms, chosen minus rejected, or ``"stage"`` or
            ``"judge"``.
        weight: How much the pair counts in training, relative to the others of its file.
        chosen_steps: Half-open range [start, stop) of the chosen side's control steps that are compared; None for all.
        rejected_steps: The same of the rejected side.
    """

    pair_id: str
    task: str
    initial_state: int
    chosen: str
    rejected: str
    margin: float
    mode: str
    reason: str
    terms: Mapping[str, float] = field(default_factory=dict)
    weight: float = 1.0
    chosen_steps: tuple[int, int] | None = None
    rejected_steps: tuple[int, int] | None = None
