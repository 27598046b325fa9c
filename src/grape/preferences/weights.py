"""Weights of pairs by their margins."""

from collections.abc import Sequence

import numpy as np

__all__ = ["WEIGHT_BOUND", "margin_weights"]

WEIGHT_BOUND = 4.0
"""No pair weighs more than this times, or less than this part of, what it would weigh among equal ones."""


def margin_weights(margins: Sequence[float]) -> list[float]:
    """Weights proportional to margins between bounds, with mean 1 over all pairs.

    ``w_i = min(4, max(1/4, s * margin_i))`` with the one ``s`` for which the mean of all ``w_i`` is 1. Without bounds
    one pair of a success and a failure that differ by everything would outweigh dozens of near misses, and near misses
    would not count at all. The mean of 1 keeps losses and learning rates comparable with unweighted pairs.

    Args:
        margins: Of all pairs of the file, each above 0.

    Returns:
        Weights in the order of the margins, in [1/4, 4].
    """
    values = np.asarray(margins, dtype=np.float64)
    low, high = 0.0, WEIGHT_BOUND / float(values.min())  # the mean is 1/4 at low and 4 at high, and rises in between
    while True:
        scale = (low + high) / 2
        weights = np.clip(scale * values, 1 / WEIGHT_BOUND, WEIGHT_BOUND)
        if not low < scale < high:
            return [float(weight) for weight in weights]
        low, high = (scale, high) if weights.mean() < 1 else (low, scale)
