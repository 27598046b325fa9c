"""Which initial states a policy has learned from, kept beside its weights as ``provenance.json``.

Training writes it, a policy inherits what the policy it was trained from had seen, and an evaluation warns where it
would measure memory. The file holds ``{"collected": {suite: {task: "0-64,1000"}}}``.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from grape.core.errors import DataError, SettingsError
from grape.core.files import read_json, write_json
from grape.core.selections import format_numbers, parse_numbers
from grape.core.trajectories import EpisodeMeta

__all__ = ["read_provenance", "write_provenance"]

States = Mapping[str, Mapping[str, frozenset[int]]]

_NAME = "provenance.json"


def read_provenance(policy: Path) -> States:
    """Initial states by suite and task that a policy's training data came from.

    Args:
        policy: The checkpoint folder.

    Returns:
        Empty where the folder says nothing.

    Raises:
        DataError: ``provenance.json`` is there but not understood.
    """
    path = policy / _NAME
    if not path.is_file():
        return {}
    try:
        return {
            suite: {task: frozenset(parse_numbers(text, "initial states")) for task, text in tasks.items()}
            for suite, tasks in read_json(path)["collected"].items()
        }
    except (AttributeError, KeyError, TypeError, SettingsError) as error:
        raise DataError(
            f"{path} is not understood: {error}.",
            "It guards against evaluating on training states; fix it, or train the policy again.",
        ) from error


def write_provenance(policy: Path, parent: Path | None, metas: Iterable[EpisodeMeta]) -> None:
    """Write the states of ``metas`` and all that ``parent`` had seen.

    Args:
        policy: Checkpoint folder of the trained policy.
        parent: Checkpoint folder that training started from; None for a new policy.
        metas: The episodes that were trained on.

    Raises:
        DataError: The parent's file is there but not understood.
    """
    inherited = {} if parent is None else read_provenance(parent)
    seen = {suite: {task: set(states) for task, states in tasks.items()} for suite, tasks in inherited.items()}
    for meta in metas:
        seen.setdefault(meta.suite, {}).setdefault(meta.task, set()).add(meta.initial_state)
    collected = {
        suite: {task: format_numbers(tuple(states)) for task, states in tasks.items()} for suite, tasks in seen.items()
    }
    write_json(policy / _NAME, {"collected": collected})
