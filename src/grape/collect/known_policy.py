"""The contract of a policy whose finished run is looked at again, without opening its weights.

A policy's hash is that of its weights once they are open, so that only replicas know it. Beside a run that they have
finished lies a file with the contract and a hash of all that it followed from: the checkpoint's files, how they are
opened, and the releases that open them. Where these are the same, so is the contract.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.cluster.releases import releases
from grape.collect.settings import CollectSettings
from grape.core.errors import GrapeError
from grape.core.files import content_hash, file_hash, read_json_mapping, write_json
from grape.core.provenance import PROVENANCE_FILE, provenance_to_json
from grape.core.runs import is_complete
from grape.policies.base import PolicySpec
from grape.policies.hardware import policy_releases
from grape.policies.opening import opening_options
from grape.policies.registry import provenance_of, recognize_policy

__all__ = ["KnownPolicy", "spec_from_json"]

_FILE = ".policy-contract.json"


class KnownPolicy:
    """A checkpoint of this machine, by the content of its files.

    Args:
        settings: Which policy, and how it is opened.
    """

    def __init__(self, settings: CollectSettings) -> None:
        self._settings = settings
        self._files = _files_of(settings)
        self._hash: str | None = None

    def recorded(self, out: Path) -> PolicySpec | None:
        """The contract that the finished run in a folder was played with, if this is the same policy.

        Args:
            out: The run's folder, which need not exist.

        Returns:
            None where the run is not finished, nothing is recorded, or anything is not as it was.
        """
        if not (is_complete(out) and (out / _FILE).is_file()):
            return None
        try:
            record = read_json_mapping(out / _FILE, within=out)
            content = self._content()
            return spec_from_json(record["spec"]) if content and record["hash"] == content else None
        except (GrapeError, ValueError, KeyError, TypeError, AttributeError):  # damaged: the policy is opened
            return None

    def record(self, out: Path, spec: PolicySpec) -> None:
        """Write the contract of this policy beside a finished run, as a file that the run can do without.

        Nothing is written where files changed since this object was made, which is before the policy was opened.
        """
        content = self._content()
        if content and is_complete(out) and _files_of(self._settings) == self._files:
            with contextlib.suppress(OSError, GrapeError):
                write_json(out / _FILE, {"hash": content, "spec": dataclasses.asdict(spec)})

    def _content(self) -> str:
        """Hash of all that the contract follows from; empty where it is unknown, e.g. of names on the hub."""
        if self._hash is None:
            self._hash = ""
            with contextlib.suppress(GrapeError, OSError):
                hashes = {name: file_hash(file.path) for name, file in self._files.items()}
                collected = provenance_to_json(provenance_of(self._settings.policy)).get("collected", {})
                if hashes and _files_of(self._settings) == self._files:
                    self._hash = content_hash(_surroundings(self._settings) | {"files": hashes, "collected": collected})
        return self._hash


@dataclass(frozen=True)
class _File:
    """A file, its size and times."""

    path: Path
    size: int
    modified: int
    changed: int


def _files_of(settings: CollectSettings) -> dict[str, _File]:
    """The files of a checkpoint and of its base, by name; none where not all of them are known."""
    try:
        policy_type, place = recognize_policy(settings.policy, settings.preset)
        return {
            f"{number}/{path.relative_to(folder).as_posix()}": _File(
                path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
            )
            for number, folder in enumerate(policy_type.folders(place))
            for path in _files(folder)
            if (stat := path.stat())
        }
    except (GrapeError, OSError):
        return {}


def _surroundings(settings: CollectSettings) -> dict[str, Any]:
    """How a policy is opened, and by what."""
    options = json.loads(json.dumps(dataclasses.asdict(opening_options(settings))))
    return {"options": options, "releases": {**releases(), **policy_releases()}}


def _files(folder: Path) -> Iterator[Path]:
    """The files of a folder, but for what says where its policy was trained and judged: a loop adds to that."""
    for place, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        yield from (Path(place, name) for name in sorted(names) if name != PROVENANCE_FILE)


def spec_from_json(values: Mapping[str, Any]) -> PolicySpec:
    """A contract from its JSON values."""
    plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return PolicySpec(**plain)
