"""The folder a verb writes: its settings, lock, summary and log.

A verb's output folder holds ``settings.yaml`` (the settings), the verb's own files, ``log.jsonl`` (events with
times) and, last of all, ``done.json`` (a summary; its presence says that the work is complete). Starting the same
verb with the same settings in the same folder resumes; with other settings it is refused. One process at a time works
in a folder; of a process group the main one writes.
"""

import dataclasses
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grape.core.errors import CompatibilityError, DataError, GrapeError, SettingsError
from grape.core.files import content_hash, read_json, read_json_mapping, sweep_run_folder, write_json, write_text
from grape.core.folder_locks import LOCK_NAMES, FolderLock, lock_folder
from grape.core.remote.mirror_names import with_addresses
from grape.core.settings import read_yaml, save_settings, settings_to_dict

__all__ = [
    "DONE_FILE",
    "GIVEN_DATA",
    "RUN_FILE",
    "RunFolder",
    "check_run",
    "identity_of",
    "is_complete",
    "load_summary",
    "open_run",
    "read_run_settings",
    "recorded_inputs",
    "run_record",
]

GIVEN_DATA = "data"
"""Folder of a run's folder with what a program handed over in memory; it is written before the run begins."""
RUN_FILE, DONE_FILE = "run.json", "done.json"
"""Files of a folder: what it belongs to, and its summary."""
_SETTINGS_FILE, _LOG_FILE = "settings.yaml", "log.jsonl"


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """An output folder that belongs to one verb and one set of settings.

    Attributes:
        path: The folder.
        verb: Name of the verb that writes here.
        lock: Keeps other processes out as long as this object lives; None where nobody writes.
    """

    path: Path
    verb: str
    lock: FolderLock | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def done(self) -> Mapping[str, Any] | None:
        """The summary written by :meth:`finish`, or None while the work is not complete."""
        marker = self.path / DONE_FILE
        if not marker.exists():
            return None
        return read_json_mapping(marker, hint="Delete it and run the verb again.", within=self.path)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Declare the work complete; ``summary`` holds JSON values and no times of day, and keeps its order.

        Folders in mirrors are written as the addresses that they stand for, which hold on every machine.
        """
        write_text(self.path / DONE_FILE, json.dumps(with_addresses(summary), indent=1, allow_nan=False) + "\n")


def open_run(path: Path, verb: str, settings: Any, identity: Mapping[str, Any] | None = None) -> RunFolder:
    """Open the run folder ``path`` of ``verb`` with these settings, new or for resumption.

    What killed processes left unfinished in it is removed.

    Args:
        path: The output folder; made when absent.
        verb: The verb's name.
        settings: The resolved settings, saved as ``settings.yaml``. Fields whose dataclass metadata holds
            ``{"identity": False}`` (paths of outputs, worker counts, verbosity) may differ on resumption.
        identity: Further values that must agree on resumption, e.g. hashes of inputs.

    Returns:
        The folder. Other processes are kept out of it until this object is gone.

    Raises:
        SettingsError: ``path`` is or lies below something that is no folder.
        CompatibilityError: The folder belongs to another verb or to other settings, or another process works there.
        GrapeError: The folder cannot be made.
    """
    lock = _lock(path)
    if not check_run(path, verb, settings, identity):
        write_json(path / RUN_FILE, run_record(verb, settings, identity))
    sweep_run_folder(path, alone=lock is not None)
    save_settings(path / _SETTINGS_FILE, settings)
    return RunFolder(path, verb, lock)


def check_run(path: Path, verb: str, settings: Any, identity: Mapping[str, Any] | None = None) -> bool:
    """Whether this very run was begun in a folder; nothing is written.

    A run that ended before it wrote anything of its own, e.g. since a program did not start, has nothing to lose: its
    folder is free for any other.

    Args:
        path: The output folder, which need not exist.
        verb: As for :func:`open_run`.
        settings: As there.
        identity: As there.

    Raises:
        CompatibilityError: The folder belongs to something else.
    """
    marker, expected = path / RUN_FILE, run_record(verb, settings, identity)
    if marker.exists():
        recorded = read_json(marker, hint="Choose another --out.", within=path)
        if content_hash(recorded) != content_hash(expected):
            if not _has_results(path):
                return False
            flags = _flags_to_resume(recorded, expected)
            resume = f" To go on with it, give {flags}." if flags else ""
            raise CompatibilityError(
                f"{path} holds results of another run: {_difference(recorded, expected)}.",
                f"Choose another --out, or delete that folder to start afresh.{resume}",
            )
        return True
    if path.is_dir() and any(
        entry.name not in {_LOG_FILE, GIVEN_DATA} for entry in path.iterdir() if entry.name[0] != "."
    ):
        raise CompatibilityError(f"{path} is not empty and was not made by 'grape {verb}'.", "Choose another --out.")
    return False


def _has_results(path: Path) -> bool:
    """Whether a run's folder holds any file beside those that every run has from its start."""
    beginning = {RUN_FILE, _SETTINGS_FILE, _LOG_FILE, *LOCK_NAMES}
    return any(entry.name not in beginning and _holds_a_file(entry) for entry in path.iterdir())


def _holds_a_file(entry: Path) -> bool:
    """Whether this is a file, or a folder with any file below it."""
    return not entry.is_dir() or any(map(_holds_a_file, entry.iterdir()))


def run_record(verb: str, settings: Any, identity: Mapping[str, Any] | None) -> dict[str, Any]:
    """What ``run.json`` holds of a run, see :func:`open_run`."""
    return {"verb": verb, "settings": identity_of(settings), "inputs": with_addresses(identity or {})}


def _lock(path: Path) -> FolderLock | None:
    """Make the folder and lock it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise SettingsError(
            f"--out {path} cannot be a folder: {error.filename} is a file.", "Choose another --out."
        ) from error
    except OSError as error:
        raise GrapeError(
            f"Could not make the folder {path}: {error.strerror or error}.", "Choose another --out."
        ) from error
    return lock_folder(path)


def identity_of(settings: Any) -> Any:
    """The plain values of those settings that a result depends on; of a mirror its address, which all machines share.

    A field whose metadata holds ``{"identity": "unless default"}`` counts only where it was set: folders that were made
    before the field existed can still be resumed. ``"default_identity"`` in its metadata stands for a value of None.
    """
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        return {
            item.name: identity_of(_identity_value(item, getattr(settings, item.name)))
            for item in dataclasses.fields(settings)
            if _counts(item, getattr(settings, item.name))
        }
    return with_addresses(settings_to_dict(settings))


def _counts(item: "dataclasses.Field[Any]", value: Any) -> bool:
    rule = item.metadata.get("identity", True)
    return bool(value != item.default) if rule == "unless default" else bool(rule)


def _identity_value(item: "dataclasses.Field[Any]", value: Any) -> Any:
    return item.metadata.get("default_identity") if value is None else value


def _difference(recorded: Any, expected: Any, where: str = "") -> str:
    """The first place where two JSON values differ, in words."""
    if isinstance(recorded, dict) and isinstance(expected, dict):
        for key in sorted({*recorded, *expected}):
            if recorded.get(key) != expected.get(key):
                return _difference(recorded.get(key), expected.get(key), f"{where}.{key}" if where else str(key))
    return f"{where} was {json.dumps(recorded)}, now {json.dumps(expected)}"


def _flags_to_resume(recorded: Any, expected: Any) -> str:
    """The flags that make the settings those that a folder was begun with; empty where flags alone do not."""
    if not isinstance(recorded, dict) or any(recorded.get(key) != expected[key] for key in ("verb", "inputs")):
        return ""
    flags: list[str] = []

    def compare(old: Any, new: Any, prefix: str) -> bool:
        """Append the flags; whether they tell all differences."""
        complete = True
        for name in sorted({*old, *new}):
            one, other = old.get(name), new.get(name)
            flag = f"{prefix}{name.replace('_', '-')}"
            if isinstance(one, dict) and isinstance(other, dict):
                complete &= compare(one, other, f"{flag}.")
            elif one != other and isinstance(one, bool):
                head, _, last = flag.rpartition(".")
                flags.append(f"--{flag}" if one else f"--{head}{'.' if head else ''}no-{last}")
            elif one != other and isinstance(one, int | float | str):
                flags.append(f"--{flag} {shlex.quote(str(one))}")
            else:  # absent in one of them: no flag says so
                complete &= one == other
        return complete

    complete = compare(recorded.get("settings", {}), expected["settings"], "")
    return " ".join(flags) if complete and len(flags) <= 5 else ""


def is_complete(path: Path) -> bool:
    """Whether the work of the verb that writes to ``path`` is complete."""
    return (path / DONE_FILE).exists()


def load_summary(path: Path, verb: str) -> Mapping[str, Any]:
    """Summary of a completed verb's folder.

    Raises:
        DataError: The folder is not there, belongs to another verb, or is not complete.
    """
    if not (path / RUN_FILE).exists():
        if path.is_file() and (path.parent / RUN_FILE).exists():
            raise DataError(
                f"{path} is a file, not the output folder of 'grape {verb}'.",
                f"Did you mean the folder {path.parent}?",
            )
        raise DataError(
            f"{path} is no output folder of 'grape {verb}'.",
            f"Run 'grape {verb}' with --out {path} first; if it ended with an error, fix the cause and run it again.",
        )
    owner = read_json_mapping(path / RUN_FILE, hint=f"Run 'grape {verb}' again.", within=path).get("verb")
    if owner != verb:
        raise DataError(f"{path} was written by 'grape {owner}', not by 'grape {verb}'.", "Check the path.")
    summary = RunFolder(path, verb).done
    if summary is None:
        raise DataError(f"{path} is not complete.", f"Run the same 'grape {verb}' command again: it resumes.")
    return summary


def recorded_inputs(path: Path, verb: str) -> Mapping[str, Any] | None:
    """The ``identity`` that a verb's folder was begun with, see :func:`open_run`; None where no run of it is there."""
    marker = path / RUN_FILE
    if not marker.exists():
        return None
    recorded = read_json_mapping(marker, hint="Choose another --out.", within=path)
    inputs = recorded.get("inputs")
    return inputs if recorded.get("verb") == verb and isinstance(inputs, dict) else None


def read_run_settings(path: Path) -> Any:
    """The settings a folder was made with, as plain values."""
    return read_yaml(path / _SETTINGS_FILE)
