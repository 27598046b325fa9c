"""Dividing episodes into a part to train on and a part to validate on, by initial state, and each part into files.

Rollouts from one initial state look alike, so all of them go to the same part: otherwise validation would measure
memory.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from grape.core.errors import DataError, SettingsError
from grape.store.rlds.writer import shard_lengths

__all__ = ["Division"]

T = TypeVar("T")


@dataclass(frozen=True)
class Division:
    """How episodes are dealt to splits and files.

    Attributes:
        val_fraction: Share of the groups that goes to ``val``, in [0, 1); above 0, at least one goes.
        shards: Files a split, 1 or more.
        seed: Seed of the choice of ``val``.
    """

    val_fraction: float = 0.05
    shards: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.shards < 1:
            raise SettingsError(f"--shards is {self.shards}.", "It must be at least 1.")
        if not 0 <= self.val_fraction < 1:
            raise SettingsError(f"--val-fraction is {self.val_fraction}.", "It must lie between 0 and 1.")

    def splits(self, items: Sequence[T], groups: Sequence[Hashable]) -> Mapping[str, list[T]]:
        """Items in their order as ``{"train": [...], "val": [...]}``, neither of them empty.

        Args:
            items: What is divided.
            groups: Of each item, what stays together: task and initial state. A lone group is truncated apart.

        Raises:
            DataError: There are too few items for two parts.
        """
        if not self.val_fraction:
            return {"train": list(items)}
        known = list(dict.fromkeys(groups))
        if len(known) < 2:
            groups = range(len(items))
            known = list(groups)
        if len(known) < 2:
            raise DataError(
                "One episode or pair cannot be divided into the splits train and val.", "Collect from more states."
            )
        count = min(len(known) - 1, max(1, round(self.val_fraction * len(known))))
        chosen = np.random.default_rng(self.seed).permutation(len(known))[:count]
        held_out = {known[index] for index in chosen}
        return {
            "train": [item for item, group in zip(items, groups, strict=True) if group not in held_out],
            "val": [item for item, group in zip(items, groups, strict=True) if group in held_out],
        }

    def lengths(self, splits: Mapping[str, Sequence[T]]) -> dict[str, list[int]]:
        """Episodes of each file, by split."""
        return {name: shard_lengths(len(part), self.shards) for name, part in splits.items()}
