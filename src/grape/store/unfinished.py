"""Whether the collection that fills a store came to its end, and how many of its rollouts are missing."""

from pathlib import Path

from grape.core.files import read_json_mapping, write_json
from grape.core.runs import is_complete, recorded_inputs
from grape.store.episode_store import EpisodeStore

__all__ = ["about_unfinished", "note_planned"]

_PLAN_FILE = "plan.json"


def note_planned(folder: Path, episodes: int) -> None:
    """Write down how many episodes a collection has in all, before it plays them.

    Args:
        folder: The collection's folder.
        episodes: Those of all rounds so far.
    """
    write_json(folder / _PLAN_FILE, {"episodes": episodes})


def about_unfinished(store: EpisodeStore) -> tuple[str, ...]:
    """A sentence where rollouts are missing; nothing for finished collections and stores of other origin."""
    folder = store.path.parent
    if is_complete(folder) or recorded_inputs(folder, "collect") is None or store.path.name != "store":
        return ()
    advice = "Run the same 'grape collect' command again to play the rest, then score into another folder."
    if not (folder / _PLAN_FILE).exists():
        return (f"The collection in {folder} did not come to its end, so rollouts may be missing. {advice}",)
    plan = read_json_mapping(folder / _PLAN_FILE, hint="Run the same 'grape collect' command again.", within=folder)
    planned = plan.get("episodes")
    missing = planned - len(store) if isinstance(planned, int) else 0
    if missing <= 0:
        return ()
    return (
        f"The collection in {folder} did not come to its end: {missing} of {planned} rollouts are missing, and what "
        f"follows is of the {len(store)} that are there. {advice}",
    )
