"""Whether a judge's probabilities are what they say: calibration against success."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.evaluation.statistics import cluster_sums, clustered_wilson_interval

__all__ = ["calibration_of"]

Floats = npt.NDArray[np.float64]

_EDGES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_HIGHEST = np.nextafter(1.0, 2.0)


def calibration_of(p: Floats, success: Floats, states: Sequence[int]) -> dict[str, Any] | None:
    """Compare probabilities with outcomes, on couples of a success and a failure.

    Args:
        p: Probability that the first side is better, ``(C,)``; NaN where it is not known.
        success: Order of each couple by success, 1, 0 or -1; NaN where it is not known, ``(C,)``.
        states: Initial state of each couple, ``(C,)``.

    Returns:
        ``couples``, ``brier`` (mean squared error of p, 0.25 for who always says 0.5), ``calibration_error`` (mean
        distance of confidence and accuracy over the bins, weighted by their couples) and ``bins`` of confidence
        ``max(p, 1 - p)``: bounds, couples, mean confidence, accuracy (ties count half) with its interval. None where
        no such couple has a probability.
    """
    known = np.isfinite(p) & np.isfinite(success) & (success != 0)
    if not known.any():
        return None
    won, given = (success[known] > 0).astype(np.float64), p[known]
    confidence = np.maximum(given, 1.0 - given)
    right = np.where(given == 0.5, 0.5, (given > 0.5) == (won > 0.5)).astype(np.float64)
    clusters = np.asarray(states)[known]
    bins, error = [], 0.0
    for low, high in itertools.pairwise(_EDGES):
        inside = (confidence >= low) & (confidence < (_HIGHEST if high == 1.0 else high))
        if not inside.any():
            continue
        labels = clusters[inside].tolist()
        interval = clustered_wilson_interval(cluster_sums(right[inside], labels), cluster_sums(inside[inside], labels))
        mean, accuracy = float(confidence[inside].mean()), float(right[inside].mean())
        error += float(inside.mean()) * abs(mean - accuracy)
        bins.append(
            {
                "low": low,
                "high": high,
                "couples": int(inside.sum()),
                "confidence": mean,
                "accuracy": accuracy,
                "interval": list(interval),
            }
        )
    brier = float(np.mean((given - won) ** 2))
    return {"couples": int(known.sum()), "brier": brier, "calibration_error": error, "bins": bins}
