"""Import of one robot recording: checks against its log and camera, and conversion to a trajectory."""

import dataclasses
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.cameras import Camera
from grape.core.errors import DataError
from grape.core.files import content_hash
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.perception import Finder, FollowSettings, KeypointFile, PointTracker, follow_keypoints
from grape.store.video import (
    EpisodeList,
    RobotLog,
    VideoEpisode,
    check_recording,
    image_size,
    read_recording,
    read_robot_log,
    recording_bytes,
)
from grape.store.video.episode_list import TIMES
from grape.store.video.timing import choose_rows, match_images

__all__ = ["OWN_KEYPOINT", "OWN_SIGNALS", "ImportedEpisode", "checked_episodes", "imported_trajectory"]

Float64 = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

OWN_KEYPOINT = "gripper"
OWN_SIGNALS = ("gripper_opening", "success")
"""What every imported episode holds; a recording's own of these names would replace it."""

_GB = 1e9
_LEAST_IN_VIEW = 0.1  # of the states
_RATES_DIFFER = 0.2  # share by which episodes' rates may differ from their median


@dataclass(frozen=True, eq=False)
class ImportedEpisode:
    """A recording that was checked.

    Attributes:
        episode_id: Its id in the store.
        task_index: Number of its task among the list's.
        sample: Number among those of the same initial state.
        source: What the list says of it.
        log: The rows that become states.
        rows: Their numbers in the whole log.
        images: Number of each state's image in the video.
        hz: States a second, the same for all episodes of a list.
        actions: Float64 ``(T, D)``; None if there are none.
        actions_left_out: Whether the log had actions, which thinning took from it.
        success: Signal of success, ``(T+1,)``.
    """

    episode_id: str
    task_index: int
    sample: int
    source: VideoEpisode
    log: RobotLog
    rows: Indices
    images: Indices
    hz: float
    actions: Float64 | None
    actions_left_out: bool
    success: Float64

    @property
    def shared_images(self) -> int:
        """States that show the same image as the state before."""
        return int((np.diff(self.images) == 0).sum())


def checked_episodes(
    episode_list: EpisodeList,
    hz: float,
    tolerance: float,
    check_view: bool,
    with_keypoints: bool,
    longest: int,
    memory: float,
) -> tuple[ImportedEpisode, ...]:
    """All recordings of a list, each of them decoded once and compared with its log and camera.

    Args:
        episode_list: The list.
        hz: States a second; 0 takes every row of the logs.
        tolerance: Largest distance in time of a state and its image, seconds; 0 takes the video's own.
        check_view: Whether the gripper must come into view.
        with_keypoints: Whether depth and camera are needed.
        longest: Pixels of the images' longer side.
        memory: What the images of one recording may take, GB.

    Raises:
        DataError: A recording cannot be used or is too long; it is named.
    """
    tasks = sorted({episode.task for episode in episode_list.episodes})
    names = {task: _id_of_task(task) for task in tasks}
    count: Counter[tuple[str, int]] = Counter()
    checked = []
    for episode in episode_list.episodes:
        if with_keypoints:
            _require_depth_and_camera(episode)
        whole = read_robot_log(episode.log, episode_list.format)
        rows = choose_rows(whole.time, hz)
        log = _thinned(whole, rows)
        times, size = check_recording(episode)
        images = match_images(episode, log.time, times, tolerance)
        _check_memory(episode, images, image_size(*size, longest), with_keypoints, memory)
        if check_view and episode.camera is not None:
            _check_view(episode, log, episode.camera)
        thinned = len(rows) < len(whole)
        sample = count[episode.task, episode.initial_state]
        count[episode.task, episode.initial_state] += 1
        checked.append(
            ImportedEpisode(
                episode_id=f"{names[episode.task]}-{episode.initial_state:04d}-{sample:02d}",
                task_index=tasks.index(episode.task),
                sample=sample,
                source=episode,
                log=log,
                rows=rows,
                images=images,
                hz=1.0 / float(np.median(np.diff(log.time))),
                actions=None if thinned or log.actions is None else log.actions[:-1],
                actions_left_out=thinned and log.actions is not None,
                success=_success(episode, log, TIMES[episode_list.format.time]),
            )
        )
    ids = Counter(episode.episode_id for episode in checked)
    if twice := [name for name, number in ids.items() if number > 1]:
        raise DataError(f"Several recordings would become episode {twice[0]}.", "Give their tasks other names.")
    return _at_one_rate(checked)


def imported_trajectory(
    episode: ImportedEpisode,
    suite: str,
    longest: int,
    keypoint_file: KeypointFile | None,
    tracker: PointTracker,
    finder: Finder | None,
    confidence: float,
) -> Trajectory:
    """The recording as a trajectory.

    Args:
        episode: A checked recording.
        suite: The store's suite.
        longest: Pixels of the images' longer side.
        keypoint_file: Keypoints to follow in the images.
        tracker: Follows them.
        finder: Finds those given by phrase.
        confidence: Below it a keypoint counts as lost.

    Raises:
        DataError: The reference image of the keypoints has another size.
    """
    source, log, steps = episode.source, episode.log, len(episode.rows) - 1
    image_indices = images_to_hold(episode.images, keypoint_file is not None)
    states = np.searchsorted(image_indices, episode.images)
    recording = read_recording(source, longest, image_indices, with_depth=keypoint_file is not None)
    keypoints = {OWN_KEYPOINT: log.position.astype(np.float32)}
    facts: dict[str, Any] = {}
    if keypoint_file is not None:
        assert recording.depth is not None, "checked before"
        assert recording.camera is not None, "checked before"
        if keypoint_file.image is not None and keypoint_file.image.shape != recording.images.shape[1:]:
            raise DataError(
                f"{source.where}: the reference image of the keypoints is {keypoint_file.image.shape[:2]}, the video's "
                f"images are {recording.images.shape[1:3]} (height, width).",
                "Choose keypoints on an image of this camera, with the same --longest.",
            )
        followed = follow_keypoints(
            keypoint_file,
            recording.images,
            recording.depth,
            recording.camera,
            tracker,
            finder,
            FollowSettings(confidence=confidence),
            look_at=states.tolist(),
        )
        for keypoint in keypoint_file.keypoints:
            result = followed[keypoint.name]
            keypoints[keypoint.name] = result.points[states]
            facts[keypoint.name] = {
                "from": f"phrase: {keypoint.phrase}" if keypoint.phrase else "pixel of the reference image",
                "lost_states": int(np.isnan(result.points[states]).any(axis=1).sum()),
                "lost_pictures": dict(result.losses),
                "found_again": result.found_again,
            }
    actions = np.zeros((steps, 0)) if episode.actions is None else episode.actions
    numbers = actions.astype(np.float32)
    parts = [log.position, *([] if log.rotation is None else [log.rotation]), log.opening[:, None]]
    extra: dict[str, Any] = {
        "video": source.video.name,
        "log": source.log.name,
        "keypoints": facts,
        "r_self": "absent: a video holds no log-probabilities",
    }
    if recording.camera is not None:
        extra["camera"] = recording.camera.to_dict()
    return Trajectory(
        meta=EpisodeMeta(
            episode_id=episode.episode_id,
            suite=suite,
            task=source.task,
            task_index=episode.task_index,
            instruction=source.instruction,
            initial_state=source.initial_state,
            sample=episode.sample,
            seed=0,
            success=source.success,
            steps=steps,
            actor="expert",  # nothing was sampled from a policy that is known here
            operator=source.operator,
            extra=extra,
        ),
        frames=recording.images[states] if _frames_are_copied(image_indices, episode.images) else recording.images,
        proprio=np.concatenate(parts, axis=1).astype(np.float32),
        actions=numbers,
        labels=numbers,
        action_tokens=np.full(numbers.shape, -1, dtype=np.int32),
        token_logps=np.full(numbers.shape, np.nan, dtype=np.float32),
        keypoints=keypoints,
        signals={
            "gripper_opening": log.opening.astype(np.float32),
            "success": episode.success.astype(np.float32),
            **{name: values.astype(np.float32) for name, values in log.signals.items()},
        },
    )


def images_to_hold(of_states: Indices, with_keypoints: bool) -> Indices:
    """Numbers of the images that an import holds in memory.

    Args:
        of_states: Number of each state's image.
        with_keypoints: Whether points are followed, which takes every image from the first state to the last.
    """
    return np.arange(of_states[0], of_states[-1] + 1) if with_keypoints else np.unique(of_states)


def _frames_are_copied(held: Indices, of_states: Indices) -> bool:
    """Whether the states' frames are an array of their own: not where each image held is that of one state."""
    return not np.array_equal(held, of_states)


def _check_memory(
    episode: VideoEpisode, of_states: Indices, size: tuple[int, int], with_keypoints: bool, memory: float
) -> None:
    image_indices = images_to_hold(of_states, with_keypoints)
    count, needed = len(image_indices), recording_bytes(len(image_indices), size, with_keypoints)
    if _frames_are_copied(image_indices, of_states):
        needed += recording_bytes(len(of_states), size, False)
    if needed > memory * _GB:
        raise DataError(
            f"{episode.where}: {count} images of {size[1]} x {size[0]}{' with depth' if with_keypoints else ''} "
            f"take {needed / _GB:.2g} GB of memory at once, where --memory allows {memory:g}.",
            "Pass a smaller --longest, cut the recording, or allow more if the machine has it.",
        )


def _id_of_task(task: str) -> str:
    """A task's name as ids have it; a hash tells apart what reduces to the same, e.g. names in other scripts."""
    reduced = re.sub(r"[^A-Za-z0-9.=+@,-]+", "-", task).strip("-")[:110]
    return reduced if reduced == task else f"{reduced or 'unnamed'}-{content_hash(task)[:8]}"


def _require_depth_and_camera(episode: VideoEpisode) -> None:
    missing = [name for name, value in (("camera", episode.camera), ("depth", episode.depth)) if value is None]
    if missing:
        raise DataError(
            f"{episode.where} has no {' and no '.join(missing)}, without which keypoints of images cannot be lifted "
            "into the world.",
            "Give it, or import without --keypoints: then the gripper is the only keypoint.",
        )


def _thinned(log: RobotLog, rows: Indices) -> RobotLog:
    return RobotLog(
        time=log.time[rows],
        position=log.position[rows],
        rotation=None if log.rotation is None else log.rotation[rows],
        opening=log.opening[rows],
        actions=None if log.actions is None else log.actions[rows],
        signals={name: values[rows] for name, values in log.signals.items()},
    )


def _check_view(episode: VideoEpisode, log: RobotLog, camera: Camera) -> None:
    pixels, _ = camera.project(log.position)
    share_in_view = float(camera.sees(pixels).mean())
    if share_in_view < _LEAST_IN_VIEW:
        raise DataError(
            f"{episode.where}: the gripper is in the camera's view in {100 * share_in_view:.0f} % of the states; "
            "camera and robot log do not fit.",
            "pose leads from the camera (x right, y down, z away from it) to the frame of the log's positions, in "
            "meters; invert it if it is the other way round. If the gripper really is out of view, pass "
            "--no-check-view.",
        )


def _success(episode: VideoEpisode, log: RobotLog, second: float) -> Float64:
    success = np.zeros(len(log))
    if not episode.success:
        return success
    success[-1] = 1.0
    if episode.solved_at is not None:
        moment = episode.solved_at * second
        if not log.time[0] <= moment <= log.time[-1]:
            raise DataError(
                f"{episode.where}: solved_at is {moment:.3f} s, the log runs from {log.time[0]:.3f} s to "
                f"{log.time[-1]:.3f} s.",
                "Give it on the log's clock, in the log's unit of time.",
            )
        success[log.time >= moment] = 1.0
    return success


def _at_one_rate(episodes: list[ImportedEpisode]) -> tuple[ImportedEpisode, ...]:
    """The episodes with one rate: a decision in a constraint must last equally long in all."""
    usual = float(np.median([episode.hz for episode in episodes]))
    for episode in episodes:
        if abs(episode.hz - usual) > _RATES_DIFFER * usual:
            raise DataError(
                f"{episode.source.where}: its log has {episode.hz:.3g} states a second, the others {usual:.3g}.",
                "Pass --hz to bring all to one rate, or import them apart.",
            )
    everywhere = all(episode.actions is not None for episode in episodes)  # thinning takes them from the faster logs
    return tuple(
        dataclasses.replace(episode, hz=float(f"{usual:.3g}"), actions=episode.actions if everywhere else None)
        for episode in episodes
    )
