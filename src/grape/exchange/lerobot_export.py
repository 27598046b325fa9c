"""``grape export lerobot``: preference pairs, or a whole collection, as LeRobotDatasets v3.0."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.atomic_folders import clear_leftovers, published_folder
from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.core.events import SILENT, Progress, Reporter
from grape.core.runs import RunFolder, open_run
from grape.core.settings import Range, check_ranges, setting
from grape.exchange.export_source import ExportSource, open_source
from grape.mapping import Mapper, MappingSettings, open_mapper
from grape.store.h264 import load_av
from grape.store.lerobot.comparison import EPISODES_PER_SHARD, compare_dataset
from grape.store.lerobot.episodes import EncodedEpisode, EncodeEpisodes, ExportedEpisode
from grape.store.lerobot.layout import Shape
from grape.store.lerobot.writer import write_dataset
from grape.store.rlds.columns import ActionSource
from grape.store.rlds.pairs import SIDES, check_pairs

__all__ = ["LOST", "LeRobotExportSettings", "run_export_lerobot"]

_VERB = "export"
_COARSEST = 51

LOST = (
    "exact images: the video is lossy (H.264, colors at half the resolution)",
    "the image after the last action, and images of further cameras",
    "action tokens and their log-probabilities, and with them the policy's part in a preference",
    "keypoints and signals, and with them costs",
)
"""What a LeRobotDataset made here does not hold."""


_CONTENT = "Content"


@dataclass(frozen=True)
class LeRobotExportSettings(MappingSettings):
    """Write preference pairs, or a collection, as data sets in LeRobot's format v3.0 (Parquet, MP4, JSON).

    Pairs become two data sets, OUT/chosen and OUT/rejected, whose episodes correspond one to one. A collection becomes
    OUT. The folder gets its name only after all of it was read back and compared. Images lose a little: for training
    on log-probabilities keep the store.

    Attributes:
        out: Folder to write; must not exist, or hold the same export already.
        pairs: Folder that grape pair wrote. Give this or --collection.
        collection: Folder that grape collect wrote, or an episode store.
        only_successes: Leave out a collection's failures.
        actions: Of a collection: labels are what an imitator should learn (an expert's action before noise was added),
            executed is what moved the robot. Pairs always hold what was executed.
        fps: Control steps a second; 0 takes what the store says.
        crf: Loss of the video: x264's constant rate factor, 0 (least) to 51.
        dry_run: Print what would be written, and write nothing.
    """

    out: Path = setting(identity=False, common=True)
    pairs: Path | None = setting(None, identity=False, common=True)
    collection: Path | None = setting(None, identity=False, common=True)
    only_successes: bool = setting(False, group=_CONTENT, common=True)
    actions: ActionSource = setting("labels", group=_CONTENT, common=True)
    fps: int = setting(0, group=_CONTENT, range=Range(0), common=True)
    crf: int = setting(18, group=_CONTENT, range=Range(0, _COARSEST), common=True)
    dry_run: bool = setting(False, identity=False, common=True)


def run_export_lerobot(settings: LeRobotExportSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Export in LeRobot's format.

    Returns:
        Summary: ``kind``, numbers of ``episodes``, ``steps`` and ``tasks`` (and of ``pairs``), ``fps``,
        ``image_loss_db`` (peak signal-to-noise ratio of the video: ``mean`` and ``worst`` image, None where
        nothing was lost), ``lost`` (what the format does not hold).

    Raises:
        SettingsError: Settings do not fit together or are out of range, or PyAV is not installed.
        DataError: Pairs or episodes are missing, damaged, or came back altered.
        CompatibilityError: ``out`` is there already with something else, or episodes differ in shape.
        GrapeError: The disk is full or the folder cannot be written; nothing stands under ``out`` then.
    """
    check_ranges(settings)
    source = open_source("lerobot", settings.pairs, settings.collection, only_successes=settings.only_successes)
    if source.pairs and (settings.only_successes or settings.actions != "labels"):
        raise SettingsError("--only-successes and --actions are for collections only.", "Leave them out.")
    check_pairs(source.store, source.pairs)
    fps = _frames_per_second(settings, source)
    facts = source.episodes
    plan = {
        "kind": f"lerobot {source.kind}",
        **({"pairs": len(source.pairs)} if source.pairs else {}),
        "episodes": len(facts),
        "steps": sum(meta.steps for meta in facts),
        "tasks": len({meta.instruction for meta in facts}),
        "fps": fps,
    }
    if settings.dry_run:
        return {"dry_run": True, **plan, "out": str(settings.out)}
    if (settings.out / "run.json").exists():
        finished_summary = open_run(settings.out, _VERB, settings, source.inputs).done
        if finished_summary is not None:
            clear_leftovers(settings.out)
            return finished_summary
    load_av("lerobot")
    with published_folder(settings.out) as folder:
        open_run(folder, _VERB, settings, source.inputs)
        losses = {}
        with (
            open_mapper(settings, reporter) as mapper,
            reporter.progress(f"Exporting {source.kind}", source.work) as progress,
        ):
            for place, part in _parts(folder, source, settings).items():
                shape = _shape(source, part, fps)
                encoded = _encoded(part, EncodeEpisodes(shape, settings.crf), mapper, progress)
                write_dataset(place, encoded, shape, robot=source.store.suite)
                losses[place.name] = compare_dataset(place, part, shape, mapper, progress)
        worst, mean = min(loss.worst for loss in losses.values()), min(loss.mean for loss in losses.values())
        summary = {
            **plan,
            "picture_loss_db": {"mean": _finite(mean), "worst": _finite(worst)},
            "lost": list(LOST),
        }
        RunFolder(folder, _VERB).finish(summary)
    if source.repeated_images:
        reporter.warn(source.repeated_images)
    reporter.info(f"Written, read back and compared: {settings.out}")
    return summary


def _parts(
    folder: Path, source: ExportSource, settings: LeRobotExportSettings
) -> dict[Path, Sequence[ExportedEpisode]]:
    """The data sets to write, by folder."""
    if source.pairs:
        return {
            folder / side: [
                _exported(source, getattr(pair, side), {"grape/pair_id": pair.pair_id}, executed=True)
                for pair in source.pairs
            ]
            for side in SIDES
        }
    executed = settings.actions == "executed"
    return {folder: [_exported(source, meta.episode_id, {}, executed=executed) for meta in source.metas]}


def _exported(source: ExportSource, name: str, further: Mapping[str, Any], *, executed: bool) -> ExportedEpisode:
    meta = source.store.meta(name)
    facts = {
        "grape/episode_id": name,
        "grape/task": meta.task,
        "grape/initial_state": meta.initial_state,
        "grape/success": meta.success,
        **further,
    }
    return ExportedEpisode(source.store.part_of(name).path.absolute(), name, executed, facts)


def _encoded(
    part: Sequence[ExportedEpisode], encode: EncodeEpisodes, mapper: Mapper, progress: Progress
) -> Iterator[EncodedEpisode]:
    """The episodes in their order, as the mapper's processes encode them."""
    for encoded in mapper.map(encode, mapper.shards(part, EPISODES_PER_SHARD)):
        for episode in encoded:
            yield episode
            progress.advance(note=episode.numbers.meta.task)


def _shape(source: ExportSource, part: Sequence[ExportedEpisode], fps: int) -> Shape:
    first = source.store.read(part[0].episode_id)
    if not first.steps:
        raise DataError(f"Episode {first.meta.episode_id} has no decisions.", "Leave it out.")
    _, height, width, _ = first.frames.shape
    if height % 2 or width % 2:
        raise CompatibilityError(
            f"The images are of {height} x {width} pixels; the video's colors need even numbers.",
            "Use 'grape export rlds', which keeps images as they are.",
        )
    dim = first.actions.shape[1]
    space = source.store.contract.get("action_space")
    names = space.get("names") if isinstance(space, Mapping) else None
    if not isinstance(names, list) or len(names) != dim:
        names = [f"action_{index}" for index in range(dim)]
    return Shape(height, width, first.proprio.shape[1], tuple(map(str, names)), fps)


def _frames_per_second(settings: LeRobotExportSettings, source: ExportSource) -> int:
    space = source.store.contract.get("action_space")
    recorded = space.get("control_hz") if isinstance(space, Mapping) else None
    fps = settings.fps or recorded
    if not isinstance(fps, int | float) or fps < 1 or fps != int(fps):
        what = "does not say" if recorded is None else f"says {recorded} for"
        raise SettingsError(
            f"{source.store.path} {what} the number of control steps a second; LeRobot needs a whole number from 1.",
            "Give --fps, e.g. --fps 10.",
        )
    return int(fps)


def _finite(decibels: float) -> float | None:
    return round(decibels, 2) if decibels < float("inf") else None
