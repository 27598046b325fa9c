"""``grape keypoints``: candidate keypoints of a recording's first image, numbered for a model or a person."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from grape.core.errors import DataError, SettingsError, require_known
from grape.core.events import SILENT, Reporter
from grape.core.files import content_hash, write_json, write_text
from grape.core.runs import open_run
from grape.core.settings import Range, check_ranges, setting
from grape.costs import image_keypoint
from grape.perception.candidates import Candidate, CandidateSettings, find_candidates
from grape.perception.keypoint_file import ImageKeypoint, write_image, write_keypoint_file
from grape.perception.marks import draw_numbers
from grape.perception.protocols import FeatureExtractor, Finder
from grape.perception.weights import open_features, open_finder
from grape.store.video import VideoEpisode, check_recording, read_episode_list, read_recording

__all__ = ["KeypointsSettings", "run_keypoints"]


_CANDIDATES, _MODELS = "Candidates", "Models"


@dataclass(frozen=True)
class KeypointsSettings:
    """Propose keypoints on the first image of a recording, and number them.

    Pixels that look alike and lie together become a candidate each, as in ReKep (arXiv 2409.01652). OUT/numbered.png
    shows them with numbers and OUT/names.yaml says what they are called, for grape costs generate or for you;
    OUT/keypoints.yaml is what grape import video follows. Delete from it what no constraint uses: every keypoint
    takes time.

    Attributes:
        episodes: Episode list of grape import video.
        out: Folder to write: keypoints.yaml, reference.png, reference-depth.png, numbered.png, candidates.json.
        task: Task to look at; the first one of the list if empty.
        features: DINOv2, a folder or a name on the Hugging Face hub; "color" uses colors alone and needs no weights.
        phrases: What to look at, e.g. 'black bowl'; each phrase is detected and its pixels are clustered apart. All of
            the image if empty.
        region: Box in the frame of the robot's log that candidates must lie in, meters: lower corner, upper corner.
        clusters: Clusters in the image, or in each phrase's pixels.
        apart: Candidates closer than this are merged, meters.
        most: Largest number of candidates.
        longest: Pixels of the image's longer side, as for grape import video.
        detector: Grounding DINO, a folder or a name on the hub; for phrases.
        segmenter: SAM 2, likewise.
        device: Where models run: cpu, cuda, ...
    """

    episodes: Path = setting(identity=False, common=True)
    out: Path = setting(identity=False, common=True)
    task: str = setting("", common=True)
    features: str = setting("facebook/dinov2-small", group=_MODELS, common=True)
    phrases: tuple[str, ...] = setting((), group=_CANDIDATES, common=True)
    region: tuple[float, float, float, float, float, float] | None = setting(None, group=_CANDIDATES, common=True)
    clusters: int = setting(12, group=_CANDIDATES, range=Range(1), common=True)
    apart: float = setting(0.04, group=_CANDIDATES, range=Range(0), common=True)
    most: int = setting(20, group=_CANDIDATES, range=Range(1), common=True)
    longest: int = setting(640, group=_CANDIDATES, range=Range(32))
    detector: str = setting("IDEA-Research/grounding-dino-tiny", group=_MODELS)
    segmenter: str = setting("facebook/sam2.1-hiera-tiny", group=_MODELS)
    device: str = setting("cpu", group=_MODELS, identity=False, common=True)


def run_keypoints(
    settings: KeypointsSettings,
    reporter: Reporter = SILENT,
    features: FeatureExtractor | None = None,
    finder: Finder | None = None,
) -> Mapping[str, Any]:
    """Propose keypoints.

    Args:
        settings: Where and how.
        reporter: Progress.
        features: In place of the model of the settings.
        finder: In place of the models of the settings.

    Returns:
        Summary: ``task``, ``episode`` (which recording), ``candidates`` (how many), ``image`` and ``keypoints``
        (files).

    Raises:
        SettingsError: A setting is out of range, or a model cannot be opened.
        DataError: The recording cannot be used, or nothing in it is a candidate.
        CompatibilityError: ``out`` belongs to another run.
    """
    _check(settings)
    episode_list = read_episode_list(settings.episodes)
    episode = _episode(episode_list.episodes, settings.task)
    check_recording(episode)
    features = features or open_features(settings.features, settings.device)
    if settings.phrases and finder is None:
        finder = open_finder(settings.detector, settings.segmenter, settings.device)
    reporter.info(f"Looking at {episode.where}")
    recording = read_recording(episode, settings.longest, [0])
    assert recording.depth is not None, "checked before"
    assert recording.camera is not None, "checked before"
    image, depth = recording.images[0], recording.depth[0]
    masks = []
    for phrase in settings.phrases:
        detection = None if finder is None else finder.find(image, phrase)
        if detection is None:
            raise DataError(f"{episode.where}: nothing like {phrase!r} was found.", "Try another phrase.")
        masks.append(detection.mask)
    candidates = find_candidates(
        features.features(image),
        depth,
        recording.camera,
        masks,
        CandidateSettings(clusters=settings.clusters, apart=settings.apart, region=settings.region, most=settings.most),
    )
    if not candidates:
        raise DataError(
            f"{episode.where}: no pixel with depth lies in the region.", "Widen --region, or look at the depth."
        )
    inputs = {"files": content_hash(episode_list.digests()), "task": episode.task}
    run = open_run(settings.out, "keypoints", settings, inputs)
    keypoints = tuple(ImageKeypoint(image_keypoint(item.number), item.pixel) for item in candidates)
    write_keypoint_file(settings.out, keypoints, image, depth)
    numbered = draw_numbers(image, [item.pixel for item in candidates], [item.number for item in candidates])
    write_image(settings.out / "numbered.png", numbered)
    write_json(settings.out / "candidates.json", [_row(item, settings.phrases) for item in candidates])
    write_text(settings.out / "names.yaml", _names(candidates))
    summary = {
        "task": episode.task,
        "episode": episode_list.episodes.index(episode),
        "candidates": len(candidates),
        "picture": "numbered.png",
        "keypoints": "keypoints.yaml",
    }
    run.finish(summary)
    return summary


def _check(settings: KeypointsSettings) -> None:
    check_ranges(settings)
    region = settings.region
    if region is not None and not (np.array(region[:3]) < np.array(region[3:])).all():
        raise SettingsError(f"--region is {region}.", "Give the lower corner (x y z), then the upper one, in meters.")


def _episode(episodes: tuple[VideoEpisode, ...], task: str) -> VideoEpisode:
    if task:
        require_known("task", task, {episode.task for episode in episodes})
    episode = next(item for item in episodes if not task or item.task == task)
    missing = [name for name, value in (("camera", episode.camera), ("depth", episode.depth)) if value is None]
    if missing:
        raise DataError(
            f"{episode.where} has no {' and no '.join(missing)}, without which a pixel is no point in the world.",
            "Give it in the list.",
        )
    return episode


def _names(candidates: tuple[Candidate, ...]) -> str:
    """What ``grape costs generate --names`` offers a model: the names that imported episodes will hold."""
    keypoints = {"gripper": "the gripper, by the robot's log"}
    keypoints |= {image_keypoint(item.number): f"point {item.number} on the image" for item in candidates}
    signals = {"gripper_opening": "0 closed to 1 open", "success": "1 where the task is solved"}
    return yaml.safe_dump({"keypoints": keypoints, "signals": signals}, sort_keys=False)


def _row(candidate: Candidate, phrases: tuple[str, ...]) -> dict[str, Any]:
    return {
        "number": candidate.number,
        "name": image_keypoint(candidate.number),
        "pixel": [round(place, 3) for place in candidate.pixel],
        "point": [round(meters, 6) for meters in candidate.point],
        "phrase": phrases[candidate.mask] if phrases else "",
        "pixels": candidate.size,
    }
