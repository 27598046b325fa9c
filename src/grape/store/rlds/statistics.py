"""Normalization statistics of an RLDS data set, equal to those of OpenVLA's published loader.

That loader concatenates the actions of all splits after its transform and computes in float32: mean, standard
deviation, extremes, and the 1st and 99th percentile (linear interpolation). Statistics of pairs are computed from both
sides together here: two sets of them would bin equal actions differently (the first implementation did that).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError
from grape.store.rlds.dataset import RldsDataset
from grape.store.rlds.standardize import Rule, standardize

__all__ = ["action_statistics", "dataset_statistics"]


def action_statistics(actions: Sequence[npt.NDArray[np.float32]]) -> dict[str, Any]:
    """Statistics of the actions of several episodes.

    Args:
        actions: float32 ``(T, D)`` an episode, un-normalized, gripper last.

    Returns:
        One entry of OpenVLA's ``norm_stats``: ``action`` with ``mean``, ``std``, ``max``, ``min``, ``q01``, ``q99`` and
        ``mask`` (false for the gripper, which is not normalized), ``num_transitions``, ``num_trajectories``.

    Raises:
        DataError: There is no action, or one is not finite.
    """
    joined = np.concatenate(actions) if actions else np.zeros((0, 7), dtype=np.float32)
    if not len(joined):
        raise DataError("There are no actions to compute statistics of.", "Check the split and the rule.")
    if not np.isfinite(joined).all():
        raise DataError("Some actions are not finite; no statistics can be computed.")
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = joined.mean(axis=0), joined.std(axis=0)
    if not (np.isfinite(mean).all() and np.isfinite(std).all()):
        raise DataError("Some actions are so large that no statistics can be computed.", "Check the actions.")
    return {
        "action": {
            "mean": mean.tolist(),
            "std": std.tolist(),
            "max": joined.max(axis=0).tolist(),
            "min": joined.min(axis=0).tolist(),
            "q01": np.quantile(joined, 0.01, axis=0).tolist(),
            "q99": np.quantile(joined, 0.99, axis=0).tolist(),
            "mask": [True] * (joined.shape[1] - 1) + [False],
        },
        "num_transitions": len(joined),
        "num_trajectories": len(actions),
    }


def dataset_statistics(datasets: Iterable[tuple[RldsDataset, Rule]], split: str = "all") -> dict[str, Any]:
    """Statistics of one or several data sets together; images are not decoded.

    Args:
        datasets: Each with the rule it is read by.
        split: Which part; the published loader takes ``all``.

    Raises:
        DataError: A file is damaged, or there are no actions.
    """
    return action_statistics(
        [standardize(episode, rule).actions for dataset, rule in datasets for episode in dataset.read(split)]
    )
