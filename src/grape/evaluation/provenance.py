"""Which initial states a policy has learned from, so that an evaluation does not measure memory.

A checkpoint folder may hold ``provenance.json``::

    {"collected": {"suite": "metaworld", "task": {"drawer-open": [7, "0-5", [100, 149]]}}}

``collected`` may also be a list of such objects. Numbers are states; ``"low-high"`` and ``[low, high]`` are inclusive
ranges.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from grape.core.errors import DataError, SettingsError
from grape.core.files import read_json
from grape.core.selections import format_numbers, parse_numbers

__all__ = ["collected_states", "seen_states"]

Ranges = tuple[tuple[int, int], ...]


def collected_states(policy: Path, suite: str) -> Mapping[str, Ranges]:
    """Initial states that the policy's training data were collected from.

    Args:
        policy: The checkpoint folder.
        suite: The suite of interest; states of other suites are left out.

    Returns:
        Inclusive ranges by task name; empty where the folder says nothing.

    Raises:
        DataError: ``provenance.json`` is there but not understood.
    """
    path = policy / "provenance.json"
    if not path.is_file():
        return {}
    data = read_json(path)
    entries = data.get("collected", []) if isinstance(data, dict) else None
    entries = [entries] if isinstance(entries, dict) else entries
    if not isinstance(entries, list):
        raise _not_understood(path, "'collected' is missing or no object")
    found: dict[str, Ranges] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("task"), dict) or "suite" not in entry:
            raise _not_understood(path, "an entry of 'collected' lacks 'suite' or 'task'")
        if entry["suite"] != suite:
            continue
        for task, states in entry["task"].items():
            items = states if isinstance(states, list) else [states]
            found[task] = found.get(task, ()) + tuple(_range(item, path) for item in items)
    return found


def _range(item: Any, path: Path) -> tuple[int, int]:
    if isinstance(item, int) and not isinstance(item, bool):
        return item, item
    if isinstance(item, list) and len(item) == 2 and all(type(bound) is int for bound in item):
        return item[0], item[1]
    if isinstance(item, str):
        try:
            numbers = parse_numbers(item, "initial states")
        except SettingsError as error:
            raise _not_understood(path, error.message) from error
        if len(numbers) == numbers[-1] - numbers[0] + 1:
            return numbers[0], numbers[-1]
    raise _not_understood(path, f"{item!r} is neither a state nor a range")


def _not_understood(path: Path, why: str) -> DataError:
    return DataError(
        f"{path} is not understood: {why}.",
        "It guards against evaluating on training states; mend it, or train the policy again.",
    )


def seen_states(collected: Mapping[str, Ranges], tasks: Iterable[str], states: Iterable[int]) -> dict[str, str]:
    """Initial states of an evaluation that training data were collected from.

    Args:
        collected: Ranges by task name, from :func:`collected_states`.
        tasks: Names of the tasks to be evaluated.
        states: Initial states to be evaluated.

    Returns:
        For each task concerned the states as text, e.g. ``{"drawer-open": "0-4,9"}``.
    """
    wanted = tuple(states)
    seen = {
        task: tuple(state for state in wanted if any(low <= state <= high for low, high in collected.get(task, ())))
        for task in tasks
    }
    return {task: format_numbers(found) for task, found in seen.items() if found}
