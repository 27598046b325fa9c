"""The folder a verb writes: its settings, whether it is complete, and its log.

A verb's output folder holds ``settings.yaml`` (what was asked), the verb's own files, ``log.jsonl`` (events with
times) and, last of all, ``done.json`` (a summary; its presence says that the work is complete). Starting the same
verb with the same settings in the same folder resumes; with other settings it is refused. One process at a time works
in a folder.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grape.core.errors import CompatibilityError, DataError, GrapeError, SettingsError
from grape.core.files import content_hash, read_json, read_json_mapping, write_json, write_text
from grape.core.locks import FolderLock, lock_folder
from grape.core.settings import read_yaml, save_settings, settings_to_dict
from grape.core.temporary_files import sweep_run_folder

__all__ = ["RunFolder", "identity_of", "load_summary", "open_run", "read_run_settings"]


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
        marker = self.path / "done.json"
        if not marker.exists():
            return None
        return read_json_mapping(marker, hint="Delete it and run the verb again.", within=self.path)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Declare the work complete; ``summary`` holds JSON values and no times of day, and keeps its order."""
        write_text(self.path / "done.json", json.dumps(dict(summary), indent=1, allow_nan=False) + "\n")


def open_run(path: Path, verb: str, settings: Any, identity: Mapping[str, Any] | None = None) -> RunFolder:
    """Claim ``path`` for ``verb`` with these settings, or join it for a resumption.

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
    wanted = {"verb": verb, "settings": identity_of(settings), "inputs": dict(identity or {})}
    lock = _lock(path)
    marker = path / "run.json"
    if marker.exists():
        found = read_json(marker, hint="Choose another --out.", within=path)
        if content_hash(found) != content_hash(wanted):
            raise CompatibilityError(
                f"{path} holds results of another run: {_difference(found, wanted)}.",
                "Choose another --out, or delete that folder to start afresh.",
            )
    elif path.exists() and any(entry.name not in {"log.jsonl"} for entry in path.iterdir() if entry.name[0] != "."):
        raise CompatibilityError(f"{path} is not empty and was not made by 'grape {verb}'.", "Choose another --out.")
    else:
        write_json(marker, wanted)
    sweep_run_folder(path, alone=lock is not None)
    save_settings(path / "settings.yaml", settings)
    return RunFolder(path, verb, lock)


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
    """The plain values of those settings that a result depends on.

    A field whose metadata holds ``{"identity": "unless default"}`` counts only where it was set: folders that were made
    before the field existed can still be resumed. ``"default_identity"`` in its metadata stands for a value of None.
    """
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        return {
            item.name: identity_of(_identity_value(item, getattr(settings, item.name)))
            for item in dataclasses.fields(settings)
            if _counts(item, getattr(settings, item.name))
        }
    return settings_to_dict(settings)


def _counts(item: "dataclasses.Field[Any]", value: Any) -> bool:
    rule = item.metadata.get("identity", True)
    return bool(value != item.default) if rule == "unless default" else bool(rule)


def _identity_value(item: "dataclasses.Field[Any]", value: Any) -> Any:
    return item.metadata.get("default_identity") if value is None else value


def _difference(found: Any, wanted: Any, where: str = "") -> str:
    """The first place where two JSON values differ, in words."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted({*found, *wanted}):
            if found.get(key) != wanted.get(key):
                return _difference(found.get(key), wanted.get(key), f"{where}.{key}" if where else str(key))
    return f"{where} was {json.dumps(found)}, now {json.dumps(wanted)}"


def load_summary(path: Path, verb: str) -> Mapping[str, Any]:
    """Summary of a completed verb's folder.

    Raises:
        DataError: The folder is not there, belongs to another verb, or is not complete.
    """
    if not (path / "run.json").exists():
        raise DataError(
            f"{path} is no output folder of 'grape {verb}'.",
            f"Run 'grape {verb}' with --out {path} first; if it ended with an error, fix the cause and run it again.",
        )
    owner = read_json_mapping(path / "run.json", hint=f"Run 'grape {verb}' again.", within=path).get("verb")
    if owner != verb:
        raise DataError(f"{path} was written by 'grape {owner}', not by 'grape {verb}'.", "Check the path.")
    done = RunFolder(path, verb).done
    if done is None:
        raise DataError(f"{path} is not complete.", f"Run the same 'grape {verb}' command again: it resumes.")
    return done


def read_run_settings(path: Path) -> Any:
    """The settings a folder was made with, as plain values."""
    return read_yaml(path / "settings.yaml")
