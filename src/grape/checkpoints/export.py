"""The verb ``export`` for checkpoints: a whole one with the adapter merged, or the adapter in PEFT's layout."""

import dataclasses
import importlib.metadata
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grape import __version__
from grape.checkpoints.card import CARD, Card, read_identity
from grape.checkpoints.settings import ExportAdapterSettings, ExportMergedSettings
from grape.core.atomic_folders import atomic_folder
from grape.core.errors import CompatibilityError, SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.files import content_hash, file_hash, read_json, sweep_beside, write_text
from grape.core.settings import flag_of
from grape.policies.opening import check_policy_name, parse_hub_name, read_checkpoint_kind, resolve_policy

if TYPE_CHECKING:
    from grape.policies.openvla import OpenVLAConfig

__all__ = ["run_export_adapter", "run_export_merged"]

_GIGABYTE = 10**9
_SMALLEST_SHARD_GB = 0.001

_MERGED = """A vision-language-action policy of OpenVLA's architecture in OpenVLA's published layout{merged}.
OpenVLA's, SimplerEnv's and LIBERO's own scripts load it as they load `openvla/openvla-7b`, and so does
`grape evaluate --policy FOLDER`. `config.json` is the base's but for `norm_stats`; the same statistics stand in
`dataset_statistics.json`.{facts}"""

_CHUNKS = """A vision-language-action policy of OpenVLA-OFT's architecture in its published layout: OpenVLA-OFT's own
code loads it, and so does `grape predict --policy FOLDER`. `config.json` says nothing of how it is run; `grape.json`
beside it does: {conventions}.{facts}"""

_ADAPTER = """A LoRA adapter (rank {rank}, {layers} layers) for the policy `{base}`, in PEFT's layout:
`PeftModel.from_pretrained(base, FOLDER)` puts it onto the base, and so does `grape evaluate --policy FOLDER`.
OpenVLA's, SimplerEnv's and LIBERO's own scripts know no adapters: for those, use `grape export merged`.{facts}"""


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
    check_policy_name(settings.policy)
    shard_bytes = int(min(settings.shard_gb, 1e9) * _GIGABYTE)
    if settings.preset or read_checkpoint_kind(settings.policy).name == "openvla-oft":
        return _export_chunks(settings, shard_bytes, reporter)
    names = ("cameras", "unnorm_key", "chunk", "convention")
    given = [flag_of(name) for name in names if getattr(settings, name) not in ((), None, "")]
    if given:
        raise SettingsError(
            f"The policy is taken for plain OpenVLA; {', '.join(given)} cannot be used.",
            "If it is a checkpoint of OpenVLA-OFT, say how it is run: --preset openvla-oft, simplevla-rl or rlinf.",
        )
    from grape.policies.openvla import read_policy_config
    from grape.policies.openvla.exporting import find_source, write_merged

    source = find_source(settings.policy)
    config = read_policy_config(source.folder)
    identity = content_hash({"kind": "merged", "sources": dict(source.hashes), "shard_bytes": shard_bytes})
    merged = source.base is not None
    name = source.base_name if merged else settings.policy

    def fill(folder: Path) -> None:
        reporter.info(f"Reading {settings.policy} and writing {settings.out}.")
        write_merged(source, folder, shard_bytes)
        card = Card(
            title=_title(settings.policy),
            identity=identity,
            base_model=_hub(name),
            description=_MERGED.format(
                merged=", with a LoRA adapter merged into its weights" if merged else "", facts=_facts(config)
            ),
            command=shlex.join(["grape", "export", "merged", "--policy", settings.policy, "--out", str(settings.out)]),
            versions=_versions("torch", "transformers", "safetensors", "peft"),
            sources=source.hashes,
            written=_weights(folder),
            statistics=list(config.norm_stats),
            library="transformers",
        )
        write_text(folder / CARD, card.markdown())

    _publish(settings.out, identity, fill)
    return {**_summary("merged", settings.policy, settings.out), "adapter_merged": merged}


def _export_chunks(settings: ExportMergedSettings, shard_bytes: int, reporter: Reporter) -> Mapping[str, Any]:
    from grape.policies.openvla.exporting import find_source
    from grape.policies.openvla_oft.exporting import write_oft_merged
    from grape.policies.openvla_oft.loading import OFTChoices, read_oft_policy

    choices = OFTChoices(
        settings.preset,
        settings.convention,
        chunk=settings.chunk,
        cameras=settings.cameras,
        unnorm_key=settings.unnorm_key or None,
    )
    policy = read_oft_policy(resolve_policy(settings.policy, parts=True), choices)  # mistakes come before hashing
    source = find_source(settings.policy, chunks=True)
    facts = {"kind": "merged", "sources": dict(source.hashes), "shard_bytes": shard_bytes}
    identity = content_hash({**facts, "oft": dataclasses.asdict(choices)})

    def fill(folder: Path) -> None:
        reporter.info(f"Reading {settings.policy} and writing {settings.out}.")
        write_oft_merged(source, folder, choices, shard_bytes)
        conventions = ", ".join(f"{name} {value}" for name, value in policy.conventions.to_json().items())
        words = ["grape", "export", "merged", "--policy", settings.policy, "--out", str(settings.out)]
        for name in ("preset", "unnorm_key", "chunk", "cameras"):
            value = getattr(settings, name)
            words += [flag_of(name), str(value)] if value else []
        words += ["--convention", *settings.convention] if settings.convention else []
        card = Card(
            title=_title(settings.policy),
            identity=identity,
            base_model=_hub(settings.policy),
            description=_CHUNKS.format(conventions=conventions, facts=_facts(policy.config)),
            command=shlex.join(words),
            versions=_versions("torch", "transformers", "safetensors"),
            sources=source.hashes,
            written=_weights(folder),
            statistics=list(policy.config.norm_stats),
            library="transformers",
        )
        write_text(folder / CARD, card.markdown())

    _publish(settings.out, identity, fill)
    return {**_summary("merged", settings.policy, settings.out), "adapter_merged": False}


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
    check_policy_name(settings.policy)
    from grape.policies.openvla import read_policy_config
    from grape.policies.openvla.exporting import find_source, write_adapter

    source = find_source(settings.policy)
    config = read_policy_config(source.folder)
    identity = content_hash({"kind": "adapter", "sources": dict(source.hashes), "base": settings.base})

    def fill(folder: Path) -> None:
        facts = write_adapter(source, folder, settings.base)
        card = Card(
            title=_title(settings.policy),
            identity=identity,
            base_model=_hub(facts["base"]),
            description=_ADAPTER.format(
                rank=facts["rank"], layers=facts["target_modules"], base=facts["base"], facts=_facts(config)
            ),
            command=shlex.join(["grape", "export", "adapter", "--policy", settings.policy, "--out", str(settings.out)]),
            versions=_versions("peft", "safetensors"),
            sources=source.hashes,
            written=_weights(folder),
            statistics=list(config.norm_stats),
            library="peft",
        )
        write_text(folder / CARD, card.markdown())

    _publish(settings.out, identity, fill)
    summary = _summary("adapter", settings.policy, settings.out)
    return {**summary, "base": read_json(settings.out / "adapter_config.json")["base_model_name_or_path"]}


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


def _facts(config: "OpenVLAConfig") -> str:
    """Sentences for the model card on what users of other programs have to know."""
    text = ""
    if config.center_crop:
        text += "\n\n**Images are cropped to the middle 90 % of their area** (LIBERO's script: `--center_crop True`)."
    if config.gripper:
        text += f"\n\nThe last dimension of an action, un-normalized: {config.gripper}."
    return text


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
