"""How often one source orders two episodes as another does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.evaluation.statistics import cluster_sums, clustered_wilson_interval

__all__ = ["Concordance", "concordance_between"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Concordance:
    """Agreement of one source with the order of another.

    Attributes:
        value: Share of the couples that the reference orders on which the source agrees, its ties counting half; None
            without such couples.
        low: Lower end of the 95 % interval.
        high: Upper end.
        couples: How many couples both know and the reference orders.
        states: How many initial states these are from.
    """

    value: float | None
    low: float
    high: float
    couples: int
    states: int

    def to_dict(self) -> dict[str, Any]:
        """JSON value."""
        return {
            "concordance": self.value,
            "interval": [self.low, self.high],
            "couples": self.couples,
            "states": self.states,
        }


def concordance_between(source: Floats, reference: Floats, states: Sequence[int]) -> Concordance:
    """Compare two sources.

    With success as the reference this is the area under the ROC curve within initial states, ``(1 + D) / 2`` with
    Somers' D. The interval is Wilson's with the effective number of couples, as the couples of one state depend on one
    another (:func:`grape.evaluation.statistics.clustered_wilson_interval`).

    Args:
        source: Order of each couple, 1, 0 (tie) or -1; NaN where it is not known, ``(C,)``.
        reference: The same of the reference, ``(C,)``.
        states: Initial state of each couple, ``(C,)``.
    """
    known = np.isfinite(source) & np.isfinite(reference) & (reference != 0)
    if not known.any():
        return Concordance(None, 0.0, 1.0, 0, 0)
    agrees = (1.0 + source[known] * reference[known]) / 2.0
    clusters = [state for state, chosen in zip(states, known, strict=True) if chosen]
    sums, counts = cluster_sums(agrees, clusters), cluster_sums(np.ones(len(clusters)), clusters)
    low, high = clustered_wilson_interval(sums, counts)
    return Concordance(float(agrees.mean()), low, high, len(clusters), len(counts))
