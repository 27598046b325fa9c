"""Parts of episodes: the control steps of a stage, and where the rejected side of a pair is cut.

A recorded episode of ``T`` control steps has the states 0..T; control step ``t`` leads from state ``t`` to state
``t + 1``. A stage's score names states: it lay from state ``start`` to state ``end``, both inclusive, and the next
stage starts at the state where it ended. Hence the control steps of a stage are ``[start, end)``, half-open: the first
one was taken at the stage's first state, the last one led to its last state. So the control steps of consecutive stages
are disjoint and leave none out, and a stage that was done at its first state has none.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError
from grape.core.preferences import PreferencePair, Score, StageScore
from grape.core.trajectories import Trajectory

__all__ = ["Cut", "cut_pair", "kept_by_distance", "kept_by_length", "kept_by_stage", "stage_members", "steps_of"]

Cut = Literal["none", "stage", "distance", "length"]

Float64 = npt.NDArray[np.float64]


def steps_of(stage: StageScore) -> tuple[int, int]:
    """Half-open range of the control steps taken in a stage; empty (equal numbers) where there is none."""
    return (stage.start, stage.end) if stage.reached and stage.end > stage.start else (stage.start, stage.start)


def stage_members(members: Sequence[Score]) -> dict[str, list[tuple[Score, StageScore]]]:
    """Episodes of one initial state that spent control steps in a stage, by its name; cheapest first, equals by id.

    Only these can be compared there (stage-wise preferences as in STARE-VLA, arXiv 2512.05107): an episode that never
    came to the stage has no segment, and is charged a fixed cost that tells nothing of how the stage was done. The
    outcome, which judges one state, is no stage.
    """
    stages: dict[str, list[tuple[Score, StageScore]]] = {}
    for score in members:
        for stage in score.stages:
            start, stop = steps_of(stage)
            if stop > start:
                stages.setdefault(stage.name, []).append((score, stage))
    return {
        name: sorted(entered, key=lambda entry: (entry[1].cost, entry[0].episode_id))
        for name, entered in stages.items()
    }


def kept_by_length(chosen_steps: int, rejected_steps: int) -> int:
    """Decisions from the first one on that the rejected side keeps, so that it is no longer than the chosen side.

    At least one control step is kept.
    """
    return _bounded(chosen_steps, rejected_steps)


def kept_by_stage(chosen: Score, rejected: Score) -> int:
    """Decisions from the first one on that the rejected side keeps until the sides' progress through stages differs.

    The sides part in a stage that one of them finished and the other did not (a solved episode finished all). There the
    rejected side keeps

    * where the chosen side finished it: as many control steps in that stage as the chosen side took to finish it,
      counted from where each side entered it, so that being slower in earlier stages cuts nothing off;
    * where the rejected side finished it: its control steps until then.

    What is cut off is what the rejected side did while the chosen one was in later stages already, or in stages that
    the chosen one never saw. The earliest cut counts where several stages part the sides (sub-goals in either order),
    and nothing is cut where none does. At least one control step is kept.
    """
    stages, stop = {stage.name: stage for stage in rejected.stages}, rejected.steps
    for stage in chosen.stages:
        other = stages.get(stage.name)
        if other is None or not other.reached or stage.name == "outcome":
            continue
        chosen_finished, rejected_finished = stage.done or bool(chosen.success), other.done or bool(rejected.success)
        start, end = steps_of(other)
        if chosen_finished and not rejected_finished:
            first, last = steps_of(stage)
            stop = min(stop, end, start + last - first)
        elif rejected_finished and not chosen_finished:
            stop = min(stop, end)
    return _bounded(stop, rejected.steps)


def kept_by_distance(chosen: Trajectory, rejected: Trajectory, threshold: float) -> int:
    """Decisions from the first one on that the rejected side keeps until it leaves the chosen side's states.

    The distance of two states is the largest Euclidean distance, in meters, of a keypoint that both sides recorded. A
    state of the rejected side has left the chosen side where every state of the chosen side, at whatever time, is
    further than ``threshold``: being slower or faster on the same way is no parting. The rejected side keeps the
    control steps before its first such state, the last of which led there; all of them where there is none, and at
    least one. Where the rejected side lost a keypoint (NaN) the others decide, and a state without any is taken as
    near. A state of which the chosen side lost one is near to nothing, unless that keypoint was lost throughout.

    Args:
        chosen: The preferred trajectory.
        rejected: The other one.
        threshold: Meters, above 0.

    Raises:
        DataError: The sides have no keypoint in common.
    """
    names = sorted(chosen.keypoints.keys() & rejected.keypoints.keys())
    if not names:
        raise DataError(
            f"Episodes {chosen.meta.episode_id} and {rejected.meta.episode_id} recorded no keypoint in common, so the "
            "distance of their states is unknown.",
            "Use --cut stage or --cut length.",
        )
    distance: Float64 = np.zeros((rejected.steps + 1, chosen.steps + 1))
    for name in names:
        followed, left = (side.keypoints[name].astype(np.float64) for side in (chosen, rejected))
        if np.isfinite(followed).all(axis=1).any():
            apart = np.linalg.norm(left[:, None] - followed[None], axis=-1)
            apart[~np.isfinite(left).all(axis=1)] = 0.0
            distance = np.maximum(distance, apart)  # NaN where the chosen side lost the keypoint
    away = np.fmin.reduce(distance, axis=1) > threshold  # comparing with NaN is False
    return _bounded(int(away.argmax()) if away.any() else rejected.steps, rejected.steps)


def cut_pair(
    pair: PreferencePair,
    cut: Cut,
    sides: tuple[Score, Score],
    read: Callable[[str], Trajectory],
    threshold: float,
) -> PreferencePair:
    """The pair with its rejected side cut; the chosen side stays as it is, and the margin that of the whole episodes.

    Args:
        pair: The pair; of a stage-wise one, only ``"length"`` can cut the segment.
        cut: ``"stage"``, ``"distance"`` or ``"length"``: see :func:`kept_by_stage`, :func:`kept_by_distance` and
            :func:`kept_by_length`; ``"none"`` returns the pair.
        sides: Scores of the chosen and the rejected episode.
        read: Gives an episode by its id; called for ``"distance"`` only.
        threshold: Meters, for ``"distance"``.

    Raises:
        DataError: An episode that is needed cannot be read, or the sides have no keypoint in common.
    """
    chosen, rejected = sides
    start, stop = pair.rejected_steps or (0, rejected.steps)
    if cut == "stage":
        kept = kept_by_stage(chosen, rejected)
    elif cut == "distance":
        kept = kept_by_distance(read(pair.chosen), read(pair.rejected), threshold)
    elif cut == "length":
        first, last = pair.chosen_steps or (0, chosen.steps)
        kept = kept_by_length(last - first, stop - start)
    else:
        return pair
    return replace(pair, rejected_steps=(start, start + kept)) if kept < stop - start else pair


def _bounded(stop: int, steps: int) -> int:
    """At least one control step, and no more than there are."""
    return min(max(stop, 1), steps)
