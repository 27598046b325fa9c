"""Shards of a plan: parts that machines without a shared file system play, each for itself.

A shard holds whole groups of the plan of the whole collection, so that the policy sees the same batches and every
episode has the bytes of one run. Shards are disjoint, together they are the plan, and they follow from the settings.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grape.collect.plan import Group
from grape.core.errors import SettingsError

__all__ = ["Shard", "groups_of_shard", "parse_shard", "shard_facts"]

_MOST_SHARDS = 100_000


@dataclass(frozen=True)
class Shard:
    """One of several parts.

    Attributes:
        number: Which one, from 1.
        count: How many there are.
    """

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def parse_shard(text: str) -> Shard | None:
    """The shard that a setting names, e.g. ``"2/8"``; None for the whole.

    Raises:
        SettingsError: The text is not of this form, or there is no such part.
    """
    if not text:
        return None
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if match is None:
        raise SettingsError(
            f"--shard {text!r} is not understood.", "Write I/N, e.g. 2/8 for the second of eight parts."
        )
    number, count = int(match[1]), int(match[2])
    if not 1 <= number <= count <= _MOST_SHARDS:
        raise SettingsError(
            f"--shard {text}: there is no such part.", f"I goes from 1 to N, and N up to {_MOST_SHARDS}, e.g. 2/8."
        )
    return Shard(number, count)


def groups_of_shard(groups: Sequence[Group], shard: Shard | None) -> tuple[Group, ...]:
    """The groups that a shard plays, in the order of the plan; all of them where there is no shard.

    Runs of groups that end with an initial state's last episode are dealt out one after the other, so that a state lies
    in one shard. Where there are fewer of these than shards, single groups are.

    Raises:
        SettingsError: There are more shards than groups.
    """
    if shard is None:
        return tuple(groups)
    if shard.count > len(groups):
        raise SettingsError(
            f"--shard {shard}: the plan has {len(groups)} groups of episodes, which are played as they are.",
            f"Give at most {len(groups)} shards, or fewer --lanes: groups hold so many episodes.",
        )
    units = _units(groups, shard.count)
    return tuple(group for unit in units[shard.number - 1 :: shard.count] for group in unit)


def shard_facts(groups: Sequence[Group], shard: Shard | None) -> dict[str, Any]:
    """What a shard's record says; nothing where there is no shard.

    Args:
        groups: Those of the whole plan.
        shard: Which part.

    Returns:
        ``shard``; ``whole``, the episodes of all shards together; ``divides_states``: whether episodes of one initial
        state lie in several shards, so that no shard can be paired alone.
    """
    if shard is None:
        return {}
    whole = sum(len(group.episodes) for group in groups)
    divided = shard.count > len(_runs_of_whole_states(groups))
    return {"shard": str(shard), "whole": whole, "divides_states": divided}


def _units(groups: Sequence[Group], count: int) -> list[list[Group]]:
    runs = _runs_of_whole_states(groups)
    return runs if len(runs) >= count else [[group] for group in groups]


def _runs_of_whole_states(groups: Sequence[Group]) -> list[list[Group]]:
    """Shortest runs of groups that share no initial state with another; a plan lists a state's episodes in a row."""
    runs: list[list[Group]] = []
    for group in groups:
        last = runs[-1][-1] if runs else None
        if last is not None and last.task == group.task and _last_state(last) == group.episodes[0].initial_state:
            runs[-1].append(group)
        else:
            runs.append([group])
    return runs


def _last_state(group: Group) -> int:
    return group.episodes[-1].initial_state
