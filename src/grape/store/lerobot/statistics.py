"""Statistics in LeRobot's form: of numbers a dimension, of images a colour channel.

LeRobot estimates quantiles from histograms, and those of the whole from bounds over its episodes. Here they are exact:
numbers are few enough to keep, and the 256 values of a channel can be counted.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["QUANTILES", "count_values", "image_statistics", "number_statistics"]

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


def number_statistics(values: npt.NDArray[Any]) -> dict[str, Any]:
    """Statistics of a column ``(N, D)`` or ``(N,)``, in float64: lists of ``D`` numbers, or of one.

    ``min``, ``max``, ``mean``, ``std``, ``count`` and the quantiles (linear interpolation).
    """
    table = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    return {
        "min": table.min(axis=0).tolist(),
        "max": table.max(axis=0).tolist(),
        "mean": table.mean(axis=0).tolist(),
        "std": table.std(axis=0).tolist(),
        "count": [len(table)],
        **{name: np.quantile(table, share, axis=0).tolist() for name, share in QUANTILES.items()},
    }


def count_values(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """How often each value occurs in each channel of images ``(N, H, W, 3)``: int64 ``(3, 256)``."""
    return np.stack([np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(3)])


def image_statistics(counts: npt.NDArray[np.int64], images: int) -> dict[str, Any]:
    """Statistics of images whose values lie in [0, 1], each of LeRobot's shape ``(3, 1, 1)``.

    Args:
        counts: From :func:`count_values`, summed.
        images: How many images.
    """
    found: dict[str, list[float]] = {name: [] for name in ("min", "max", "mean", "std", *QUANTILES)}
    levels = np.arange(256) / 255
    for row in counts:
        total, seen = row.sum(), np.flatnonzero(row)
        mean = float((row * levels).sum() / total)
        found["min"].append(float(levels[seen[0]]))
        found["max"].append(float(levels[seen[-1]]))
        found["mean"].append(mean)
        found["std"].append(float(np.sqrt((row * (levels - mean) ** 2).sum() / total)))
        ends = np.cumsum(row)
        for name, share in QUANTILES.items():
            found[name].append(_quantile(ends, levels, share * (total - 1)))
    shaped: dict[str, Any] = {name: [[[value]] for value in values] for name, values in found.items()}
    return shaped | {"count": [images]}


def _quantile(ends: npt.NDArray[np.int64], levels: npt.NDArray[np.float64], place: float) -> float:
    """Value at a place among the sorted values, interpolated linearly; ``ends``: cumulated counts."""
    low = int(np.floor(place))
    below, above = (levels[np.searchsorted(ends, index, side="right")] for index in (low, int(np.ceil(place))))
    return float(below + (place - low) * (above - below))
