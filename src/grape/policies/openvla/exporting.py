"""Writing a policy for other programs: as a whole checkpoint, or as an adapter in PEFT's layout.

What other scripts read stays as they know it: ``config.json`` changes in ``norm_stats`` alone. What only this project
knows of a policy (its crop, its gripper's convention) goes into a file of its own, ``grape.json``, if the published
configuration did not hold it; other programs pass over it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.errors import DataError, SettingsError
from grape.core.files import file_hash, read_json, write_bytes, write_json
from grape.core.reading import MAX_DOCUMENT_BYTES
from grape.policies.opening import parse_hub_name, resolve_policy
from grape.policies.openvla.adapters import MergedWeights, check_adapter, read_pointer
from grape.policies.openvla.checkpoint import FACTS_FILE, check_weights_file, empty_model, write_files
from grape.policies.openvla.loading import load_policy, read_policy_config

__all__ = [
    "PROVENANCE",
    "PolicySource",
    "copy_files",
    "find_source",
    "restore_published_texts",
    "write_adapter",
    "write_merged",
]

PROVENANCE = "provenance.json"
_ADAPTER_FILES = ("adapter_model.safetensors", "grape_adapter.json", "dataset_statistics.json", PROVENANCE)
_OF_PEFT_011 = frozenset(
    {
        "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode",
        "init_lora_weights", "layer_replication", "layers_pattern", "layers_to_transform", "loftq_config",
        "lora_alpha", "lora_dropout", "megatron_config", "megatron_core", "modules_to_save", "peft_type", "r",
        "rank_pattern", "revision", "target_modules", "task_type", "use_dora", "use_rslora",
    }
)  # fmt: skip
"""Keys of a LoRA configuration that PEFT 0.11, which OpenVLA pins, knows. It refuses files with any other."""


@dataclass(frozen=True)
class PolicySource:
    """Files of a policy.

    Attributes:
        folder: Folder of the checkpoint or adapter.
        base: Folder of the adapter's base; None for a whole checkpoint.
        base_name: What the adapter calls its base: a path or a name on the hub; empty for a whole checkpoint.
        hashes: SHA-256 of every file that matters, by ``policy/NAME`` and ``base/NAME``.
    """

    folder: Path
    base: Path | None
    base_name: str
    hashes: Mapping[str, str]


def find_source(policy: Path | str, *, chunks: bool = False) -> PolicySource:
    """Locate a policy and hash its files; no weights are loaded.

    Args:
        policy: A folder or a name on the hub.
        chunks: Whether a policy that decides in chunks is meant, with parts in files of their own.

    Raises:
        SettingsError: There is no such policy, or it is of another kind.
        DataError: A small file is missing or broken.
    """
    folder = resolve_policy(policy, parts=chunks)
    if not chunks:
        read_policy_config(folder)
    pointer = read_pointer(folder)
    homes = {"policy": folder} if pointer is None else {"policy": folder, "base": pointer.base}
    hashes = {
        f"{kind}/{path.name}": _hash(path)
        for kind, candidate_folder in homes.items()
        for path in sorted(candidate_folder.iterdir())
        if path.is_file() and path.suffix in {".json", ".safetensors", ".model", ".txt", *([".pt"] if chunks else [])}
    }
    return PolicySource(
        folder, None if pointer is None else pointer.base, "" if pointer is None else pointer.name, hashes
    )


def _hash(path: Path) -> str:
    """Hash of a file of a policy; of weights only after their header was found to fit the file's size."""
    if path.suffix not in {".safetensors", ".pt"}:
        return file_hash(path, MAX_DOCUMENT_BYTES)
    if path.suffix == ".safetensors":
        check_weights_file(path)
    return file_hash(path)


def write_merged(source: PolicySource, folder: Path, shard_bytes: int) -> dict[str, Any]:
    """Write a policy as a whole checkpoint into an existing folder.

    The sum of base and adapter is taken in float32 and rounded once, to the type that the configuration names.

    Args:
        source: The policy.
        folder: Where; its files appear one by one.
        shard_bytes: Size from which on the weights are divided into several files.

    Returns:
        ``parameters`` and ``dtype`` of the weights.

    Raises:
        DataError: Weights are missing, truncated or do not fit.
    """
    config = read_policy_config(source.folder)
    policy = load_policy(
        source.folder,
        unnorm_key=config.unnorm_key or next(iter(config.norm_stats), None),
        dtype="bfloat16" if config.storage_dtype == "bfloat16" else "float32",
    )
    weights = MergedWeights(policy.model)
    write_files(folder, policy.files, weights, shard_bytes)
    restore_published_texts(source.base or source.folder, folder, dict(config.norm_stats))
    copy_files(source.folder, folder, (PROVENANCE,))
    return {"parameters": sum(weights[name].numel() for name in weights), "dtype": config.storage_dtype}


def restore_published_texts(origin: Path, folder: Path, norm_stats: dict[str, Any]) -> None:
    """Bring back ``config.json`` as it was published; keep the project's own facts beside it.

    Args:
        origin: Folder of the published checkpoint.
        folder: Folder that is being written.
        norm_stats: Normalization statistics that it has now.
    """
    published = read_json(origin / "config.json")
    grape_fields = read_json(folder / "config.json").get("grape")
    if "grape" in published:
        published["grape"] = grape_fields
    elif grape_fields:
        write_json(folder / FACTS_FILE, grape_fields)
    if published == {**read_json(origin / "config.json"), "norm_stats": norm_stats}:
        write_bytes(folder / "config.json", (origin / "config.json").read_bytes())
    else:
        text = json.dumps({**published, "norm_stats": norm_stats}, indent=2, ensure_ascii=False, allow_nan=False)
        write_bytes(folder / "config.json", f"{text}\n".encode())
    statistics = origin / "dataset_statistics.json"
    if statistics.is_file() and read_json(statistics) == norm_stats:
        write_bytes(folder / statistics.name, statistics.read_bytes())


def write_adapter(source: PolicySource, folder: Path, base_name: str = "") -> dict[str, Any]:
    """Write an adapter in PEFT's layout into an existing folder.

    Args:
        source: The adapter.
        folder: Where.
        base_name: What others call its base; empty takes the adapter's own word, a path made absolute.

    Returns:
        ``base``: the name written down; ``rank``; ``target_modules``: number of adapted layers.

    Raises:
        SettingsError: The policy is a whole checkpoint, or an adapter of another kind than LoRA.
        DataError: The adapter's weights are truncated or fit no layer of the base.
    """
    if source.base is None:
        raise SettingsError(
            f"{source.folder} is a whole checkpoint, not an adapter.",
            "Use 'grape export merged'; adapters come from a training with --lora-rank.",
        )
    layers = check_adapter(source.folder, empty_model(read_policy_config(source.folder)))
    hub = parse_hub_name(source.base_name)
    name = base_name or (str(hub) if hub is not None else str(source.base.resolve()))
    config = read_json(source.folder / "adapter_config.json")
    write_json(folder / "adapter_config.json", _understood_by_peft_011(config, name, list(layers)))
    copy_files(source.folder, folder, _ADAPTER_FILES)
    if (folder / "grape_adapter.json").is_file():
        write_json(folder / "grape_adapter.json", {**read_json(folder / "grape_adapter.json"), "base": name})
    return {"base": name, "rank": config.get("r"), "target_modules": len(layers)}


def _understood_by_peft_011(config: Mapping[str, Any], base_name: str, layers: list[str]) -> dict[str, Any]:
    """The configuration without keys that PEFT 0.11 does not know, where they hold defaults.

    What it says by such a key is said by the full names of the layers; how training began no longer matters.
    """
    from peft import LoraConfig

    if config.get("exclude_modules"):
        config = {**config, "target_modules": layers, "exclude_modules": None}
    config = {**config, "init_lora_weights": True, "eva_config": None}
    defaults = LoraConfig().to_dict()
    supported = {
        key: value
        for key, value in config.items()
        if key in _OF_PEFT_011 or (key != "peft_version" and value and value != defaults.get(key))
    }
    return {**supported, "base_model_name_or_path": base_name, "inference_mode": True}


def copy_files(origin: Path, folder: Path, names: tuple[str, ...]) -> None:
    """Copy those of the named files that there are."""
    for name in names:
        if (origin / name).is_file():
            try:
                write_bytes(folder / name, (origin / name).read_bytes())
            except OSError as error:
                raise DataError(f"{origin / name} cannot be read: {error}.", "Check its permissions.") from error
