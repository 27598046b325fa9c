"""Initial states that a policy was trained or selected on, kept beside its weights as ``provenance.json``.

Training writes it, a policy inherits what the policy it was trained from had seen, and an evaluation warns of
them. The file holds ``{"collected": {suite: {task: "0-64,1000"}}}`` and, for policies that a loop
judged on validation states, ``"validated"`` with these.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grape.core.errors import DataError, SettingsError
from grape.core.files import read_json, write_json
from grape.core.selections import format_numbers, parse_numbers
from grape.core.trajectories import EpisodeMeta

__all__ = [
    "PROVENANCE_FILE",
    "Provenance",
    "add_validated",
    "provenance_from_json",
    "provenance_to_json",
    "read_provenance",
    "write_provenance",
]

States = Mapping[str, Mapping[str, frozenset[int]]]

PROVENANCE_FILE = "provenance.json"
"""Its name in a policy's folder."""


@dataclass(frozen=True)
class Provenance:
    """Initial states that a policy, or one that it was trained from, has met, by suite and task.

    Attributes:
        collected: Those that its training data came from.
        validated: Those on which it was judged before it was kept.
    """

    collected: States = field(default_factory=dict)
    validated: States = field(default_factory=dict)


def read_provenance(policy: Path) -> Provenance:
    """What a checkpoint's folder says of the states that its policy met; nothing where there is no such file.

    Args:
        policy: The checkpoint folder.

    Raises:
        DataError: ``provenance.json`` is there but not understood.
    """
    path = policy / PROVENANCE_FILE
    return provenance_from_json(read_json(path), str(path)) if path.is_file() else Provenance()


def provenance_from_json(data: Any, source: str) -> Provenance:
    """Inverse of :func:`provenance_to_json`.

    Args:
        data: What was read.
        source: What messages call it.

    Raises:
        DataError: It is not understood.
    """
    try:
        return Provenance(_states(data["collected"]), _states(data.get("validated", {})))
    except (AttributeError, KeyError, TypeError, SettingsError) as error:
        raise DataError(
            f"{source} is not understood: {error}.",
            "It guards against evaluating on training states; fix it, or train the policy again.",
        ) from error


def provenance_to_json(provenance: Provenance) -> dict[str, Any]:
    """What ``provenance.json`` holds."""
    parts = {"collected": provenance.collected}
    if provenance.validated:
        parts["validated"] = provenance.validated
    return {
        part: {
            suite: {task: format_numbers(tuple(states)) for task, states in tasks.items()}
            for suite, tasks in suites.items()
        }
        for part, suites in parts.items()
    }


def write_provenance(policy: Path, parent: Path | None, metas: Iterable[EpisodeMeta]) -> None:
    """Write the states of ``metas`` and all that ``parent`` had seen.

    Args:
        policy: Checkpoint folder of the trained policy.
        parent: Checkpoint folder that training started from; None for a new policy.
        metas: The episodes that were trained on.

    Raises:
        DataError: The parent's file is there but not understood.
    """
    inherited = Provenance() if parent is None else read_provenance(parent)
    new: dict[str, dict[str, set[int]]] = {}
    for meta in metas:
        new.setdefault(meta.suite, {}).setdefault(meta.task, set()).add(meta.initial_state)
    _write(policy, Provenance(_union(inherited.collected, new), inherited.validated))


def add_validated(policy: Path, suite: str, tasks: Iterable[str], states: Iterable[int]) -> None:
    """Record that a policy was selected on some initial states.

    Args:
        policy: Checkpoint folder of the policy.
        suite: Registered name of the suite.
        tasks: Names of the tasks.
        states: Initial states of each of them.

    Raises:
        DataError: ``provenance.json`` is there but not understood.
    """
    known, judged = read_provenance(policy), frozenset(states)
    validated = _union(known.validated, {suite: dict.fromkeys(tasks, judged)})
    if validated != known.validated:
        _write(policy, Provenance(known.collected, validated))


def _states(suites: Mapping[str, Mapping[str, str]]) -> States:
    return {
        suite: {task: frozenset(parse_numbers(text, "initial states")) for task, text in tasks.items()}
        for suite, tasks in suites.items()
    }


def _write(policy: Path, provenance: Provenance) -> None:
    write_json(policy / PROVENANCE_FILE, provenance_to_json(provenance))


def _union(some: States, more: Mapping[str, Mapping[str, Set[int]]]) -> States:
    """Every state of both."""
    joined = {suite: dict(tasks) for suite, tasks in some.items()}
    for suite, tasks in more.items():
        for task, states in tasks.items():
            own = joined.setdefault(suite, {})
            own[task] = own.get(task, frozenset()) | frozenset(states)
    return joined
