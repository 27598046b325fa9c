"""``grape export rerun``: episodes as recordings of Rerun, a viewer of images, points in space and curves over time."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.atomic_folders import clear_leftovers, published_folder
from grape.core.cameras import Camera, camera_from_dict
from grape.core.errors import CompatibilityError, DataError, GrapeError, SettingsError, require_known
from grape.core.events import SILENT, Reporter
from grape.core.files import content_hash, file_hash, in_use, sweep_beside, sync_folder, temporary_path
from grape.core.preferences import Score
from grape.core.repositories import local_folder
from grape.core.runs import RunFolder, open_run
from grape.core.settings import Range, check_ranges, setting
from grape.core.trajectories import EpisodeMeta
from grape.exchange.rerun_recording import RecordedEpisode, load_rerun, write_layout, write_recording
from grape.preferences import open_scores, read_pairs, recorded_stores, with_curves
from grape.preferences.records import PAIRS_FILE, SCORES_FILE
from grape.store import EpisodeStore, open_stores

__all__ = ["RerunExportSettings", "run_export_rerun"]

_VERB = "export"
_SUFFIX = ".rrd"
_RECORDINGS, _LAYOUT = "recordings", "layout.rbl"
_SELECTION = "Selection"


@dataclass(frozen=True)
class RerunExportSettings:
    """Write episodes as recordings that the Rerun viewer plays: images, keypoints in space, stages, costs, success.

    One file an episode, OUT/recordings/EPISODE.rrd, and OUT/recordings/layout.rbl with the arrangement of the viewer;
    'rerun OUT/recordings' opens all. Every file is read back and compared before the folder gets its name.

    Attributes:
        out: Folder to write; must not exist, or hold the same export. A name in .rrd is one file, of one episode.
        store: Folder that grape collect wrote, or an episode store. Without it the stores that --scores or --pairs were
            made from.
        scores: Folder that grape score wrote: adds stages, costs over time, and the terms of the score.
        pairs: Folder that grape pair wrote: only the episodes that its pairs compare.
        episodes: Only these episodes, by their names in the store.
        tasks: Only episodes of these tasks.
        only_successes: Leave out failures, and episodes of unknown outcome.
        limit: So many episodes at most, in the order of their names; 0 for all.
        hz: Control steps a second, for the timeline in seconds; 0 takes what the store says.
        dry_run: Print what would be written, and write nothing.
    """

    out: Path = setting(identity=False, common=True)
    store: Path | None = setting(None, identity=False, common=True)
    scores: Path | None = setting(None, identity=False, common=True)
    pairs: Path | None = setting(None, identity=False, common=True)
    episodes: tuple[str, ...] = setting((), group=_SELECTION, common=True)
    tasks: tuple[str, ...] = setting((), group=_SELECTION, common=True)
    only_successes: bool = setting(False, group=_SELECTION, common=True)
    limit: int = setting(0, group=_SELECTION, range=Range(0), common=True)
    hz: float = setting(0.0, group="Content", range=Range(0), common=True)
    dry_run: bool = setting(False, identity=False, common=True)


@dataclass(frozen=True)
class _Source:
    """What is exported: episodes of a store, with their scores."""

    store: EpisodeStore
    metas: tuple[EpisodeMeta, ...]
    scores: Mapping[str, Score]
    inputs: Mapping[str, str]
    hz: float


def run_export_rerun(settings: RerunExportSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Export for the Rerun viewer.

    Returns:
        Summary: ``kind``, numbers of ``episodes``, ``scored`` ones among them, ``images`` and ``curves`` (of costs),
        ``bytes``, ``hz`` (None where there are no seconds).

    Raises:
        SettingsError: Settings do not fit together, name what is not there, or rerun-sdk is not installed.
        DataError: Episodes or scores are missing or damaged, or a recording came back altered.
        CompatibilityError: ``out`` is there already with something else.
        GrapeError: The disk is full or the folder cannot be written; nothing stands under ``out`` then.
    """
    check_ranges(settings)
    source = _open(settings)
    one_file = settings.out.suffix == _SUFFIX
    if one_file and len(source.metas) != 1:
        raise SettingsError(
            f"{settings.out} would be one recording, which holds one episode; {len(source.metas)} are chosen.",
            "Choose one by --episodes NAME, or give a folder as --out.",
        )
    plan: dict[str, Any] = {
        "kind": "rerun",
        "episodes": len(source.metas),
        "scored": sum(meta.episode_id in source.scores for meta in source.metas),
        "hz": source.hz or None,
    }
    if settings.dry_run:
        return {"dry_run": True, **plan, "steps": sum(meta.steps for meta in source.metas), "out": str(settings.out)}
    if not one_file and (settings.out / "run.json").exists():
        finished_summary = open_run(settings.out, _VERB, settings, source.inputs).done
        if finished_summary is not None:
            clear_leftovers(settings.out)
            return finished_summary
    load_rerun()
    if one_file:
        summary = {**plan, **_write_file(settings.out, _episode(source, source.metas[0]))}
    else:
        summary = _write_folder(settings, source, plan, reporter)
    if missing := len(source.metas) - summary["scored"] if settings.scores else 0:
        reporter.warn(
            f"{settings.scores} has no score of {missing} of the episodes: they have neither stages nor costs."
        )
    if not source.hz:
        reporter.warn("The store does not say how many control steps a second has: no timeline in seconds (--hz).")
    reporter.info(f"Written, read back and compared: {settings.out}")
    return summary


def _write_file(out: Path, episode: RecordedEpisode) -> dict[str, int]:
    """One recording under its final name, whole or not at all.

    Raises:
        CompatibilityError: There is something under that name.
    """
    if out.exists():
        raise CompatibilityError(
            f"{out} is there already; it was left as it is.", "Choose another --out, or delete that file."
        )
    temporary = temporary_path(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        sweep_beside(out)
        with in_use(temporary):
            counts = write_recording(temporary, episode)
            os.replace(temporary, out)
        sync_folder(out.parent)
    except OSError as error:
        raise GrapeError(
            f"Could not write {out}: {error.strerror or error}.", "Free space or fix the permissions, then retry."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return counts


def _write_folder(
    settings: RerunExportSettings, source: _Source, plan: Mapping[str, Any], reporter: Reporter
) -> dict[str, Any]:
    totals = {"bytes": 0, "images": 0, "curves": 0}
    with published_folder(settings.out) as folder:
        open_run(folder, _VERB, settings, source.inputs)
        (folder / _RECORDINGS).mkdir()
        with reporter.progress("Exporting episodes", len(source.metas)) as progress:
            for number, meta in enumerate(source.metas):
                episode = _episode(source, meta)
                if not number:
                    write_layout(folder / _RECORDINGS / _LAYOUT, episode)
                counts = write_recording(folder / _RECORDINGS / f"{meta.episode_id}{_SUFFIX}", episode)
                totals = {name: totals[name] + counts[name] for name in totals}
                progress.advance(note=meta.task)
        summary = {**plan, **totals}
        RunFolder(folder, _VERB).finish(summary)
    return summary


def _open(settings: RerunExportSettings) -> _Source:
    scores_folder = None if settings.scores is None else local_folder(settings.scores)
    pairs_folder = None if settings.pairs is None else local_folder(settings.pairs)
    inputs = {}
    if settings.store is not None:
        store = EpisodeStore.open(settings.store)
    elif scores_folder is not None:
        store = open_stores(recorded_stores(scores_folder, "score"))
    elif pairs_folder is not None:
        store = open_stores(recorded_stores(pairs_folder))
    else:
        raise SettingsError(
            "No episodes are named.", "Give --store, --scores or --pairs: grape export rerun --store RUN --out OUT"
        )
    metas = _selected(settings, store, pairs_folder)
    scores: Mapping[str, Score] = {}
    if scores_folder is not None:
        scores = _scores_of(scores_folder, metas)
        inputs["scores"] = file_hash(scores_folder / SCORES_FILE)
        if not scores:
            raise DataError(
                f"{settings.scores} has a score of none of the {len(metas)} episodes of {store.place}.",
                "Give the store that was scored, or leave --store out.",
            )
    if pairs_folder is not None:
        inputs["pairs"] = file_hash(pairs_folder / PAIRS_FILE)
    inputs["episodes"] = content_hash({meta.episode_id: store.checksum(meta.episode_id) for meta in metas})
    return _Source(store, metas, scores, inputs, settings.hz or _recorded_hz(store))


def _scores_of(folder: Path, metas: Sequence[EpisodeMeta]) -> dict[str, Score]:
    """Scores of some episodes, with their curves."""
    scores = open_scores(folder)
    return with_curves(folder, [scores[meta.episode_id] for meta in metas if meta.episode_id in scores])


def _selected(settings: RerunExportSettings, store: EpisodeStore, pairs: Path | None) -> tuple[EpisodeMeta, ...]:
    metas = store.metas()
    for task in settings.tasks:
        require_known("task", task, sorted({meta.task for meta in metas}))
    stored = {meta.episode_id for meta in metas}
    for name in settings.episodes:
        require_known("episode", name, sorted(stored))
    names = set(settings.episodes) or stored
    if pairs is not None:
        compared = {name for pair in read_pairs(pairs) for name in (pair.chosen, pair.rejected)}
        if missing := compared - stored:
            raise DataError(
                f"Store {store.place} lacks {len(missing)} episodes of the pairs, the first being {min(missing)}.",
                "Give the store that the pairs were made from, or leave --store out.",
            )
        names &= compared
    chosen = [
        meta
        for meta in metas
        if meta.episode_id in names
        and (not settings.tasks or meta.task in settings.tasks)
        and (meta.success or not settings.only_successes)
    ]
    if not chosen:
        raise DataError(f"{store.place} has no episode of this selection.", "Select less strictly.")
    return tuple(chosen[: settings.limit or None])


def _episode(source: _Source, meta: EpisodeMeta) -> RecordedEpisode:
    store, name = source.store, meta.episode_id
    trajectory = store.read(name)
    return RecordedEpisode(
        trajectory=trajectory,
        identity=f"{name}-{store.checksum(name)[:8]}",
        display=store.display_files(name),
        score=source.scores.get(name),
        camera=_camera(meta),
        action_names=_action_names(store, trajectory.actions.shape[1]),
        hz=source.hz,
    )


def _camera(meta: EpisodeMeta) -> Camera | None:
    """The main camera, where the suite recorded a pinhole camera."""
    try:
        return camera_from_dict(meta.extra["camera"]) if "camera" in meta.extra else None
    except DataError:
        return None


def _action_names(store: EpisodeStore, dim: int) -> tuple[str, ...]:
    space = store.contract.get("action_space")
    names = space.get("names") if isinstance(space, Mapping) else None
    if isinstance(names, list) and len(names) == dim:
        return tuple(map(str, names))
    return tuple(f"action {index}" for index in range(dim))


def _recorded_hz(store: EpisodeStore) -> float:
    space = store.contract.get("action_space")
    hz = space.get("control_hz") if isinstance(space, Mapping) else None
    return float(hz) if isinstance(hz, int | float) and hz > 0 else 0.0
