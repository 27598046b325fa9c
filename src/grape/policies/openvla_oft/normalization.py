"""Normalization of actions and of the robot's state as OpenVLA-OFT has it."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from grape.core.errors import CompatibilityError, DataError, PolicyError
from grape.policies.openvla.action_tokens import ActionNorm
from grape.policies.openvla_oft.conventions import Layout

__all__ = ["action_norm", "normalize_proprio", "proprio_norm", "read_proprio"]

_EPSILON = 1e-8
_BOUNDS = {"q01-q99": ("q01", "q99"), "min-max": ("min", "max")}


def action_norm(stats: Any, name: str, layout: Layout) -> ActionNorm:
    """Normalization of actions as OpenVLA-OFT has it.

    Raises:
        CompatibilityError: The statistics are of another dimension than the network's actions.
        DataError: They are damaged.
    """
    norm = ActionNorm.from_stats(stats, name, bounds=_BOUNDS[layout.bounds], epsilon=_EPSILON)
    if norm.dim != layout.action_dim:
        raise CompatibilityError(
            f"Statistics {name!r} are of actions of {norm.dim} dimensions, the policy decides {layout.action_dim}.",
            "Choose another --unnorm-key.",
        )
    return norm


def proprio_norm(stats: Any, name: str, layout: Layout) -> ActionNorm | None:
    """Normalization of the robot's state; None where it is not read.

    Raises:
        CompatibilityError: The statistics are of another dimension than the network's projector.
        DataError: They are missing or damaged.
    """
    if not layout.proprio_dim:
        return None
    if "proprio" not in stats:
        raise DataError(
            f"Statistics {name!r} have none of the robot's state, which this policy reads.",
            "Add the dataset_statistics.json of its training data to the checkpoint.",
        )
    norm = ActionNorm.from_stats(stats, name, part="proprio", bounds=_BOUNDS[layout.bounds], epsilon=_EPSILON)
    if norm.dim != layout.proprio_dim:
        raise CompatibilityError(
            f"Statistics {name!r} are of robot states of {norm.dim} dimensions, the policy's projector reads "
            f"{layout.proprio_dim}.",
            "Choose another --unnorm-key.",
        )
    return norm


def normalize_proprio(proprio: npt.NDArray[Any], norm: ActionNorm) -> npt.NDArray[np.float64]:
    """Robot states mapped to [-1, 1] as the reference evaluates.

    Unlike actions in training, a dimension that never moved becomes -1 or 1, and those not mapped are clipped, too.
    """
    states = np.asarray(proprio, dtype=np.float64)
    mapped = 2.0 * (states - norm.low) / (norm.high - norm.low + norm.epsilon) - 1.0
    return np.clip(np.where(norm.mask, mapped, states), -1.0, 1.0)


def read_proprio(proprio: npt.NDArray[Any] | None, norm: ActionNorm | None, rows: int, name: str) -> Tensor | None:
    """Robot states as the network reads them, float32 ``(B, P)``; None where it reads none.

    Args:
        proprio: Un-normalized states ``(B, P)``, given exactly where the policy reads them.
        norm: Their normalization; None where the policy reads none.
        rows: Number ``B`` of observations.
        name: Name of the statistics, for messages.

    Raises:
        CompatibilityError: States are missing, superfluous or of another dimension.
        PolicyError: A state is not finite.
    """
    if norm is None:
        if proprio is not None:
            raise CompatibilityError(
                "This policy does not read the robot's state.", "Leave the state out, or check the checkpoint."
            )
        return None
    due = (rows, norm.dim)
    if proprio is None or np.shape(proprio) != due:
        given = "none" if proprio is None else f"{np.shape(proprio)[-1]} numbers"
        raise CompatibilityError(
            f"This policy reads the robot's state, {norm.dim} numbers; found {given}.",
            f"They are the state that {name!r} has statistics of.",
        )
    if not np.isfinite(proprio).all():
        raise PolicyError("The robot's state is not finite.", "Check the source of the observations.")
    return torch.from_numpy(normalize_proprio(proprio, norm).astype(np.float32))
