"""By how much R_GCPG and stage costs of two episodes differ when nothing but measurement differs.

A difference below this is no reason to prefer anything: a couple that differs by no more makes no pair.

*R_self.* The same network on the same input gives other last digits in another batch, on another processor or with
another kernel. Compared again (``parity/mean_abs`` of training) a token's log-probability differs by some thousandths
of a nat in float32, hence that of a decision of seven tokens by about 0.01; :data:`LOGP_NOISE` is twice that. Decisions
err independently, so the sum over ``T`` of them is uncertain by ``LOGP_NOISE * sqrt(T)``, the mean a decision by
``LOGP_NOISE / sqrt(T)``, and the squares of both sides of a couple add up. In bfloat16 errors are several times larger:
there ``--margin`` says what counts. (:data:`grape.preferences.gcpg.NOISE` is something else: the least *spread* of a
whole store that calibration scales up to a signal.)

*Costs.* Built-in specifications charge 1 to 5 a meter, so that :data:`COST_NOISE` = 0.001 stands for 0.2 to 1 mm: less
than what tracked keypoints, contacts in a simulator and the moment at which a stage is seen to end reproduce. Of
``R_ext = exp(-beta C)`` this is ``beta * R_ext * COST_NOISE``. Where another scorer gives R_ext, it says what its
noise is.

*I_success* is known or not, and has no noise.

The noise of R_GCPG is the sum of both under the recorded weights: the most by which they can move the difference
together. So a couple whose true difference is 0 makes no pair, and one that makes a pair keeps its order, under every
error of that size.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from grape.core.errors import DataError
from grape.core.preferences import Score

__all__ = ["COST_NOISE", "LOGP_NOISE", "ROUNDING", "ScoreNoise"]

LOGP_NOISE = 0.02
"""Two standard deviations of a decision's log-probability between equal computations, nats."""

COST_NOISE = 0.001
"""Difference of a cost C_i, or of their sum, below the resolution of what costs are measured from."""

ROUNDING = 1e-9
"""Differences of R_GCPG below this are rounding errors of the sum of its terms, whatever the calibration."""


@dataclass(frozen=True)
class ScoreNoise:
    """The noise of R_GCPG under one calibration. Without arguments: rounding alone.

    Attributes:
        self_weight: lambda_1 of the normalized R_self.
        normalization: How R_self was normalized: ``"raw"``, ``"step-mean"``, ``"state-standardised"`` or
            ``"task-standardised"``.
        beta: Scale of costs by task.
        external: Noise of the weighted external term where another scorer than costs gives it; None where costs do.
    """

    self_weight: float = 0.0
    normalization: str = "step-mean"
    beta: Mapping[str, float] = field(default_factory=dict)
    external: float | None = None

    @classmethod
    def of_summary(cls, summary: Mapping[str, Any], tasks: set[str], where: str) -> "ScoreNoise":
        """The noise of scores, from the calibration in the summary that ``grape score`` wrote.

        Args:
            summary: Content of ``done.json``.
            tasks: Names of the tasks of the scores.
            where: What messages call the summary.

        Raises:
            DataError: The summary holds no calibration, or one that is not understood.
        """
        try:
            calibration = summary["calibration"]
            beta, external = calibration["beta"], calibration.get("external")
            return cls(
                self_weight=float(calibration["weights"]["self"]),
                external=external and float(calibration["weights"]["ext"]) * float(external["noise"]),
                normalization=str(calibration["normalisation"]),
                # Release 0.1 had one beta for all tasks.
                beta={task: float(beta[task] if isinstance(beta, Mapping) else beta) for task in tasks},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{where} does not say how the scores were calibrated: {error!r:.80}.", "Run 'grape score' again."
            ) from error

    def between(self, one: Score, other: Score) -> float:
        """Difference of R_GCPG below which two episodes of one initial state do not differ."""
        return max(ROUNDING, self.of_self(one, other) + self.of_ext(one, other))

    def of_self(self, one: Score, other: Score) -> float:
        """Difference of the weighted self term below which the two do not differ."""
        if one.r_self is None and other.r_self is None:
            return 0.0
        lengths = [max(score.steps, 1) for score in (one, other) if score.r_self is not None]
        if self.normalization == "raw":
            return self.self_weight * LOGP_NOISE * math.sqrt(sum(lengths))
        noise = LOGP_NOISE * math.sqrt(sum(1 / length for length in lengths))
        if self.normalization == "step-mean" or one.r_self is None or other.r_self is None:
            return self.self_weight * noise
        # Standardized: the term is a linear function of the mean a decision, the same for both sides.
        gap = abs(one.r_self / max(one.steps, 1) - other.r_self / max(other.steps, 1))
        return noise * abs(_term(one, "self") - _term(other, "self")) / gap if gap > ROUNDING else 0.0

    def of_ext(self, one: Score, other: Score) -> float:
        """The same of the external term, ``lambda_2 R_ext``; the larger of the two reacts more to the costs."""
        if self.external is not None:
            return self.external
        return self.beta.get(one.task, 0.0) * COST_NOISE * max(_term(one, "ext"), _term(other, "ext"))


def _term(score: Score, name: str) -> float:
    """A term of R_GCPG; 0 where the scores do not have it."""
    return score.terms.get(name, 0.0)
