"""``grape costs show --out``: a page about a cost specification, with curves over the time of recorded episodes."""

import statistics
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from grape.core.errors import SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.files import sweep_beside, write_text
from grape.core.preferences import PreferencePair, Score
from grape.core.settings import Range, check_ranges, setting
from grape.core.trajectories import Trajectory
from grape.costs import (
    CostSpecification,
    ReportCard,
    ValidationCriteria,
    check_specification,
    evaluate,
    external_reward,
    find_episodes,
    find_specification,
    show_specification,
    specification_hash,
    validate_specification,
)
from grape.costs.specification import Constraint
from grape.report.gallery import Candidate, PairView, VideoLimits, pair_view
from grape.report.numbers import quantity
from grape.report.page import load_jinja, render_template
from grape.store import EpisodeStore
from grape.store.h264 import load_av

__all__ = ["CostsPageSettings", "run_costs_page"]

_VIDEO_BUDGET = 9_000_000  # of all videos together
_DRAWS = 2


_PAGE = "The page"


@dataclass(frozen=True)
class CostsPageSettings:
    """Show a cost specification: as text, or as a page with its curves under the videos of recorded episodes.

    Attributes:
        target: A YAML file, or a built-in as SUITE/TASK, e.g. metaworld/drawer-open.
        store: Episode stores, or folders that grape collect wrote, whose episodes are scored and shown on the page.
        out: HTML file to write; without it, the stages are printed as text.
        as_yaml: Print it in the language itself, to make another specification of it.
        task: Task whose episodes are looked at, for a specification that names none.
        shown: Initial states whose episodes with the lowest and the highest cost are shown, from 0 to 24.
        video_size: Width of a video in pixels, from 64 to 1024.
    """

    target: str = setting("", common=True)
    store: tuple[Path, ...] = setting((), common=True)
    out: Path | None = setting(None, common=True)
    as_yaml: bool = setting(False, common=True)
    task: str = setting("", group=_PAGE, common=True)
    shown: int = setting(4, group=_PAGE, range=Range(0, 24), common=True)
    video_size: int = setting(320, group=_PAGE, range=Range(64, 1024), common=True)


@dataclass(frozen=True)
class ConstraintRow:
    """A constraint in the table of stages.

    Attributes:
        name: Its name.
        how: Kind and aggregation.
        cost: What is measured.
        charge: Weight and threshold in words.
        tags: Objectives.
        description: For people.
        solved: Mean contribution in successes, or None without any.
        failed: The same in failures.
    """

    name: str
    how: str
    cost: str
    charge: str
    tags: str
    description: str
    solved: float | None
    failed: float | None


@dataclass(frozen=True)
class StageBlock:
    """A stage with its constraints; the last one is the outcome.

    Attributes:
        number: From 1; 0 for the outcome.
        name: Its name.
        description: For people.
        done_when: When it ends; empty for the outcome.
        penalty: What leaving it unfinished costs.
        rows: Its constraints.
    """

    number: int
    name: str
    description: str
    done_when: str
    penalty: float
    rows: tuple[ConstraintRow, ...]


class Contributions:
    """What each constraint added to the costs of successes and failures, eight bytes an episode and constraint."""

    def __init__(self) -> None:
        self._values: dict[tuple[bool, int, int], array[float]] = {}

    def add(self, score: Score) -> None:
        """Count one episode of known outcome."""
        if score.success is not None:
            for stage, entry in enumerate(score.stages):
                for position, constraint in enumerate(entry.constraints):
                    values = self._values.setdefault((score.success, stage, position), array("d"))
                    values.append(constraint.contribution)

    def mean(self, stage: int, position: int, *, success: bool) -> float | None:
        """Mean over the episodes of one outcome, or None without any."""
        values = self._values.get((success, stage, position))
        return statistics.fmean(values) if values else None


def run_costs_page(settings: CostsPageSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Print a specification, or write its page.

    Returns:
        Without ``out`` see :func:`grape.costs.show_specification`. Else ``text``, ``page``, ``bytes``, ``episodes``,
        ``verdict`` of the trial (None without episodes), ``source`` and ``hash``.

    Raises:
        SettingsError: A setting is out of range, the target is unknown, or a package is missing.
        DataError: The file is no valid specification, or uses what was not recorded.
        CompatibilityError: The stores hold no episode of the specification's task.
    """
    if settings.out is None:
        if settings.store:
            raise SettingsError("--store goes with --out.", "Give the page to write, e.g. --out costs.html.")
        return show_specification(settings.target, as_yaml=settings.as_yaml)
    check_ranges(settings)
    load_jinja()
    specification = find_specification(settings.target)
    episodes = _episodes(settings, specification)
    card: ReportCard | None = None
    if episodes:
        first = next(iter(episodes.values())).read(frames=False)
        check_specification(specification, first.keypoints, first.signals, "camera" in first.meta.extra)
        with reporter.progress("trying", len(episodes)) as progress:
            criteria = ValidationCriteria(draws=_DRAWS)
            read = (episode.read(frames=False) for episode in episodes.values())
            card = validate_specification(specification, read, criteria, advance=progress.advance)
    scores, contributions = _scores(specification, episodes)
    views = _views(settings, specification, episodes, scores, reporter)
    title = "/".join(part for part in (specification.suite, specification.task) if part) or settings.target
    page = render_template(
        "costs.html.j2",
        title=title,
        specification=specification,
        blocks=_blocks(specification, contributions),
        card=card,
        marks={True: "✓", False: "✗", None: "–"},
        pairs=views,
        episodes=len(episodes),
        hash=specification_hash(specification),
    )
    sweep_beside(settings.out)
    write_text(settings.out, page)
    return {
        "text": f"page   {settings.out}\ntrial  {card.verdict if card is not None else 'no episodes were given'}",
        "page": str(settings.out),
        "bytes": len(page.encode()),
        "episodes": len(episodes),
        "verdict": card.verdict if card is not None else None,
        "source": specification.source,
        "hash": specification_hash(specification),
    }


@dataclass(frozen=True)
class _Episode:
    """An episode and the store it is in; episodes of different stores may share an id."""

    store: EpisodeStore
    episode_id: str

    def read(self, *, frames: bool = True, display: bool = False) -> Trajectory:
        return self.store.read(self.episode_id, frames=frames, display=display)


@dataclass(frozen=True)
class _Named:
    """Episodes by the names that the page gives them."""

    episodes: Mapping[str, _Episode]

    def __contains__(self, episode_id: object) -> bool:
        return episode_id in self.episodes

    def read(self, episode_id: str, *, frames: bool = True, display: bool = False) -> Trajectory:
        return self.episodes[episode_id].read(frames=frames, display=display)


def _episodes(settings: CostsPageSettings, specification: CostSpecification) -> dict[str, _Episode]:
    """Episodes by folder and id, and a number where that is not unique."""
    named: dict[str, _Episode] = {}
    if not settings.store:
        return named
    for store, episode_id in find_episodes(settings.store, specification, settings.task):
        folder = store.path.resolve()
        name = f"{folder.parent.name if folder.name == 'store' else folder.name}/{episode_id}"
        if name in named:
            name = f"{name} ({len(named)})"
        named[name] = _Episode(store, episode_id)
    return named


def _scores(specification: CostSpecification, episodes: Mapping[str, _Episode]) -> tuple[list[Score], Contributions]:
    """Scores of all episodes without their stages, and what each constraint contributed."""
    scores, contributions = [], Contributions()
    for name, episode in episodes.items():
        score = _score(specification, name, episode.read(frames=False))
        contributions.add(score)
        scores.append(replace(score, stages=()))
    return scores, contributions


def _score(specification: CostSpecification, name: str, episode: Trajectory) -> Score:
    stages, meta = evaluate(specification, episode), episode.meta
    cost = sum(stage.cost for stage in stages)
    return Score(
        episode_id=name,
        task=meta.task,
        initial_state=meta.initial_state,
        success=meta.success,
        steps=meta.steps,
        r_self=None,
        r_ext=external_reward(stages),
        cost=cost,
        terms={},
        gcpg=-cost,
        stages=stages,
    )


def _views(
    settings: CostsPageSettings,
    specification: CostSpecification,
    episodes: Mapping[str, _Episode],
    scores: Sequence[Score],
    reporter: Reporter,
) -> list[PairView]:
    """Episodes with the lowest and the highest cost of some initial states, largest differences first."""
    states: dict[tuple[str, int], list[Score]] = {}
    for score in scores:
        states.setdefault((score.task, score.initial_state), []).append(score)
    ends = [
        (min(group, key=lambda item: item.cost), max(group, key=lambda item: item.cost)) for group in states.values()
    ]
    ends.sort(key=lambda pair: (pair[0].cost - pair[1].cost, pair[0].episode_id))
    chosen = ends[: settings.shown]
    if not chosen:
        return []
    load_av("report")
    limits = VideoLimits(settings.video_size, _VIDEO_BUDGET // (2 * len(chosen)))

    def details(some: Sequence[Score]) -> tuple[list[Score], str]:
        names = [score.episode_id for score in some]
        return [_score(specification, name, episodes[name].read(frames=False)) for name in names], ""

    views = []
    with reporter.progress("videos", len(chosen)) as progress:
        for number, (cheap, dear) in enumerate(chosen, start=1):
            pair = PreferencePair(
                pair_id=str(number),
                task=cheap.task,
                initial_state=cheap.initial_state,
                chosen=cheap.episode_id,
                rejected=dear.episode_id,
                margin=dear.cost - cheap.cost,
                mode="lowest and highest cost",
                reason="",
            )
            candidate = Candidate(pair, cheap, dear, "", _Named(episodes), details)
            views.append(pair_view(number, candidate, limits, names=("lowest cost", "highest cost")))
            progress.advance()
    return views


def _blocks(specification: CostSpecification, contributions: Contributions) -> list[StageBlock]:
    blocks = [
        StageBlock(
            number=number,
            name=stage.name,
            description=stage.description,
            done_when=stage.end_text,
            penalty=stage.penalty,
            rows=_rows(stage.constraints, number - 1, contributions),
        )
        for number, stage in enumerate(specification.stages, start=1)
    ]
    outcome = specification.outcome
    rows = _rows(outcome.constraints, len(specification.stages), contributions)
    return [*blocks, StageBlock(0, "outcome", "", "", outcome.unfinished, rows)]


def _rows(constraints: Sequence[Constraint], stage: int, contributions: Contributions) -> tuple[ConstraintRow, ...]:
    return tuple(
        ConstraintRow(
            name=constraint.name,
            how=" ".join(part for part in (constraint.kind, constraint.aggregate) if part),
            cost=str(constraint.cost),
            charge=_charge(constraint),
            tags=", ".join(constraint.objectives),
            description=constraint.description,
            solved=contributions.mean(stage, position, success=True),
            failed=contributions.mean(stage, position, success=False),
        )
        for position, constraint in enumerate(constraints, start=1)  # the first one priced is the stage's completion
    )


def _charge(constraint: Constraint) -> str:
    unit = "" if constraint.unit in ("fraction", "ratio", "of limit", "signal") else f" per {constraint.unit}"
    threshold = quantity(constraint.threshold, constraint.unit)
    return f"{constraint.weight:g}{unit} above {threshold}, at most {constraint.max_contribution:.2g}"
