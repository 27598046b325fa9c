"""``grape import lerobot``: a LeRobotDataset becomes an episode store."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from grape.core.events import SILENT, Reporter
from grape.core.files import write_jsonl
from grape.core.runs import open_run
from grape.core.settings import Range, check_ranges, setting
from grape.store import EpisodeStore
from grape.store.lerobot.demonstrations import LeRobotDemonstrations, Meaning

__all__ = ["ImportLeRobotSettings", "run_import_lerobot"]

_CONTENT = "Content"


@dataclass(frozen=True)
class ImportLeRobotSettings:
    """Read a LeRobotDataset (version 2.0, 2.1 or 3.0) into an episode store.

    action becomes the actions as they are, observation.state the robot's state, cameras the images before each action,
    the task's text the instruction. Of the episode's end the format has no image: the last one stands twice.
    An episode whose task changes becomes one for each of its tasks. OUT/files.jsonl lists the episodes.

    Log-probabilities of a policy do not come with the data: episodes serve for fine-tuning and for pairs by success.

    Attributes:
        data: Folder of the data set, with meta/ and data/ in it.
        out: Folder to write: store (the episodes) and files.jsonl.
        cameras: Names of the cameras to take, main camera first, e.g. front,wrist. Not given: all, in the data set's
            order.
        gripper: What the last number of an action means in the data, e.g. '+1 closes'. It is noted in the store; new
            policies learn it and checkpoints of another convention refuse the data. Not given: unknown.
        open_gripper: Turn the gripper's number into 1 = open, 0 = closed, which published checkpoints mean.
        success: Whether episodes succeeded: auto takes the feature next.success where there is one (and what an export
            of GRAPE noted); yes, no and unknown are said of all; another word names the feature that tells.
        tolerance: Seconds by which the times of rows and images may be off, as LeRobot's tolerance_s.
    """

    data: Path = setting(identity=False, common=True)
    out: Path = setting(identity=False, common=True)
    cameras: str = setting("", group=_CONTENT, common=True)
    gripper: Literal["", "+1 closes", "+1 opens", "1 opens, 0 closes", "1 closes, 0 opens", "none"] = setting(
        "", group=_CONTENT, common=True
    )
    open_gripper: bool = setting(False, group=_CONTENT, common=True)
    success: str = setting("auto", group=_CONTENT, common=True)
    tolerance: float = setting(1e-4, group=_CONTENT, range=Range(0))


def run_import_lerobot(settings: ImportLeRobotSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Import a LeRobotDataset.

    Args:
        settings: What to import.
        reporter: Progress and warnings.

    Returns:
        Summary: numbers of ``episodes``, ``steps``, ``tasks``, ``successes`` and ``unknown_outcomes``; ``left_out``
        (episodes without a task's text), ``fps``, ``version``, ``cameras`` (main camera first), ``proprio`` (numbers of
        robot state) and ``store``.

    Raises:
        SettingsError: A setting is out of range or names nothing, or PyAV is not installed.
        DataError: The data set is missing, damaged or contradicts itself.
        CompatibilityError: The data set is of an unknown version, or ``out`` belongs to another run.
    """
    check_ranges(settings)
    source = LeRobotDemonstrations(settings.data, _meaning(settings))
    run = open_run(settings.out, "import", settings, {"data": source.digest()})
    if run.done is not None:
        return run.done
    metas = source.metas()
    facts = source.dataset.description
    _warn(source, settings, reporter)
    store = EpisodeStore.create(settings.out / "store", source.suite, source.contract)
    with reporter.progress("Importing episodes", len(metas)) as progress:
        for meta in metas:
            if meta.episode_id not in store:
                store.write(source.read(meta.episode_id))
            progress.advance(note=meta.task)
    rows = [
        {
            "episode_id": meta.episode_id,
            "episode_index": meta.extra["episode_index"],
            "rows": meta.extra.get("steps", [0, meta.steps]),
            "success": meta.success,
        }
        for meta in metas
    ]
    write_jsonl(settings.out / "files.jsonl", rows)
    summary = {
        "episodes": len(metas),
        "steps": sum(meta.steps for meta in metas),
        "tasks": len({meta.task for meta in metas}),
        "successes": sum(meta.success is True for meta in metas),
        "unknown_outcomes": sum(meta.success is None for meta in metas),
        "left_out": facts.episodes - len({row["episode_index"] for row in rows}),
        "fps": facts.fps,
        "version": facts.version,
        "cameras": [camera.name for camera in source.cameras],
        "proprio": facts.state_width,
        "store": "store",
    }
    run.finish(summary)
    return summary


def _meaning(settings: ImportLeRobotSettings) -> Meaning:
    return Meaning(
        cameras=tuple(filter(None, (name.strip() for name in settings.cameras.split(",")))),
        gripper=settings.gripper,
        open_gripper=settings.open_gripper,
        success=settings.success,
        tolerance=settings.tolerance,
    )


def _warn(source: LeRobotDemonstrations, settings: ImportLeRobotSettings, reporter: Reporter) -> None:
    names = [camera.name for camera in source.cameras]
    if len(names) > 1 and not settings.cameras:
        reporter.warn(f"The main camera is {names[0]!r}, the data set's first; --cameras chooses ({', '.join(names)}).")
    if left_out := source.dataset.description.left_out:
        reporter.warn(f"Left out, since they are no RGB images: {', '.join(left_out)}.")
    if not settings.gripper:
        reporter.warn("What the gripper's number means stays unknown; --gripper says it.")
