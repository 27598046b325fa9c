"""Outcomes of episodes, and shares of episodes with an outcome.

Beside success an evaluation can measure yes-or-no facts of an episode, each twice: whether it held in the last state
(``success_end``) and whether it ever held (``success_ever``). Only episodes that run on after their first success can
tell the two apart; both are read from the recorded signals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from grape.core.errors import CompatibilityError, DataError
from grape.core.reading import record
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.evaluation.statistics import Interval, clustered_wilson_interval

__all__ = ["EpisodeOutcome", "Share", "figures_of", "measure", "outcome_of"]


@record
@dataclass(frozen=True)
class EpisodeOutcome:
    """How one evaluation episode ended.

    Attributes:
        task: Task name within its suite.
        initial_state: Index of the initial state.
        sample: Number of the rollout among those from the same initial state.
        success: Whether the task was solved (in the last state).
        steps: Decisions until success or the end.
        measures: Further facts by name, e.g. ``"grasp_ever"``.
    """

    task: str
    initial_state: int
    sample: int
    success: bool
    steps: int
    measures: Mapping[str, bool] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, int, int]:
        """What two evaluations are paired on."""
        return self.task, self.initial_state, self.sample


@record
@dataclass(frozen=True)
class Share:
    """Share of episodes in which a condition held.

    Attributes:
        rate: Share of the episodes, in [0, 1].
        interval: Its 95 % Wilson interval, for the effective number of episodes where several share an initial state.
        count: Number of those episodes.
    """

    rate: float
    interval: Interval
    count: int


def outcome_of(meta: EpisodeMeta, measures: Mapping[str, bool] | None = None) -> EpisodeOutcome:
    """The outcome that an episode's facts tell, with what was measured on it.

    Raises:
        DataError: Nobody knows whether the episode succeeded.
    """
    if meta.success is None:
        raise DataError(
            f"The outcome of episode {meta.episode_id} is unknown, so no success rate can be computed from it.",
            "Evaluate in a simulator that tells success.",
        )
    return EpisodeOutcome(meta.task, meta.initial_state, meta.sample, meta.success, meta.steps, dict(measures or {}))


def measure(trajectory: Trajectory, signals: Mapping[str, str]) -> dict[str, bool]:
    """Facts of one episode, in its last state and over all states that followed a control step.

    Args:
        trajectory: The episode; its images are not looked at.
        signals: Name of the recorded signal by name of the measure; it holds where it is at least 0.5.

    Returns:
        ``NAME_end`` and ``NAME_ever`` for each measure.

    Raises:
        CompatibilityError: A signal was not recorded.
    """
    outcomes: dict[str, bool] = {}
    for name, signal in signals.items():
        if signal not in trajectory.signals:
            raise CompatibilityError(
                f"Episode {trajectory.meta.episode_id} has no signal '{signal}', from which '{name}' is measured.",
                f"Recorded: {', '.join(sorted(trajectory.signals))}. Choose another --protocol or suite.",
            )
        holds = np.asarray(trajectory.signals[signal])[1:] >= 0.5
        outcomes |= {f"{name}_end": bool(holds[-1]), f"{name}_ever": bool(holds.any())}
    return outcomes


def figures_of(outcomes: Sequence[EpisodeOutcome]) -> dict[str, Any]:
    """Counts, rates and intervals of some episodes, by name of the field in the results."""
    solved = _share(outcomes, [outcome.success for outcome in outcomes])
    names = sorted(outcomes[0].measures)
    return {
        "success_rate": solved.rate,
        "interval": solved.interval,
        "episodes": len(outcomes),
        "successes": solved.count,
        "mean_steps": sum(outcome.steps for outcome in outcomes) / len(outcomes),
        "measures": {name: _share(outcomes, [outcome.measures[name] for outcome in outcomes]) for name in names},
    }


def _share(outcomes: Sequence[EpisodeOutcome], holds: Sequence[bool]) -> Share:
    states: dict[tuple[str, int], list[bool]] = {}
    for outcome, satisfied in zip(outcomes, holds, strict=True):
        states.setdefault((outcome.task, outcome.initial_state), []).append(satisfied)
    interval = clustered_wilson_interval([sum(s) for s in states.values()], [len(s) for s in states.values()])
    return Share(sum(holds) / len(holds), interval, sum(holds))
