"""Whether the collection that fills a store came to its end, and how many of its rollouts are missing."""

from pathlib import Path
from typing import Any

from grape.core.errors import DataError
from grape.core.files import read_json_mapping, write_json
from grape.core.runs import is_complete, recorded_inputs
from grape.store.episode_store import EpisodeStore

__all__ = ["PLAN_FILE", "about_unfinished", "lost_episodes", "note_planned"]

PLAN_FILE = "plan.json"
"""What a collection writes down before it plays."""
_DONE_FILE = "done.json"


def note_planned(folder: Path, episodes: int | None, **facts: Any) -> None:
    """Write down how many episodes a collection has in all, before it plays them.

    Args:
        folder: The collection's folder.
        episodes: How many; None where that depends on how they end.
        **facts: Of a shard, what it is part of.
    """
    write_json(folder / PLAN_FILE, {"episodes": episodes, **facts})


def about_unfinished(store: EpisodeStore) -> tuple[str, ...]:
    """A sentence where rollouts are missing; nothing for whole collections and stores of other origin."""
    return (*(sentence for part in store.parts for sentence in _about(part)), *_about_shards(store))


def _about(store: EpisodeStore) -> tuple[str, ...]:
    folder = store.path.parent
    if recorded_inputs(folder, "collect") is None or store.path.name != "store":
        return ()
    advice = "Run the same 'grape collect' command again to play the rest, then score into another folder."
    what = f"The collection in {folder} {'is not what it was' if is_complete(folder) else 'did not come to its end'}"
    planned = _planned(folder)
    if planned is None:
        return () if is_complete(folder) else (f"{what}, so rollouts may be missing. {advice}",)
    missing = planned - len(store)
    if missing <= 0:
        return ()
    follows = f"what follows is of the {len(store)} that are there"
    return (f"{what}: {missing} of {planned} rollouts are missing, and {follows}. {advice}",)


def _about_shards(store: EpisodeStore) -> tuple[str, ...]:
    """A sentence where initial states have further episodes in shards that are not given."""
    given: dict[str, set[str]] = {}
    for part in store.parts:
        plan = _read(part.path.parent / PLAN_FILE)
        shard = plan.get("shard")
        if part.path.name == "store" and plan.get("divides_states") is True and isinstance(shard, str):
            given.setdefault(shard.rpartition("/")[2], set()).add(shard)
    parts = [(count, shards) for count, shards in given.items() if str(len(shards)) != count]
    return tuple(
        f"Initial states have episodes in several of {count} shards, of which {len(shards)} are given here: pairs miss "
        "the others. Score all shards together, or what 'grape merge' makes of them."
        for count, shards in parts
    )


def lost_episodes(path: Path) -> int:
    """How many episodes of a finished collection its store has lost; 0 where the whole store was taken away.

    Args:
        path: The store, within the collection's folder.
    """
    recorded = _episodes(path.parent / _DONE_FILE)
    return 0 if recorded is None or not path.exists() else max(0, recorded - len(EpisodeStore.open(path)))


def _planned(folder: Path) -> int | None:
    """How many episodes a collection has in all: those that it ended with, or, before its end, those of its plan."""
    recorded = _episodes(folder / _DONE_FILE)
    return _episodes(folder / PLAN_FILE) if recorded is None else recorded


def _episodes(file: Path) -> int | None:
    episodes = _read(file).get("episodes")
    return episodes if type(episodes) is int else None


def _read(file: Path) -> dict[str, Any]:
    """What a file says, as far as it can be read: it is for a warning, which must not stop anything."""
    try:
        return read_json_mapping(file, within=file.parent)
    except DataError:
        return {}
