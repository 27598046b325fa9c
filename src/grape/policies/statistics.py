"""Normalization statistics of demonstrations, under the names that published checkpoints have them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError

__all__ = ["compute_norm_stats"]


def compute_norm_stats(
    actions: npt.NDArray[Any],
    names: Sequence[str],
    trajectories: int | None = None,
    proprio: npt.NDArray[Any] | None = None,
) -> dict[str, Any]:
    """Statistics of one dataset's actions, and robot states where given, under the published key names.

    Args:
        actions: All actions, ``(N, D)``, un-normalized.
        names: Name of each dimension; one called ``gripper`` is left as it is (``mask`` false).
        trajectories: Number of episodes, if known.
        proprio: Robot states before these actions, ``(N, P)``.

    Returns:
        ``{"action": {"mean", "std", "max", "min", "q01", "q99", "mask"}, "num_transitions": N, ...}``: one entry of
        ``norm_stats``. States are described alike, without a mask, under ``"proprio"``.

    Raises:
        DataError: There are no actions, some numbers are not finite, or the number of names is wrong.
    """
    actions = np.asarray(actions, dtype=np.float64)
    if actions.ndim != 2 or actions.shape[0] == 0 or actions.shape[1] != len(names):
        raise DataError(f"Statistics need actions (N >= 1, {len(names)}), found {actions.shape}.")
    if not np.isfinite(actions).all():
        raise DataError("Some actions are not finite; no statistics can be computed.")
    result: dict[str, Any] = {
        "action": {**_describe(actions), "mask": [name != "gripper" for name in names]},
        "num_transitions": int(actions.shape[0]),
    }
    if proprio is not None:
        states = np.asarray(proprio, dtype=np.float64)
        if not np.isfinite(states).all():
            raise DataError(
                "Some robot states are not finite; no statistics can be computed.",
                "Leave these episodes out, or train a policy that reads images alone.",
            )
        result["proprio"] = _describe(states)
    if trajectories is not None:
        result["num_trajectories"] = trajectories
    return result


def _describe(values: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Statistics of each dimension, as the published files name them."""
    return {
        "mean": values.mean(axis=0).tolist(),
        "std": values.std(axis=0).tolist(),
        "max": values.max(axis=0).tolist(),
        "min": values.min(axis=0).tolist(),
        "q01": np.quantile(values, 0.01, axis=0).tolist(),
        "q99": np.quantile(values, 0.99, axis=0).tolist(),
    }
