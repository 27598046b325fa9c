"""``grape export rlds``: preference pairs, or a whole collection, as RLDS data sets."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.atomic_folders import clear_leftovers, published_folder
from grape.core.errors import SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.runs import RunFolder, open_run
from grape.core.settings import Range, check_ranges, setting
from grape.exchange.export_source import ExportSource, open_source
from grape.mapping import MappingSettings, open_mapper
from grape.store import EpisodeStore
from grape.store.rlds.collection import write_collection
from grape.store.rlds.columns import ActionSource, ImageEncoding
from grape.store.rlds.pairs import write_pairs
from grape.store.rlds.writer import TrainValSplit

__all__ = ["RldsExportSettings", "run_export_rlds"]

_VERB = "export"
_NAME = re.compile(r"[a-z][a-z0-9_]*")


_CONTENT, _SPLIT = "Content", "Splits and files"


@dataclass(frozen=True)
class RldsExportSettings(MappingSettings):
    """Write preference pairs, or a collection, as RLDS data sets that tensorflow_datasets and the public loaders read.

    Pairs become two data sets, OUT/chosen/rlds_np_rollout/1.0.0 and OUT/rejected/rlds_np_rollout/1.0.0, whose episodes
    correspond one to one. A collection becomes OUT/NAME/1.0.0. The folder gets its name only after everything was read
    back and compared.

    Attributes:
        out: Folder to write; must not exist, or hold the same export already.
        pairs: Folder that grape pair wrote. Give this or --collection.
        collection: Folder that grape collect wrote, or an episode store.
        name: Name of a collection's data set (lower-case letters, digits, _); empty takes the suite's.
        only_successes: Leave out a collection's failures.
        actions: Of a collection: labels are what an imitator should learn (an expert's action before noise was added),
            executed is what moved the robot. Pairs always hold what was executed.
        pictures: Encoding of a collection's images: png is lossless; jpeg (quality 95) takes a fifth of the space and
            of the time. Pairs are always png.
        val_fraction: Share of the initial states whose episodes go to split val (between 0 and 1; at least one state).
            0 makes no such split of a collection; pairs need one.
        shards: Files a split (1 or more). OpenVLA's loader reads several files in random order, which breaks the
            correspondence of pairs by position: leave pairs at 1 for it.
        gripper: Meaning of the gripper's number in the episodes; empty takes what the store says.
        seed: Seed of the choice of initial states for val.
        dry_run: Print what would be written, and write nothing.
    """

    out: Path = setting(identity=False, common=True)
    pairs: Path | None = setting(None, identity=False, common=True)
    collection: Path | None = setting(None, identity=False, common=True)
    name: str = setting("", group=_CONTENT, common=True)
    only_successes: bool = setting(False, group=_CONTENT, common=True)
    actions: ActionSource = setting("labels", group=_CONTENT, common=True)
    pictures: ImageEncoding = setting("png", group=_CONTENT)
    val_fraction: float = setting(0.05, group=_SPLIT, range=Range(0, 1, open_high=True), common=True)
    shards: int = setting(1, group=_SPLIT, range=Range(1))
    gripper: str = setting("", group=_CONTENT)
    seed: int = setting(0, group=_SPLIT)
    dry_run: bool = setting(False, identity=False, common=True)


def run_export_rlds(settings: RldsExportSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Export as RLDS.

    Returns:
        Summary: ``kind``, numbers of ``pairs`` or ``episodes``, ``steps``, ``splits`` with shard lengths, ``gripper``
        (the convention that was translated), ``out``.

    Raises:
        SettingsError: Settings do not fit together or are out of range.
        DataError: Pairs or episodes are missing, damaged, too few, or came back altered.
        CompatibilityError: ``out`` is there already with something else, or another process exports to it.
        GrapeError: The disk is full or the folder cannot be written; nothing stands under ``out`` then.
    """
    _check(settings)
    source = open_source("rlds", settings.pairs, settings.collection, only_successes=settings.only_successes)
    gripper = _gripper(settings, source.store)
    if settings.dry_run:
        return _plan(settings, source, gripper)
    if (settings.out / "run.json").exists():
        finished_summary = open_run(settings.out, _VERB, settings, source.inputs).done
        if finished_summary is not None:
            clear_leftovers(settings.out)
            return finished_summary
    with published_folder(settings.out) as folder:
        open_run(folder, _VERB, settings, source.inputs)
        with (
            open_mapper(settings, reporter) as mapper,
            reporter.progress(f"Exporting {source.kind}", source.work) as progress,
        ):
            if source.pairs:
                facts = write_pairs(
                    folder,
                    source.store,
                    source.pairs,
                    gripper=gripper,
                    division=_division(settings),
                    mapper=mapper,
                    progress=progress,
                )
            else:
                facts = write_collection(
                    folder,
                    source.store,
                    source.metas,
                    name=settings.name or source.name,
                    gripper=gripper,
                    actions=settings.actions,
                    encoding=settings.pictures,
                    division=_division(settings),
                    mapper=mapper,
                    progress=progress,
                )
        summary = {"kind": f"rlds {source.kind}", "gripper": gripper, **facts}
        RunFolder(folder, _VERB).finish(summary)
    if source.pairs and settings.shards > 1:
        reporter.warn(
            "OpenVLA's loader reads several files in random order, which breaks the correspondence of the pairs."
        )
    if source.repeated_images:
        reporter.warn(source.repeated_images)
    reporter.info(f"Written, read back and compared: {settings.out}")
    return summary


def _check(settings: RldsExportSettings) -> None:
    check_ranges(settings)
    _division(settings)
    if settings.name and not _NAME.fullmatch(settings.name):
        raise SettingsError(
            f"--name is {settings.name!r}.", "TFDS wants lower-case letters, digits and _, a letter first."
        )
    if settings.pairs is not None:
        if not settings.val_fraction:
            raise SettingsError("--val-fraction is 0.", "Readers of pair sets need a split val: give more.")
        defaults = RldsExportSettings(out=settings.out)
        idle = [
            item.name
            for item in dataclasses.fields(settings)
            if item.name in ("name", "only_successes", "actions", "pictures")
            and getattr(settings, item.name) != getattr(defaults, item.name)
        ]
        if idle:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
            raise SettingsError(f"{flags}: for collections only; the schema of pair sets is fixed.", "Leave it out.")


def _division(settings: RldsExportSettings) -> TrainValSplit:
    return TrainValSplit(settings.val_fraction, settings.shards, settings.seed)


def _gripper(settings: RldsExportSettings, store: EpisodeStore) -> str:
    """The convention to translate from."""
    space = store.contract.get("action_space")
    convention = settings.gripper or (space.get("gripper") if isinstance(space, Mapping) else "")
    if not isinstance(convention, str) or not convention:
        raise SettingsError(f"{store.path} does not say what its gripper means.", "Pass --gripper '+1 closes'.")
    return convention


def _plan(settings: RldsExportSettings, source: ExportSource, gripper: str) -> Mapping[str, Any]:
    episodes = source.episodes
    return {
        "dry_run": True,
        "kind": f"rlds {source.kind}",
        "gripper": gripper,
        "episodes": len(episodes),
        "steps": sum(meta.steps for meta in episodes),
        "out": str(settings.out),
    }
