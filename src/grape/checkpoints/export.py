"""The verb ``export`` for checkpoints: a whole one with the adapter merged, or the adapter in PEFT's layout."""

import importlib.metadata
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from grape import __version__
from grape.checkpoints.card import CARD, Card, read_identity
from grape.checkpoints.settings import ExportAdapterSettings, ExportMergedSettings
from grape.core.atomic_folders import atomic_folder
from grape.core.errors import CompatibilityError, SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.files import content_hash, file_hash, sweep_beside, write_text
from grape.core.settings import flag_of
from grape.policies.exports import PolicyExport
from grape.policies.opening import parse_hub_name
from grape.policies.registry import recognize_policy
from grape.policies.types import OpeningOptions

__all__ = ["run_export_adapter", "run_export_merged"]

_GIGABYTE = 10**9
_SMALLEST_SHARD_GB = 0.001

_MADE_WITH = {
    "merged": (("torch", "transformers", "safetensors", "peft"), "transformers"),
    "adapter": (("peft", "safetensors"), "peft"),
}
"""Packages that an export's bytes depend on, and the library that loads it."""


def run_export_merged(settings: ExportMergedSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Write a policy as a whole checkpoint in the published layout; the folder appears when it is complete.

    Returns:
        ``kind``, ``policy``, ``out``, ``parameters``, ``dtype``, ``adapter_merged``, ``files`` (bytes by name) and
        ``weights`` (SHA-256 by name).

    Raises:
        SettingsError: There is no such policy, or the shards' size makes no sense.
        DataError: The policy's files are damaged.
        CompatibilityError: ``out`` holds something else.
        GrapeError: The disk is full or cannot be written.
    """
    if not settings.shard_gb >= _SMALLEST_SHARD_GB:
        raise SettingsError(f"--shard-gb is {settings.shard_gb}.", f"It must be at least {_SMALLEST_SHARD_GB}.")
    shard_bytes = int(min(settings.shard_gb, 1e9) * _GIGABYTE)
    policy_type, place = recognize_policy(settings.policy, settings.preset)
    choices = {name: getattr(settings, name) for name in ("preset", "unnorm_key", "chunk", "cameras")}
    export = policy_type.export_merged(place, OpeningOptions(convention=settings.convention, **choices), shard_bytes)
    words = [word for name, value in choices.items() if value for word in (flag_of(name), str(value))]
    words += ["--convention", *settings.convention] if settings.convention else []
    identity = {"shard_bytes": shard_bytes, **export.identity}
    _write(settings, "merged", export, identity, words, reporter)
    merged = export.source.base is not None
    return {**_summary("merged", settings.policy, settings.out), "adapter_merged": merged}


def run_export_adapter(settings: ExportAdapterSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Write an adapter in PEFT's layout; the folder appears when it is complete.

    Returns:
        ``kind``, ``policy``, ``out``, ``base``, ``files`` (bytes by name) and ``weights`` (SHA-256 by name).

    Raises:
        SettingsError: There is no such policy, or it is a whole checkpoint.
        DataError: The adapter is damaged or does not fit its base.
        CompatibilityError: ``out`` holds something else.
        GrapeError: The disk is full or cannot be written.
    """
    policy_type, place = recognize_policy(settings.policy)
    export = policy_type.export_adapter(place, settings.base)
    if export.warning:
        reporter.warn(export.warning)
    _write(settings, "adapter", export, {"base": settings.base, **export.identity}, [], reporter)
    return {**_summary("adapter", settings.policy, settings.out), "base": export.base}


def _write(
    settings: ExportMergedSettings | ExportAdapterSettings,
    kind: str,
    export: PolicyExport,
    identity: Mapping[str, Any],
    words: list[str],
    reporter: Reporter,
) -> None:
    """Write an export and its card; ``words`` are those of the command that are not in every call."""
    packages, library = _MADE_WITH[kind]
    identity_hash = content_hash({"kind": kind, "sources": dict(export.source.hashes), **identity})
    command = ["grape", "export", kind, "--policy", settings.policy, "--out", str(settings.out), *words]

    def fill(folder: Path) -> None:
        reporter.info(f"Reading {settings.policy} and writing {settings.out}.")
        export.write(folder)
        card = Card(
            title=_title(settings.policy),
            identity=identity_hash,
            base_model=_hub(export.base),
            description=export.description,
            command=shlex.join(command),
            versions=_versions(*packages),
            sources=export.source.hashes,
            written=_weights(folder),
            statistics=export.statistics,
            library=library,
        )
        write_text(folder / CARD, card.markdown())

    _publish(settings.out, identity_hash, fill)


def _publish(out: Path, identity: str, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write a temporary folder, renamed to ``out`` when complete; a finished export is not repeated."""
    if out.is_file():
        raise SettingsError(f"--out {out} is a file.", "Choose another --out.")
    if out.is_dir() and any(out.iterdir()):
        existing_identity = read_identity(out)
        if existing_identity == identity:
            sweep_beside(out)
            return
        what = "another export" if existing_identity else "files of something else"
        raise CompatibilityError(
            f"{out} holds {what}; nothing was written.", "Choose another --out, or delete that folder first."
        )
    with atomic_folder(out) as temporary:
        fill(temporary)


def _summary(kind: str, policy: str, out: Path) -> dict[str, Any]:
    return {
        "kind": kind,
        "policy": policy,
        "out": str(out),
        "files": {path.name: path.stat().st_size for path in sorted(out.iterdir()) if path.is_file()},
        "weights": _weights(out),
    }


def _weights(folder: Path) -> dict[str, str]:
    return {path.name: file_hash(path) for path in sorted(folder.glob("*.safetensors"))}


def _title(policy: str) -> str:
    hub = parse_hub_name(policy)
    if hub is not None:
        return hub.repository.rpartition("/")[2]
    folder = Path(policy).resolve()
    return folder.parent.name if folder.name == "policy" else folder.name


def _hub(name: str) -> str:
    hub = parse_hub_name(name)
    return "" if hub is None else hub.repository


def _versions(*packages: str) -> dict[str, str]:
    return {"grape-vla": __version__, **{name: importlib.metadata.version(name) for name in packages}}
