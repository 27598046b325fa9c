"""The robot's state (proprioception) as an input: its standardization, and the token that it becomes.

A policy reads the state where its configuration has ``grape.proprio_dim``; mean and deviation of its demonstrations
stand under ``proprio`` among the statistics of their data set, as in the published ``dataset_statistics.json``. The
token stands behind the patches, where OpenVLA-OFT (arXiv 2502.19645) has it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grape.core.errors import CompatibilityError, DataError, PolicyError

__all__ = ["ProprioNorm", "ProprioProjector"]

_CONSTANT = 1e-6
_MOST_DEVIATIONS = 10.0


class ProprioProjector(nn.Module):
    """From the robot's state to one embedding of the language model.

    Args:
        proprio_dim: Dimensions ``P`` of the state.
        hidden: Width of the language model.
    """

    def __init__(self, proprio_dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(proprio_dim, hidden)
        self.fc2 = nn.Linear(hidden, hidden)

    @property
    def proprio_dim(self) -> int:
        """Dimensions of the state it reads."""
        return self.fc1.in_features

    def forward(self, proprio_BP: Tensor) -> Tensor:
        """Embedding ``(B, 1, hidden)`` of normalized states ``(B, P)``."""
        return cast(Tensor, self.fc2(F.gelu(self.fc1(proprio_BP))))[:, None]


@dataclass(frozen=True, eq=False)
class ProprioNorm:
    """Standardization of the robot's state.

    A dimension that did not move in the demonstrations (a deviation below 1e-6, or below 1e-6 of its mean) carries
    nothing and is read as 0 whatever its value: divided by so small a deviation, rounding would drown the others.
    Standardized values are clipped to ±10, so that a dimension that hardly moved cannot drown them either.

    Attributes:
        mean: Mean of each dimension, float64 ``(P,)``, in the suite's units.
        std: Standard deviation of each, float64 ``(P,)``.
    """

    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]

    @property
    def dim(self) -> int:
        """Dimensions of a state."""
        return int(self.mean.shape[0])

    @property
    def moves(self) -> npt.NDArray[np.bool_]:
        """Which dimensions are read, ``(P,)``; the others were constant."""
        return np.asarray(self.std > _CONSTANT * np.maximum(1.0, np.abs(self.mean)))

    def standardize(self, proprio: npt.NDArray[Any]) -> Tensor:
        """Deviations from the mean in units of the standard deviation, float32 ``(B, P)``.

        Args:
            proprio: States as recorded, ``(B, P)``.

        Raises:
            CompatibilityError: They have another number of dimensions.
            PolicyError: They are not finite.
        """
        states = np.asarray(proprio, dtype=np.float32).astype(np.float64)  # at collection as read from an episode
        if states.ndim != 2 or states.shape[1] != self.dim:
            raise CompatibilityError(
                f"This policy reads the robot's state, {self.dim} numbers; found {states.shape[-1] or 'none'}.",
                "Use observations of the robot that it was trained on.",
            )
        if not np.isfinite(states).all():
            raise PolicyError("The robot's state is not finite.", "Check the source of the observations.")
        moves = self.moves
        deviations = (states - self.mean) / np.where(moves, self.std, 1.0)
        clipped = np.clip(np.where(moves, deviations, 0.0), -_MOST_DEVIATIONS, _MOST_DEVIATIONS)
        return torch.from_numpy(clipped.astype(np.float32))

    @staticmethod
    def from_stats(stats: Mapping[str, Any], where: str, dim: int) -> "ProprioNorm":
        """Read one data set's statistics.

        Args:
            stats: One entry of ``norm_stats``.
            where: Its name, for messages.
            dim: Dimensions that the network reads.

        Raises:
            DataError: There are none of the robot's state, or they are not finite or of another dimension.
        """
        try:
            values = stats["proprio"]
            mean, std = (np.asarray(values[name], dtype=np.float64) for name in ("mean", "std"))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"Normalization statistics {where!r} have no mean and std of the robot's state, which this policy "
                "reads.",
                "Choose statistics of the data that it was trained on.",
            ) from error
        if mean.shape != (dim,) or std.shape != (dim,):
            raise DataError(
                f"Normalization statistics {where!r} are of robot states of {mean.size} dimensions, the policy reads "
                f"{dim}.",
                "Choose statistics of the data that it was trained on.",
            )
        if not (np.isfinite(mean) & np.isfinite(std) & (std >= 0)).all():
            raise DataError(f"Normalization statistics {where!r}: mean or std of the robot's state is not usable.")
        return ProprioNorm(mean, std)
