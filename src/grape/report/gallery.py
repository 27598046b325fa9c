"""Selection of the preference pairs that the page shows, and their content.

The choice is for variety: pairs are taken one after another so that tasks, outcomes, deciding terms,
iterations and episodes repeat as little as possible. Among equals the larger margin goes first.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from grape.core.errors import DataError
from grape.core.film_strips import data_uri
from grape.core.preferences import PreferencePair, Score
from grape.core.trajectories import Trajectory
from grape.preferences import with_curves
from grape.report.timelines import Band, CurveRow, TermBars, constraint_rows, stage_bands, term_bars
from grape.report.videos import encode_video, episode_strip, frames_per_second, images_for_people, poster

__all__ = [
    "Candidate",
    "Details",
    "Episodes",
    "PairView",
    "SideView",
    "VideoLimits",
    "choose_pairs",
    "pair_view",
    "with_known_curves",
]

STRIP_CELLS = 6
ROWS_SHOWN = 5

Details = Callable[[Sequence[Score]], tuple[Sequence[Score], str]]
"""Gives scores with their stages and curves, and a sentence on what is missing."""


class Episodes(Protocol):
    """What the gallery needs of an episode store."""

    def __contains__(self, episode_id: object) -> bool:
        """Whether the episode is there."""

    def read(self, episode_id: str, *, frames: bool = True, display: bool = False) -> Trajectory:
        """The recorded trajectory."""


@dataclass(frozen=True)
class Candidate:
    """A pair that could be shown.

    Attributes:
        pair: The pair.
        chosen: Score of the preferred trajectory.
        rejected: Score of the other.
        origin: Where the pair was made, e.g. ``"iteration 1"``.
        episodes: Store that holds both trajectories, or None where it is gone.
        details: Reads stages and curves of the scores; None where they have them.
    """

    pair: PreferencePair
    chosen: Score
    rejected: Score
    origin: str
    episodes: Episodes | None
    details: Details | None = None

    @property
    def outcome(self) -> str:
        """Success or failure of both sides in words."""
        if self.chosen.success is None or self.rejected.success is None:
            return "outcome unknown"
        if self.chosen.success == self.rejected.success:
            return "both succeed" if self.chosen.success else "both fail"
        return "success against failure" if self.chosen.success else "failure against success"

    @property
    def deciding_term(self) -> str:
        """The term of the score that contributes most to the margin."""
        return max(sorted(self.pair.terms), key=lambda key: self.pair.terms[key], default="")


def choose_pairs(candidates: Sequence[Candidate], count: int) -> tuple[Candidate, ...]:
    """At most ``count`` candidates of great variety; the same candidates always give the same choice."""
    waiting = sorted(candidates, key=lambda item: (-item.pair.margin, item.origin, item.pair.pair_id))
    feature_counts: Counter[tuple[str, str]] = Counter()
    chosen: list[Candidate] = []
    while waiting and len(chosen) < count:
        best = min(range(len(waiting)), key=lambda index: (_repetition(waiting[index], feature_counts), index))
        candidate = waiting.pop(best)
        feature_counts.update(_features(candidate))
        chosen.append(candidate)
    return tuple(chosen)


# What repeating a feature once more costs: the same episode twice is worse than the same task twice, and so on.
_WEIGHTS = {"episode": 6.0, "task": 4.0, "outcome": 3.0, "term": 2.0, "origin": 1.0}


def _features(candidate: Candidate) -> list[tuple[str, str]]:
    return [
        ("task", candidate.pair.task),
        ("outcome", candidate.outcome),
        ("term", candidate.deciding_term),
        ("origin", candidate.origin),
        ("episode", candidate.pair.chosen),
        ("episode", candidate.pair.rejected),
    ]


def _repetition(candidate: Candidate, feature_counts: Mapping[tuple[str, str], int]) -> float:
    return sum(_WEIGHTS[feature[0]] * feature_counts.get(feature, 0) for feature in _features(candidate))


@dataclass(frozen=True)
class VideoLimits:
    """How large the images may become.

    Attributes:
        size: Width of a video in pixels.
        max_bytes: Wanted upper limit of one video.
    """

    size: int
    max_bytes: int


@dataclass(frozen=True)
class SideView:
    """One trajectory of a shown pair.

    Attributes:
        role: ``"chosen"`` or ``"rejected"``.
        name: What people read instead, e.g. ``"lowest cost"``.
        score: Its score.
        video: Data URI of the video, or empty.
        poster: Data URI of its first image, or empty.
        strip: Data URI of the film strip, or empty.
        strip_width: Width of the strip, percent of the time axis.
        ended: Where the episode ends on the time axis, in percent.
        success_at: Where success is first seen, in percent, or None.
        success_step: Decisions until success, or None.
        compared: Which decisions the pair compares, for people; empty for all.
        uncompared: The others as intervals of the time axis: left edge and width in percent.
        logp_per_step: Mean log-probability of a decision in nats, or None.
        bands: Stages on the time axis.
        rows: Constraints under the time axis.
    """

    role: str
    name: str
    score: Score
    video: str
    poster: str
    strip: str
    strip_width: float
    ended: float
    success_at: float | None
    success_step: int | None
    compared: str
    uncompared: tuple[tuple[float, float], ...]
    logp_per_step: float | None
    bands: tuple[Band, ...]
    rows: tuple[CurveRow, ...]


@dataclass(frozen=True)
class PairView:
    """Everything the page shows of one pair.

    Attributes:
        number: Position in the gallery, from 1.
        candidate: The pair and its scores.
        instruction: What the policy was told, or empty where the episodes are gone.
        sides: Chosen, then rejected.
        bars: The score's terms.
        n_frames: Length of the time axis in images.
        fps: Images a second.
        missing: Why there is no video, or empty.
    """

    number: int
    candidate: Candidate
    instruction: str
    sides: tuple[SideView, SideView]
    bars: tuple[TermBars, ...]
    n_frames: int
    fps: int
    missing: str

    @property
    def telling_rows(self) -> tuple[int, ...]:
        """The few constraints whose costs differ most, measured ones before yes-or-no ones; in the order of stages."""
        rows = list(zip(*(side.rows for side in self.sides), strict=True))
        gaps = [abs(one.contribution - other.contribution) for one, other in rows]
        yes_or_no = [one.yes_or_no and other.yes_or_no for one, other in rows]
        differing = (index for index, gap in enumerate(gaps) if gap > 0)
        ranked = sorted(differing, key=lambda index: (yes_or_no[index], -gaps[index], index))
        return tuple(sorted(ranked[:ROWS_SHOWN]))

    @property
    def other_rows(self) -> tuple[int, ...]:
        """All other constraints."""
        return tuple(index for index in range(len(self.sides[0].rows)) if index not in self.telling_rows)


def pair_view(
    number: int, candidate: Candidate, limits: VideoLimits, names: tuple[str, str] = ("chosen", "rejected")
) -> PairView:
    """Read both episodes, encode their videos and lay everything on one time axis; ``names`` is what people read."""
    recorded: list[Trajectory | None] = []
    candidate, missing = _with_details(candidate)
    for episode_id in (candidate.pair.chosen, candidate.pair.rejected):
        trajectory = None
        if candidate.episodes is None or episode_id not in candidate.episodes:
            missing = "The episodes of this pair are no longer in the run's folder, so there is no video."
        else:
            try:
                trajectory = candidate.episodes.read(episode_id, frames=True, display=True)
            except DataError as error:
                missing = f"No video: {error.message}"
        recorded.append(trajectory)
    scores = (candidate.chosen, candidate.rejected)
    steps = (candidate.pair.chosen_steps, candidate.pair.rejected_steps)
    n_frames = max(score.steps + 1 for score in scores)
    fps = frames_per_second(n_frames)
    rows = constraint_rows(candidate.chosen, candidate.rejected, n_frames)
    sides = tuple(
        _side(role, name, score, compared, trajectory, side_rows, n_frames, fps, limits)
        for role, name, score, compared, trajectory, side_rows in zip(
            ("chosen", "rejected"), names, scores, steps, recorded, rows, strict=True
        )
    )
    return PairView(
        number=number,
        candidate=candidate,
        instruction=next((trajectory.meta.instruction for trajectory in recorded if trajectory is not None), ""),
        sides=(sides[0], sides[1]),
        bars=term_bars(candidate.chosen, candidate.rejected),
        n_frames=n_frames,
        fps=fps,
        missing=missing,
    )


def with_known_curves(folder: Path, scores: Sequence[Score]) -> tuple[list[Score], str]:
    """Scores with the curves that a folder of ``grape score`` has of them, and why they are missing; else empty."""
    try:
        return list(with_curves(folder, scores).values()), ""
    except DataError as error:
        return list(scores), f"No curves: {error.message}"


def _with_details(candidate: Candidate) -> tuple[Candidate, str]:
    if candidate.details is None:
        return candidate, ""
    (chosen, rejected), missing = candidate.details((candidate.chosen, candidate.rejected))
    return replace(candidate, chosen=chosen, rejected=rejected), missing


def _side(
    role: str,
    name: str,
    score: Score,
    compared: tuple[int, int] | None,
    trajectory: Trajectory | None,
    rows: tuple[CurveRow, ...],
    n_frames: int,
    fps: int,
    limits: VideoLimits,
) -> SideView:
    frames = None if trajectory is None else images_for_people(trajectory)
    video = still = strip = ""
    strip_width = 0.0
    if frames is not None:
        frames = frames[:n_frames]
        data = encode_video(frames, size=limits.size, fps=fps, n_frames=n_frames, max_bytes=limits.max_bytes)
        video = data_uri("video/mp4", data)
        still = data_uri("image/jpeg", poster(frames[0], size=limits.size))
        image, cells = episode_strip(frames, cells=STRIP_CELLS, n_frames=n_frames)
        strip, strip_width = data_uri("image/jpeg", image), 100 * cells / STRIP_CELLS
    unit = "control steps" if trajectory is not None and trajectory.chunk_length > 1 else "decisions"
    success_state = None if trajectory is None else _first_success(trajectory)
    return SideView(
        role=role,
        name=name,
        score=score,
        video=video,
        poster=still,
        strip=strip,
        strip_width=strip_width,
        ended=100 * min(n_frames, score.steps + 1) / n_frames,
        success_at=None if success_state is None else 100 * success_state / n_frames,
        success_step=success_state,
        compared=f"{unit} {compared[0] + 1}–{compared[1]} of {score.steps} compared" if compared else "",
        uncompared=_uncompared(compared, score.steps, n_frames),
        logp_per_step=score.r_self / score.steps if score.r_self is not None and score.steps else None,
        bands=stage_bands(score, n_frames),
        rows=rows,
    )


def _uncompared(compared: tuple[int, int] | None, steps: int, n_frames: int) -> tuple[tuple[float, float], ...]:
    """Where the time axis shows decisions that the pair does not compare; a decision is at the image it was made on."""
    if compared is None:
        return ()
    spans = ((0, compared[0]), (compared[1], min(steps + 1, n_frames)))
    return tuple((100 * start / n_frames, 100 * (stop - start) / n_frames) for start, stop in spans if start < stop)


def _first_success(trajectory: Trajectory) -> int | None:
    """Index of the first state that counts as solved."""
    states = np.flatnonzero(trajectory.signals["success"] > 0.5)
    return int(states[0]) if states.size else None
