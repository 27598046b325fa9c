"""``grape export rlds``: preference pairs, or a whole collection, as RLDS data sets."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grape.core.errors import DataError, SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.files import content_hash, file_hash
from grape.core.preferences import PreferencePair
from grape.core.runs import RunFolder, open_run
from grape.core.trajectories import EpisodeMeta
from grape.preferences import read_pairs
from grape.preferences.pair import recorded_store
from grape.preferences.records import PAIRS_FILE
from grape.store import EpisodeStore
from grape.store.rlds.collection import write_collection
from grape.store.rlds.columns import ActionSource, PictureEncoding
from grape.store.rlds.division import Division
from grape.store.rlds.pairs import write_pairs
from grape.store.rlds.publishing import published_folder

__all__ = ["RldsExportSettings", "run_export_rlds"]

_VERB = "export"
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class RldsExportSettings:
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
        pictures: Of a collection: png is lossless; jpeg (quality 95) takes a fifth of the space and of the time. Pairs
            are always png.
        val_fraction: Share of the initial states whose episodes go to split val (between 0 and 1; at least one state).
            0 makes no such split of a collection; pairs need one.
        shards: Files a split (1 or more). Public loaders read several files in an arbitrary order and so tear pairs
            apart that they join by position: leave pairs at 1 for them.
        gripper: Meaning of the gripper's number in the episodes; empty takes what the store says.
        seed: Seed of the choice of initial states for val.
        dry_run: Only tell what would be written.
    """

    out: Path = field(metadata={"identity": False})
    pairs: Path | None = field(default=None, metadata={"identity": False})
    collection: Path | None = field(default=None, metadata={"identity": False})
    name: str = ""
    only_successes: bool = False
    actions: ActionSource = "labels"
    pictures: PictureEncoding = "png"
    val_fraction: float = 0.05
    shards: int = 1
    gripper: str = ""
    seed: int = 0
    dry_run: bool = field(default=False, metadata={"identity": False})


@dataclass(frozen=True)
class _Source:
    """What is exported: pairs, or the episodes of a collection; ``inputs`` identify it by content."""

    store: EpisodeStore
    gripper: str
    inputs: Mapping[str, str]
    pairs: tuple[PreferencePair, ...] = ()
    metas: tuple[EpisodeMeta, ...] = ()

    @property
    def kind(self) -> str:
        return "pairs" if self.pairs else "collection"

    @property
    def work(self) -> int:
        """Episodes to write and to compare."""
        return 2 * (2 * len(self.pairs) + len(self.metas))


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
    source = _open(settings)
    if settings.dry_run:
        return _plan(settings, source)
    if (settings.out / "run.json").exists():
        done = open_run(settings.out, _VERB, settings, source.inputs).done
        if done is not None:
            return done
    with published_folder(settings.out) as folder:
        open_run(folder, _VERB, settings, source.inputs)
        with reporter.progress(f"Exporting {source.kind}", source.work) as progress:
            if source.pairs:
                facts = write_pairs(
                    folder,
                    source.store,
                    source.pairs,
                    gripper=source.gripper,
                    division=_division(settings),
                    progress=progress,
                )
            else:
                facts = write_collection(
                    folder,
                    source.store,
                    source.metas,
                    name=_name(settings, source),
                    gripper=source.gripper,
                    actions=settings.actions,
                    encoding=settings.pictures,
                    division=_division(settings),
                    progress=progress,
                )
        summary = {"kind": f"rlds {source.kind}", "gripper": source.gripper, **facts}
        RunFolder(folder, _VERB).finish(summary)
    if source.pairs and settings.shards > 1:
        reporter.warn("Public loaders read several files in an arbitrary order: they may tear these pairs apart.")
    reporter.info(f"Written, read back and compared: {settings.out}")
    return summary


def _check(settings: RldsExportSettings) -> None:
    if (settings.pairs is None) == (settings.collection is None):
        raise SettingsError("Give either --pairs or --collection.", "grape export rlds --pairs runs/pairs --out OUT")
    _division(settings)
    if settings.name and not _NAME.fullmatch(settings.name):
        raise SettingsError(
            f"--name is {settings.name!r}.", "TFDS wants lower-case letters, digits and _, a letter first."
        )
    if settings.pairs is not None:
        if not settings.val_fraction:
            raise SettingsError("--val-fraction is 0.", "Readers of pair sets need a split val: give more.")
        defaults = RldsExportSettings(settings.out)
        idle = [
            item.name
            for item in dataclasses.fields(settings)
            if item.name in ("name", "only_successes", "actions", "pictures")
            and getattr(settings, item.name) != getattr(defaults, item.name)
        ]
        if idle:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
            raise SettingsError(f"{flags}: for collections only; the schema of pair sets is fixed.", "Leave it out.")


def _division(settings: RldsExportSettings) -> Division:
    return Division(settings.val_fraction, settings.shards, settings.seed)


def _open(settings: RldsExportSettings) -> _Source:
    if settings.pairs is not None:
        pairs = read_pairs(settings.pairs)
        store = EpisodeStore.open(recorded_store(settings.pairs))
        inputs = {"pairs": file_hash(settings.pairs / PAIRS_FILE), "episodes": _digest(store, pairs)}
        return _Source(store, _gripper(settings, store), inputs, pairs=pairs)
    store = EpisodeStore.open(settings.collection or Path())
    metas = tuple(meta for meta in store.metas() if meta.steps and (meta.success or not settings.only_successes))
    if not metas:
        raise DataError(f"{store.path} has no episode to export.", "Collect more, or drop --only-successes.")
    return _Source(store, _gripper(settings, store), {"episodes": store.digest()}, metas=metas)


def _digest(store: EpisodeStore, pairs: tuple[PreferencePair, ...]) -> str:
    known = set(store.ids())
    missing = [name for pair in pairs for name in (pair.chosen, pair.rejected) if name not in known]
    if missing:
        raise DataError(
            f"Store {store.path} lacks {len(missing)} episodes of the pairs, the first being {missing[0]}.",
            "Run 'grape collect' again: it records missing episodes anew.",
        )
    return content_hash([store.digest()])


def _gripper(settings: RldsExportSettings, store: EpisodeStore) -> str:
    """The convention to translate from."""
    space = store.contract.get("action_space")
    found = settings.gripper or (space.get("gripper") if isinstance(space, Mapping) else "")
    if not isinstance(found, str) or not found:
        raise SettingsError(f"{store.path} does not say what its gripper means.", "Pass --gripper '+1 closes'.")
    return found


def _name(settings: RldsExportSettings, source: _Source) -> str:
    return settings.name or re.sub(r"[^a-z0-9_]", "_", source.store.suite.lower())


def _plan(settings: RldsExportSettings, source: _Source) -> Mapping[str, Any]:
    episodes = source.metas or tuple(
        source.store.meta(name) for pair in source.pairs for name in (pair.chosen, pair.rejected)
    )
    return {
        "dry_run": True,
        "kind": f"rlds {source.kind}",
        "gripper": source.gripper,
        "episodes": len(episodes),
        "steps": sum(meta.steps for meta in episodes),
        "out": str(settings.out),
    }
