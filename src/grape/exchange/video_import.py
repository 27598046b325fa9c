"""``grape import video``: recordings of real robots become an episode store that can be scored and paired."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from grape.core.errors import DataError
from grape.core.events import SILENT, Reporter
from grape.core.files import content_hash, write_jsonl
from grape.core.runs import is_complete, open_run
from grape.core.settings import Range, check_ranges, setting
from grape.exchange.video_episodes import (
    OWN_KEYPOINT,
    OWN_SIGNALS,
    ImportedEpisode,
    checked_episodes,
    imported_trajectory,
)
from grape.perception import Finder, KeypointFile, PatchTracker, PointTracker, open_finder, read_keypoint_file
from grape.store import EpisodeStore
from grape.store.video import EpisodeList, read_episode_list

__all__ = ["ImportVideoSettings", "run_import_video"]


_VIDEO, _MODELS = "Video and log", "Tracking"


@dataclass(frozen=True)
class ImportVideoSettings:
    """Read recordings of a robot (video, depth, camera, robot log) into an episode store.

    EPISODES is a YAML file that lists the recordings and says what their numbers mean (docs/perception.md). A state is
    a row of the log with the image nearest in time; the gripper's position becomes keypoint 'gripper'. Keypoints of
    --keypoints are followed through the video at its full rate and lifted with depth and camera; where one is lost it
    is NaN, never its last place. Everything is checked before anything is written.

    Log-probabilities of a policy do not come with a video: R_self of these episodes is absent, and grape score and
    grape pair rank by costs and success alone.

    Attributes:
        episodes: The episode list.
        out: Folder to write: store (the episodes) and files.jsonl (what was done to each).
        keypoints: Keypoint file, or the folder that grape keypoints wrote; without one the gripper is the only
            keypoint.
        hz: States a second, for logs that are faster; 0 takes every row. Actions of a thinned log are left out.
        tolerance: Largest distance in time of a state and its image, seconds; 0 takes the video's own distance of
            images.
        longest: Pixels of the images' longer side; larger ones are shrunk, and the camera with them.
        memory: GB that the images of one recording may take at once, with depth where keypoints are followed; a
            longer recording is refused.
        confidence: Below this confidence (0 to 1) a keypoint counts as lost.
        detector: Grounding DINO, a folder or a name on the Hugging Face hub; for keypoints given by phrase.
        segmenter: SAM 2, likewise.
        device: Where both run: cpu, cuda, ...
        check_view: Refuse an episode whose gripper never comes into the camera's view: mostly the pose is the wrong
            way round or in another unit.
    """

    episodes: Path = setting(identity=False, common=True)
    out: Path = setting(identity=False, common=True)
    keypoints: Path | None = setting(None, identity=False, common=True)
    hz: float = setting(0.0, group=_VIDEO, range=Range(0), common=True)
    tolerance: float = setting(0.0, group=_VIDEO, range=Range(0))
    longest: int = setting(640, group=_VIDEO, range=Range(32))
    memory: float = setting(4.0, group=_VIDEO, range=Range(0, open_low=True), identity=False, common=True)
    confidence: float = setting(0.5, group=_MODELS, range=Range(0, 1, open_low=True))
    detector: str = setting("IDEA-Research/grounding-dino-tiny", group=_MODELS)
    segmenter: str = setting("facebook/sam2.1-hiera-tiny", group=_MODELS)
    device: str = setting("cpu", group=_MODELS, identity=False, common=True)
    check_view: bool = setting(True, group=_VIDEO, common=True)


def run_import_video(
    settings: ImportVideoSettings,
    reporter: Reporter = SILENT,
    tracker: PointTracker | None = None,
    finder: Finder | None = None,
) -> Mapping[str, Any]:
    """Import recordings.

    Args:
        settings: What to import.
        reporter: Progress and warnings.
        tracker: Follows keypoints; the tracker of patches if None.
        finder: Finds keypoints by phrase, in place of the models of the settings.

    Returns:
        Summary: numbers of ``episodes``, ``successes``, ``steps``; ``actions`` (whether there are any); ``keypoints``,
        the share of states in which each is known; ``r_self``, a sentence; ``store``.

    Raises:
        SettingsError: A setting is out of range, or a model cannot be opened.
        DataError: The list, a recording or the keypoints cannot be used; nothing was written.
        CompatibilityError: ``out`` belongs to another run.
    """
    _check(settings)
    episode_list = read_episode_list(settings.episodes)
    keypoint_file = None if settings.keypoints is None else read_keypoint_file(settings.keypoints)
    _check_names(episode_list, keypoint_file)
    inputs = {"files": content_hash(episode_list.digests()), "keypoints": keypoint_file.digest if keypoint_file else ""}
    if is_complete(settings.out):
        finished_summary = open_run(settings.out, "import", settings, inputs).done
        if finished_summary is not None:
            return finished_summary
    episodes = checked_episodes(
        episode_list,
        settings.hz,
        settings.tolerance,
        settings.check_view,
        keypoint_file is not None,
        settings.longest,
        settings.memory,
    )
    if keypoint_file is not None and finder is None and any(keypoint.phrase for keypoint in keypoint_file.keypoints):
        finder = open_finder(settings.detector, settings.segmenter, settings.device)
    for warning in _warnings(episodes):
        reporter.warn(warning)
    run = open_run(settings.out, "import", settings, inputs)
    store = EpisodeStore.create(
        settings.out / "store", episode_list.suite, _contract(episode_list, episodes, keypoint_file)
    )
    with reporter.progress("Importing videos", len(episodes)) as progress:
        for episode in episodes:
            if episode.episode_id not in store:
                store.write(
                    imported_trajectory(
                        episode,
                        episode_list.suite,
                        settings.longest,
                        keypoint_file,
                        tracker or PatchTracker(keep=settings.confidence),
                        finder,
                        settings.confidence,
                    )
                )
            progress.advance(note=episode.episode_id)
    rows = [_row(store, episode) for episode in episodes]
    write_jsonl(settings.out / "files.jsonl", rows)
    summary = {
        "episodes": len(rows),
        "successes": sum(row["success"] for row in rows),
        "steps": sum(row["steps"] for row in rows),
        "actions": episodes[0].actions is not None,
        "keypoints": {name: _mean([row["known"][name] for row in rows]) for name in rows[0]["known"]},
        "r_self": "absent: videos hold no log-probabilities; costs and success rank the episodes",
        "store": "store",
    }
    run.finish(summary)
    return summary


def _check(settings: ImportVideoSettings) -> None:
    check_ranges(settings)


def _check_names(episode_list: EpisodeList, keypoint_file: KeypointFile | None) -> None:
    """Refuse recorded names that the import itself uses."""
    for name in episode_list.format.signals:
        if name in OWN_SIGNALS:
            raise DataError(
                f"robot_log: signals names {name!r}, which every imported episode already has a signal of.",
                "Rename the column; success comes from outcome and solved_at, the opening from column gripper.",
            )
    if keypoint_file is not None and any(keypoint.name == OWN_KEYPOINT for keypoint in keypoint_file.keypoints):
        raise DataError(
            f"A keypoint is called {OWN_KEYPOINT!r}, which is the gripper's position by the robot's log.",
            "Call it something else.",
        )


def _contract(
    episode_list: EpisodeList, episodes: Sequence[ImportedEpisode], keypoint_file: KeypointFile | None
) -> dict[str, Any]:
    contract: dict[str, Any] = {
        "control_hz": episodes[0].hz,
        "keypoints": keypoint_file.digest if keypoint_file else "",
    }
    if episodes[0].actions is not None:
        contract["action_space"] = {"names": list(episode_list.format.actions)}
    return contract


def _warnings(episodes: Sequence[ImportedEpisode]) -> list[str]:
    warnings = []
    shared = sum(episode.shared_images for episode in episodes)
    states = sum(len(episode.rows) for episode in episodes)
    if shared:
        warnings.append(
            f"{shared} of {states} states show the same image as the state before: the logs are faster than the "
            "videos. Pass --hz for fewer states."
        )
    if any(episode.actions_left_out for episode in episodes):
        warnings.append(
            "The logs were thinned by --hz, so their actions are not those of the states: they are left out."
        )
    return warnings


def _row(store: EpisodeStore, episode: ImportedEpisode) -> dict[str, Any]:
    trajectory = store.read(episode.episode_id, frames=False)
    meta = trajectory.meta
    known_shares = {
        name: float(np.isfinite(point).all(axis=1).mean()) for name, point in sorted(trajectory.keypoints.items())
    }
    return {
        "episode_id": meta.episode_id,
        "video": meta.extra["video"],
        "success": meta.success,
        "steps": meta.steps,
        "known": known_shares,
        "keypoints": meta.extra["keypoints"],
    }


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 6)
