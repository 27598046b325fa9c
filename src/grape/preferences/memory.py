"""Scores and pairs of trajectories in memory: what ``grape score`` and ``grape pair`` compute, without folders."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from grape.core.errors import DataError, SettingsError, require_known
from grape.core.events import SILENT, Reporter
from grape.core.files import content_hash, write_jsonl
from grape.core.film_strips import strip_rows
from grape.core.preferences import PreferencePair, Score
from grape.core.runs import open_run
from grape.core.settings import settings_from_dict
from grape.core.tables import Table
from grape.core.trajectories import Trajectory
from grape.costs import CostSpecification, specification_hash
from grape.preferences.curves import CURVES_FILE, EPISODES_PER_GROUP, curves_table, write_curves
from grape.preferences.pair import select_pairs
from grape.preferences.pair_settings import PairSettings, check_pair
from grape.preferences.records import (
    PAIRS_FILE,
    SCORES_FILE,
    pair_to_row,
    score_to_row,
    score_with_curves_to_row,
    store_reference,
)
from grape.preferences.score import ScoreSettings, check_score, score_by
from grape.preferences.scoring import score_episodes
from grape.preferences.specifications import check_recorded_names, check_success_counts, choose_specifications
from grape.preferences.thresholds import thresholds_by_hand
from grape.scorers import ScorerValues
from grape.store import Episodes, EpisodesInMemory, EpisodeStore

__all__ = [
    "ComparedTrajectories",
    "PreferencePairs",
    "ScoredTrajectories",
    "make_pairs",
    "save_pairs",
    "save_scores",
    "score_trajectories",
]

_IN_MEMORY = Path("in-memory")

Specification = CostSpecification | Mapping[str, CostSpecification] | Path | str


@dataclass(frozen=True, eq=False, repr=False)
class ScoredTrajectories(Table):
    """Trajectories and their scores.

    Attributes:
        scores: By episode id.
        episodes: The trajectories.
        summary: What ``grape score`` writes into ``done.json``: means, correlations, the calibration, warnings.
        values: Of each further scorer, by its label.
    """

    scores: Mapping[str, Score]
    episodes: Episodes
    summary: Mapping[str, Any]
    values: Mapping[str, ScorerValues] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Score]:
        return iter(self.scores.values())

    def __getitem__(self, episode_id: str) -> Score:
        return self.scores[episode_id]

    def __repr__(self) -> str:
        states = len({(score.task, score.initial_state) for score in self})
        return f"ScoredTrajectories({len(self)} of {states} initial states, {self.summary['successes']} succeeded)"

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        """One mapping a trajectory, the terms of R_GCPG apart."""
        names = ("episode_id", "task", "initial_state", "success", "steps", "r_self", "r_ext", "cost", "gcpg")
        return (
            {name: getattr(score, name) for name in names} | {f"term_{name}": x for name, x in score.terms.items()}
            for score in self
        )


@dataclass(frozen=True, eq=False, repr=False)
class PreferencePairs(Table):
    """Preference pairs and the trajectories that they compare.

    Attributes:
        pairs: In the order of ``pairs.jsonl``.
        episodes: The trajectories.
        summary: What ``grape pair`` writes into ``done.json``: counts, margins, what became of the initial states.
        scored: What they were made of in memory; None for pairs that were read from a folder.
    """

    pairs: tuple[PreferencePair, ...]
    episodes: Episodes
    summary: Mapping[str, Any]
    scored: ScoredTrajectories | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[PreferencePair]:
        return iter(self.pairs)

    def __getitem__(self, number: int) -> PreferencePair:
        return self.pairs[number]

    def __repr__(self) -> str:
        states = len({(pair.task, pair.initial_state) for pair in self})
        return f"PreferencePairs({len(self)} of {states} initial states)"

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        """One mapping a pair."""
        names = ("pair_id", "task", "initial_state", "chosen", "rejected", "margin", "weight", "mode", "reason")
        return ({name: getattr(pair, name) for name in names} for pair in self)

    def side_by_side(self, number: int) -> "ComparedTrajectories":
        """One pair with what it compares, which a notebook shows as two film strips.

        Args:
            number: Place of the pair, as of ``pairs[number]``.
        """
        pair = self.pairs[number]
        return ComparedTrajectories(pair, self.episodes.read(pair.chosen), self.episodes.read(pair.rejected))


@dataclass(frozen=True, eq=False, repr=False)
class ComparedTrajectories:
    """A preference pair with its trajectories.

    Attributes:
        pair: Which of the two is preferred, by how much, and why.
        chosen: The better trajectory.
        rejected: The worse one.
    """

    pair: PreferencePair
    chosen: Trajectory
    rejected: Trajectory

    def __repr__(self) -> str:
        return f"chosen: {self.chosen!r}\nrejected: {self.rejected!r}\n{self._verdict}"

    def _repr_html_(self) -> str:
        """Both as film strips, the same times below one another."""
        return strip_rows(
            [
                (f"chosen: {self.chosen!r}", self.chosen.frames),
                (f"rejected: {self.rejected!r}", self.rejected.frames),
                (self._verdict, self.chosen.frames[:0]),
            ]
        )

    @property
    def _verdict(self) -> str:
        reason = f": {self.pair.reason}" if self.pair.reason else ""
        return f"margin {self.pair.margin:.4g}{reason}"


def score_trajectories(
    trajectories: Iterable[Trajectory] | EpisodeStore,
    specification: Specification | None = None,
    *,
    reporter: Reporter = SILENT,
    **settings: Any,
) -> ScoredTrajectories:
    """Score trajectories by R_GCPG, as ``grape score`` does, without files.

    Args:
        trajectories: Of one suite; or a store, whose episodes are read one after another.
        specification: What they cost: a specification for all tasks, one for each task by its name, or a YAML file or
            folder. Without one, the built-in specification of each task, or its suite's; a task that has none is
            scored by success alone: R_self and costs count nothing there.
        reporter: Hears of progress and warnings, which are in the summary as well.
        **settings: Fields of :class:`ScoreSettings` but ``store``, ``out`` and ``costs``, e.g. ``calibrate=False``.

    Raises:
        SettingsError: A setting is unknown or out of range, or success is to count for nothing where nothing else can.
        DataError: There are no trajectories, or the specification speaks of keypoints or signals that were not
            recorded.
        CompatibilityError: The trajectories do not compare.
    """
    if isinstance(trajectories, str | Path):
        raise SettingsError(
            f"score_trajectories takes trajectories or an open store, not the path {trajectories}.",
            "Open it: grape.EpisodeStore.open(PATH); or score into a folder: grape.score(store=PATH, out=...).",
        )
    chosen = _settings(ScoreSettings, ("store", "out", "costs", "dry_run"), settings, store=_IN_MEMORY)
    choices = check_score(chosen)
    if isinstance(specification, str | Path):
        chosen = replace(chosen, costs=Path(specification))
    episodes = trajectories if isinstance(trajectories, EpisodeStore) else EpisodesInMemory(trajectories)
    metas = episodes.metas()
    tasks = sorted({meta.task for meta in metas})
    if not tasks:
        raise DataError(f"{episodes!r} holds no episodes.", "Collect some first.")
    specifications = _specifications(specification, episodes.suite, tasks)
    if not chosen.external_reward:
        check_success_counts(chosen.weights, [task for task in tasks if task not in specifications])
    check_recorded_names(episodes, metas, specifications)
    by_hand = thresholds_by_hand(specifications, chosen.threshold_values)
    hashes = {task: specification_hash(item) for task, item in specifications.items()}
    where = episodes.place if isinstance(episodes, EpisodeStore) else "the trajectories in memory"
    values = score_by(choices, chosen, episodes, reporter)
    external = values.get(chosen.external_reward)
    scored = score_episodes(chosen, episodes, specifications, by_hand, hashes, where, reporter, external)
    scores = {score.episode_id: score for score in scored.scores}
    return ScoredTrajectories(scores, episodes, scored.summary(), values)


def make_pairs(scored: ScoredTrajectories, *, reporter: Reporter = SILENT, **settings: Any) -> PreferencePairs:
    """Make preference pairs of scored trajectories, as ``grape pair`` does, without files.

    Args:
        scored: What :func:`score_trajectories` gave.
        reporter: Hears of how many pairs were made.
        **settings: Fields of :class:`PairSettings` but ``scores`` and ``out``, e.g. ``mode="best-worst"``.

    Raises:
        SettingsError: A setting is unknown or out of range.
        NoPairsError: No pair can be made.
    """
    if not isinstance(scored, ScoredTrajectories):
        raise SettingsError(
            f"make_pairs takes scored trajectories, not {type(scored).__name__}.",
            "Give what grape.score_trajectories returned, or the scored of what grape.score did; of a folder of scores "
            "grape.pair(scores=FOLDER, out=...) makes pairs.",
        )
    chosen = _settings(PairSettings, ("scores", "out"), settings, scores=_IN_MEMORY)
    check_pair(chosen)
    selected = select_pairs(
        chosen, scored.scores, scored.episodes, scored.summary, "The scores", reporter, scored.values
    )
    return PreferencePairs(tuple(selected.pairs), scored.episodes, selected.summary(), scored)


def save_pairs(folder: Path, pairs: Iterable[PreferencePair], store: EpisodeStore, scores: Path = _IN_MEMORY) -> Path:
    """Write pairs into a folder as ``grape pair`` does, so that training can read them.

    Args:
        folder: New, or one that holds the same pairs.
        pairs: Of episodes of ``store``.
        store: The store.
        scores: Folder of the scores that they were made of, if there is one.

    Raises:
        DataError: There are no pairs, or an episode is missing.
        CompatibilityError: The folder holds other pairs.
    """
    rows = [pair_to_row(pair) for pair in pairs]
    if not rows:
        raise DataError("There are no pairs to learn from.", "Make some with grape.make_pairs.")
    for row in rows:
        store.meta(row["chosen"]), store.meta(row["rejected"])
    run = open_run(folder, "pair", PairSettings(scores=scores, out=folder), {"pairs": content_hash(rows)})
    if run.done is None:
        write_jsonl(folder / PAIRS_FILE, rows)
        run.finish({"pairs": len(rows), **store_reference(store, folder)})
    return folder


def save_scores(folder: Path, scored: ScoredTrajectories, store: EpisodeStore) -> Path:
    """Write scores into a folder as ``grape score`` does, so that training can read them.

    Args:
        folder: New, or one that holds the same scores.
        scored: The scores, of episodes of ``store``.
        store: The store.

    Raises:
        DataError: There are no scores, or an episode is missing.
        CompatibilityError: The folder holds other scores.
    """
    rows = [score_with_curves_to_row(score) for score in scored]
    if not rows:
        raise DataError("There are no scores to learn from.", "Make some with grape.score_trajectories.")
    for row in rows:
        store.meta(row["episode_id"])
    settings = ScoreSettings(store=tuple(part.path for part in store.parts), out=folder)
    run = open_run(folder, "score", settings, {"scores": content_hash(rows)})
    if run.done is None:
        stages = [(score.episode_id, score.stages) for score in scored]
        groups = range(0, len(stages), EPISODES_PER_GROUP)
        tables = (curves_table(stages[first : first + EPISODES_PER_GROUP]) for first in groups)
        write_curves(folder / CURVES_FILE, tables)
        write_jsonl(folder / SCORES_FILE, map(score_to_row, scored))
        run.finish({**scored.summary, **store_reference(store, folder)})
    return folder


def _settings(kind: Any, paths: tuple[str, ...], values: Mapping[str, Any], **placeholder: Path) -> Any:
    """Settings without their paths, which have no meaning in memory.

    Raises:
        SettingsError: A value has the wrong type, or its name is unknown or one of the paths'.
    """
    names = [name for name in kind.__dataclass_fields__ if name not in paths]
    for name in values:
        require_known("setting", name, names)
    return settings_from_dict(kind, {**values, **placeholder, "out": _IN_MEMORY})


def _specifications(given: Specification | None, suite: str, tasks: list[str]) -> dict[str, CostSpecification]:
    """The specification of each task that has one.

    Raises:
        SettingsError: One is for no task of the trajectories, or a path does not exist.
    """
    if isinstance(given, CostSpecification):
        given = {given.task: given} if given.task else dict.fromkeys(tasks, given)
    if not isinstance(given, Mapping):
        return choose_specifications(suite, tasks, None if given is None else Path(given))
    for task in given:
        require_known("task of the trajectories", task, tasks)
    others = [task for task in tasks if task not in given]
    return choose_specifications(suite, others, None) | dict(given)
