"""Dividing episodes into a part to train on and a part to validate on, by initial state.

Rollouts from one initial state look alike, so all of them go to the same part: otherwise validation would measure
memory.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from grape.core.errors import DataError, SettingsError

__all__ = ["divide"]

T = TypeVar("T")


def divide(
    items: Sequence[T], groups: Sequence[Hashable], fraction: float, seed: int, *, split_groups: bool
) -> Mapping[str, list[T]]:
    """Items in their order as ``{"train": [...], "val": [...]}``, both of them not empty.

    Args:
        items: What is divided.
        groups: Of each item, what must not be torn apart, e.g. task and initial state.
        fraction: Share of the groups that goes to ``val``, in (0, 1); at least one goes.
        seed: Seed of the choice.
        split_groups: Whether a lone group may be torn apart, so that both parts have something.

    Raises:
        SettingsError: The fraction is out of range.
        DataError: There are too few items for two parts.
    """
    if not 0 < fraction < 1:
        raise SettingsError(f"--val-fraction is {fraction}.", "It must lie between 0 and 1.")
    known = list(dict.fromkeys(groups))
    if len(known) < 2 and split_groups:
        groups, known = range(len(items)), list(range(len(items)))
    if len(known) < 2:
        raise DataError(
            "There is too little to divide into train and val: readers of RLDS pairs need both.",
            "Collect from more initial states.",
        )
    count = min(len(known) - 1, max(1, round(fraction * len(known))))
    chosen = np.random.default_rng(seed).permutation(len(known))[:count]
    held_out = {known[index] for index in chosen}
    return {
        "train": [item for item, group in zip(items, groups, strict=True) if group not in held_out],
        "val": [item for item, group in zip(items, groups, strict=True) if group in held_out],
    }
