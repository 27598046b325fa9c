"""What a program hands over is written where trainers read it: ``data/`` in the run's folder.

What is written is what ``grape collect``, ``grape score`` and ``grape pair`` would have written, so a run on it is that
of the command line: it has the same identity, resumes in another process, and is reported on.
"""

from collections.abc import Iterable
from pathlib import Path

from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.core.preferences import PreferencePair
from grape.core.runs import GIVEN_DATA
from grape.core.tasks import ActionSpace
from grape.core.trajectories import Trajectory
from grape.preferences import PreferencePairs, ScoredTrajectories, save_pairs, save_scores
from grape.store import Episodes, EpisodesInMemory, EpisodeStore, save_trajectories

__all__ = ["PAIRS_FOLDER", "SCORES_FOLDER", "STORE_FOLDER", "given_demonstrations", "given_pairs", "given_scores"]

PAIRS_FOLDER, SCORES_FOLDER = Path(GIVEN_DATA, "pairs"), Path(GIVEN_DATA, "scores")
"""Where in the run's folder pairs and scores are written."""
STORE_FOLDER = Path(GIVEN_DATA, "store")
"""Where in the run's folder trajectories are written."""


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
    if trajectories is None and isinstance(pairs, PreferencePairs) and pairs.scored is not None:
        store = _store(out, pairs.scored.episodes, pairs.scored.scores)
        scores = save_scores(out / SCORES_FOLDER, pairs.scored, store)  # for a report, which shows them with the pairs
        return save_pairs(out / PAIRS_FOLDER, chosen, store, scores)
    episodes: Episodes
    if isinstance(trajectories, EpisodeStore):
        episodes = trajectories
    elif trajectories is not None:
        episodes = EpisodesInMemory(trajectories)
    elif isinstance(pairs, PreferencePairs):
        episodes = pairs.episodes
    else:
        raise DataError("The pairs name trajectories that are not given.", "Give them as trajectories=[...].")
    names = {name for pair in chosen for name in (pair.chosen, pair.rejected)}
    return save_pairs(out / PAIRS_FOLDER, chosen, _store(out, episodes, names))


def given_scores(out: Path, scored: object) -> Path:
    """Folder of scores for a training that writes to ``out``.

    Args:
        out: The training's folder.
        scored: The scores and what they are of.

    Raises:
        SettingsError: It is no :class:`ScoredTrajectories`.
        DataError: There are no scores, or a trajectory is missing.
        CompatibilityError: ``out`` was begun with other scores.
    """
    if not isinstance(scored, ScoredTrajectories):
        raise SettingsError(
            f"scores is {type(scored).__name__}, which holds no scored trajectories.",
            "Give what grape.score_trajectories or grape.score returned, or the folder of 'grape score'.",
        )
    return save_scores(out / SCORES_FOLDER, scored, _store(out, scored.episodes, scored.scores))


def given_demonstrations(out: Path, trajectories: Iterable[Trajectory], action_space: ActionSpace | None) -> None:
    """Write demonstrations for a training that writes to ``out``.

    Raises:
        DataError: There are none, or ``out`` holds another trajectory of the same name.
        CompatibilityError: They are of several suites or kinds.
    """
    _saved(out, EpisodesInMemory(trajectories), action_space)


def _store(out: Path, episodes: Episodes, names: Iterable[str]) -> EpisodeStore:
    """The store that holds the episodes: theirs, or one below ``out`` with those of these names."""
    if isinstance(episodes, EpisodeStore):
        return episodes
    return _saved(out, EpisodesInMemory(episodes.read(name) for name in sorted(names)))


def _saved(out: Path, episodes: EpisodesInMemory, action_space: ActionSpace | None = None) -> EpisodeStore:
    """The store below ``out`` with these trajectories and no others.

    Raises:
        CompatibilityError: It holds others, those of an earlier call; nothing was written.
    """
    path = out / STORE_FOLDER
    if (path / "episodes").exists():
        others = sorted(set(EpisodeStore.open(path).ids()) - {meta.episode_id for meta in episodes.metas()})
        if others:
            raise CompatibilityError(
                f"{out} was begun with other trajectories, {others[0]} among them.", "Give another out."
            )
    return save_trajectories(path, episodes, action_space=action_space)
