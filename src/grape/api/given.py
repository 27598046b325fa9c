"""Pairs and trajectories that a program hands over, written where trainers read them: ``data/`` in the run's folder.

What is written is what ``grape collect`` and ``grape pair`` would have written, so a run on it is that of the command
line: it has the same identity, resumes in another process, and is reported on.
"""

from collections.abc import Iterable
from pathlib import Path

from grape.core.errors import DataError
from grape.core.preferences import PreferencePair
from grape.core.runs import GIVEN_DATA
from grape.core.tasks import ActionSpace
from grape.core.trajectories import Trajectory
from grape.preferences import PreferencePairs, save_pairs
from grape.store import Episodes, EpisodesInMemory, EpisodeStore, save_trajectories

__all__ = ["given_demonstrations", "given_pairs"]


def given_pairs(
    out: Path,
    pairs: PreferencePairs | Iterable[PreferencePair],
    trajectories: Iterable[Trajectory] | EpisodeStore | None,
) -> Path:
    """Folder of pairs for a training that writes to ``out``.

    Args:
        out: The training's folder.
        pairs: The pairs.
        trajectories: What they compare, where the pairs themselves do not know.

    Raises:
        DataError: There are no pairs, or a trajectory is missing.
        CompatibilityError: ``out`` was begun with other pairs.
    """
    chosen = list(pairs)
    episodes: Episodes
    if isinstance(trajectories, EpisodeStore):
        episodes = trajectories
    elif trajectories is not None:
        episodes = EpisodesInMemory(trajectories)
    elif isinstance(pairs, PreferencePairs):
        episodes = pairs.episodes
    else:
        raise DataError("The pairs name trajectories that are not given.", "Give them as trajectories=[...].")
    if isinstance(episodes, EpisodeStore):
        store = episodes
    else:
        names = sorted({name for pair in chosen for name in (pair.chosen, pair.rejected)})
        store = save_trajectories(out / GIVEN_DATA / "store", [episodes.read(name) for name in names])
    return save_pairs(out / GIVEN_DATA / "pairs", chosen, store)


def given_demonstrations(
    out: Path, trajectories: Iterable[Trajectory] | EpisodeStore, action_space: ActionSpace | None
) -> Path:
    """Store of demonstrations for a training that writes to ``out``.

    Raises:
        DataError: There are none, or ``out`` holds another trajectory of the same name.
        CompatibilityError: They are of several suites or kinds.
    """
    if isinstance(trajectories, EpisodeStore):
        return trajectories.path
    return save_trajectories(out / GIVEN_DATA / "store", trajectories, action_space=action_space).path
