"""``grape import grape-npy``: the first implementation's rollout files become an episode store."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from grape.core.errors import DataError
from grape.core.events import SILENT, Reporter
from grape.core.files import content_hash, file_hash, write_jsonl
from grape.core.runs import open_run
from grape.core.settings import setting
from grape.core.trajectories import EpisodeMeta
from grape.store import EpisodeStore
from grape.store.grape_npy import MAX_FILE_BYTES, Flavor, Rollout, read_rollout
from grape.store.imported import ACTION_SPACE, ActionReader, foreign_trajectory, task_name
from grape.store.rlds.standardize import gripper_to_loader

__all__ = ["ImportGrapeNpySettings", "run_import_grape_npy"]

SUITE = "grape-npy"
_ODD = "Odd:"
_OUTCOME_FOLDERS = {
    **dict.fromkeys(("success", "successes", "successful"), True),
    **dict.fromkeys(("failure", "failures", "fail", "failed"), False),
}


_HABITS = "Conventions of the files"


@dataclass(frozen=True)
class ImportGrapeNpySettings:
    """Read rollouts (.npy) of the first implementation into an episode store, fixed by declared rules.

    The files are pickles; they are read by an interpreter that knows plain data only and calls nothing. A file that
    wants anything else is left out and named. OUT/files.jsonl lists what was done to each file.

    SimplerEnv's collector stored the image taken after each action: every action gets the image of the decision
    before, and the first action, which has none, is dropped. LIBERO's collector stored the environment's gripper (+1
    closes): it becomes 1 = open, 0 = closed, which training assumes. The cost in a file's name, which
    its collector cut to an integer, is kept as a hint only.

    Attributes:
        folder: Folder with the files, at any depth.
        out: Folder to write: store (the episodes) and files.jsonl.
        flavour: Which collector wrote the files; auto recognizes each by name and images.
        pictures_after_action: Whether images were taken after the action of their step; auto takes the
            collector's convention.
        gripper: Meaning of the gripper's number in the files; auto takes the collector's convention.
    """

    folder: Path = setting(identity=False, common=True)
    out: Path = setting(identity=False, common=True)
    flavour: Literal["auto", "simplerenv", "libero"] = setting("auto", group=_HABITS, common=True)
    pictures_after_action: Literal["auto", "yes", "no"] = setting("auto", group=_HABITS, common=True)
    gripper: Literal["auto", "+1 closes", "1 opens, 0 closes"] = setting("auto", group=_HABITS, common=True)


def run_import_grape_npy(
    settings: ImportGrapeNpySettings, reporter: Reporter = SILENT, reader: ActionReader | None = None
) -> Mapping[str, Any]:
    """Import rollouts.

    Args:
        settings: What to import.
        reporter: Progress; a warning for every file that is left out.
        reader: A policy whose tokens for the recorded actions are kept; without one there are none.

    Returns:
        Summary: numbers of ``files``, ``episodes``, ``left_out``, ``odd``, ``successes``, ``unknown_outcomes``,
            ``flavours``, ``store``.

    Raises:
        DataError: The folder holds no file that can be read.
        CompatibilityError: ``out`` belongs to another run.
    """
    paths = sorted(path for path in settings.folder.rglob("*.npy") if not path.is_dir())
    if not paths:
        raise DataError(f"{settings.folder} holds no .npy file.", "Give the folder that the collector wrote.")
    inputs = {
        "files": content_hash({str(path.relative_to(settings.folder)): _hash(path) for path in paths}),
        "reader": reader.preprocessing_hash if reader else "",
    }
    run = open_run(settings.out, "import", settings, inputs)
    if run.done is not None:
        return run.done
    store = EpisodeStore.create(settings.out / "store", SUITE, {"action_space": ACTION_SPACE})
    rows: list[dict[str, Any]] = []
    used_ids: set[str] = set()
    with reporter.progress("Importing rollouts", len(paths)) as progress:
        for path in paths:
            name = str(path.relative_to(settings.folder))
            try:
                rows.append({"file": name} | _import(path, name, settings, store, reader, used_ids))
            except DataError as error:
                rows.append({"file": name, "left_out": error.message})
                reporter.warn(f"Left out: {error.message}")
            progress.advance()
    write_jsonl(settings.out / "files.jsonl", rows)
    done = [row for row in rows if "episode_id" in row]
    if not done:
        raise DataError(
            f"None of the {len(rows)} files in {settings.folder} could be read.",
            f"{settings.out / 'files.jsonl'} says why, file by file.",
        )
    odd = sum(any(text.startswith(_ODD) for text in row["done"]) for row in done)
    if odd:
        reporter.warn(f"{odd} files look odd; {settings.out / 'files.jsonl'} says what about each of them.")
    unknown = sum(row["success"] is None for row in done)
    if unknown:
        reporter.warn(
            f"The names of {unknown} files tell no outcome (success_episode_N.npy or failure_episode_N.npy would): "
            "their success stays unknown."
        )
    summary = {
        "files": len(rows),
        "episodes": len(done),
        "left_out": len(rows) - len(done),
        "odd": odd,
        "successes": sum(row["success"] is True for row in done),
        "unknown_outcomes": unknown,
        "flavours": dict(Counter(row["flavour"] for row in done)),
        "store": "store",
    }
    run.finish(summary)
    return summary


def _hash(path: Path) -> str:
    """Hash of a file; empty if it cannot be opened, so that it is skipped like other bad files."""
    try:
        return file_hash(path, MAX_FILE_BYTES)
    except DataError:
        return ""


def _import(
    path: Path,
    name: str,
    settings: ImportGrapeNpySettings,
    store: EpisodeStore,
    reader: ActionReader | None,
    used_ids: set[str],
) -> dict[str, Any]:
    """Write one episode; what was done."""
    rollout = read_rollout(path, "" if settings.flavour == "auto" else settings.flavour, settings.folder)
    rules = _rules(settings, rollout.flavor)
    _check_folder(path, name, rollout)
    task = task_name(rollout.prompt)
    outcome = {True: "success", False: "failure", None: "unknown"}[rollout.success]
    episode_id = f"{task}-{rollout.episode:04d}-{outcome}-{rollout.number:02d}"
    if episode_id in used_ids:
        raise DataError(f"{path}: another file holds episode {episode_id} already.", "Import the folders separately.")
    meta = EpisodeMeta(
        episode_id=episode_id,
        suite=SUITE,
        task=task,
        task_index=0,
        instruction=rollout.prompt,
        initial_state=rollout.episode,
        sample=rollout.number,
        seed=0,
        success=rollout.success,
        steps=0,
        actor="",
        extra={"imported_from": name, "cost_hint": rollout.cost_hint},
    )
    trajectory = foreign_trajectory(
        meta,
        rollout.images,
        gripper_to_loader(rollout.actions, rules.gripper),
        pictures_after_action=rules.pictures_after_action,
        reader=reader,
    )
    store.write(trajectory)
    used_ids.add(episode_id)
    return {
        "episode_id": episode_id,
        "flavour": rules.name,
        "recorded_steps": rollout.steps,
        "steps": trajectory.steps,
        "success": rollout.success,
        "cost_hint": rollout.cost_hint,
        "done": _changes(rules, rollout),
    }


def _check_folder(path: Path, name: str, rollout: Rollout) -> None:
    """Refuse a file whose name states one outcome and whose folder the other."""
    for folder in Path(name).parent.parts:
        folder_outcome = _OUTCOME_FOLDERS.get(folder.lower())
        if None not in (folder_outcome, rollout.success) and folder_outcome != rollout.success:
            raise DataError(
                f"{path}: folder {folder!r} and the file's name tell different outcomes.",
                "Rename one of them to what happened.",
            )


def _rules(settings: ImportGrapeNpySettings, flavor: Flavor) -> Flavor:
    """Conventions of the file's collector, with the user's overrides."""
    if settings.pictures_after_action != "auto":
        flavor = dataclasses.replace(flavor, pictures_after_action=settings.pictures_after_action == "yes")
    if settings.gripper != "auto":
        flavor = dataclasses.replace(flavor, gripper=settings.gripper)
    return flavor


def _changes(rules: Flavor, rollout: Rollout) -> list[str]:
    """Sentences on what was changed and what looks odd."""
    changes = []
    if rules.pictures_after_action:
        changes.append("Images moved by one decision, so that each was taken before its action; first action dropped.")
    else:
        changes.append("Last image repeated: what followed the last action was not recorded.")
    gripper = rollout.actions[:, -1]
    if rules.gripper == "+1 closes":
        changes.append("Gripper turned from +1 closes to 1 = open, 0 = closed.")
        if np.isin(gripper, (0, 1)).all() and (gripper == 0).any():
            changes.append(f"{_ODD} the gripper is only 0 and 1, where -1 and +1 were due. Check, and pass --gripper.")
    elif (gripper < 0).any():
        changes.append(
            f"{_ODD} the gripper is negative, where 0 and 1 were due; it was cut. Check, and pass --gripper."
        )
    if rollout.cost_hint is not None:
        changes.append("Cost of the file's name kept as a hint: collectors cut it to an integer.")
    return changes
