"""Writing an OpenVLA policy for other programs: as a whole checkpoint, or as an adapter in PEFT's layout.

What other scripts read stays as they know it: ``config.json`` changes in ``norm_stats`` alone. What only this project
knows of a policy (its crop, its gripper's convention) goes into a file of its own, ``grape.json``, if the published
configuration did not hold it; other programs pass over it.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from grape.core.errors import DataError, SettingsError
from grape.core.files import file_hash, read_json, write_bytes, write_json
from grape.core.reading import MAX_DOCUMENT_BYTES
from grape.core.remote.mirror_names import address_in_mirror
from grape.policies.exports import PolicyExport, PolicySource
from grape.policies.opening import parse_hub_name, resolve_policy
from grape.policies.openvla.adapter_config import CONFIG_FILE
from grape.policies.openvla.adapter_pointer import POINTER, read_pointer
from grape.policies.openvla.adapters import MergedWeights, check_adapter
from grape.policies.openvla.checkpoint import FACTS_FILE, check_weights_file, empty_model, write_files
from grape.policies.openvla.config import OpenVLAConfig
from grape.policies.openvla.loading import load_policy, read_policy_config

__all__ = [
    "PROVENANCE",
    "adapter_export",
    "copy_files",
    "export_adapter",
    "export_merged",
    "facts_text",
    "find_source",
    "restore_published_texts",
]

PROVENANCE = "provenance.json"
_ADAPTER_FILES = ("adapter_model.safetensors", POINTER, "dataset_statistics.json", PROVENANCE)
_OF_PEFT_011 = frozenset(
    {
        "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode",
        "init_lora_weights", "layer_replication", "layers_pattern", "layers_to_transform", "loftq_config",
        "lora_alpha", "lora_dropout", "megatron_config", "megatron_core", "modules_to_save", "peft_type", "r",
        "rank_pattern", "revision", "target_modules", "task_type", "use_dora", "use_rslora",
    }
)  # fmt: skip
"""Keys of a LoRA configuration that PEFT 0.11, which OpenVLA pins, knows. It refuses files with any other."""


_MERGED = """A vision-language-action policy of OpenVLA's architecture in OpenVLA's published layout{merged}.
OpenVLA's, SimplerEnv's and LIBERO's own scripts load it as they load `openvla/openvla-7b`, and so does
`grape evaluate --policy FOLDER`. `config.json` is the base's but for `norm_stats`; the same statistics stand in
`dataset_statistics.json`.{facts}"""

_ADAPTER = """A LoRA adapter (rank {rank}, {layers} layers) for the policy `{base}`, in PEFT's layout:
`PeftModel.from_pretrained(base, FOLDER)` puts it onto the base, and so does `grape evaluate --policy FOLDER`.
OpenVLA's, SimplerEnv's and LIBERO's own scripts know no adapters: for those, use `grape export merged`.{facts}"""


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
    pointer = read_pointer(folder, weights=True, parts=chunks)
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


def export_merged(policy: Path | str, shard_bytes: int) -> PolicyExport:
    """A policy as a whole checkpoint; the sum of base and adapter is rounded once, to the configuration's type.

    Args:
        policy: A folder or a name on the hub.
        shard_bytes: Size from which on the weights are divided into several files.

    Raises:
        SettingsError: There is no such policy, or it is of another kind.
        DataError: A file is missing or broken. So does writing: where weights are truncated or do not fit.
    """
    source = find_source(policy)
    config = read_policy_config(source.folder)

    def write(folder: Path) -> None:
        opened = load_policy(
            source.folder,
            unnorm_key=config.unnorm_key or next(iter(config.norm_stats), None),
            dtype="bfloat16" if config.storage_dtype == "bfloat16" else "float32",
        )
        write_files(folder, opened.files, MergedWeights(opened.model), shard_bytes)
        restore_published_texts(source.base or source.folder, folder, dict(config.norm_stats))
        copy_files(source.folder, folder, (PROVENANCE,))

    merged = "" if source.base is None else ", with a LoRA adapter merged into its weights"
    return PolicyExport(
        source,
        source.base_name or str(policy),
        _MERGED.format(merged=merged, facts=facts_text(config)),
        tuple(config.norm_stats),
        write,
    )


def facts_text(config: OpenVLAConfig) -> str:
    """Sentences for the model card on what users of other programs have to know."""
    text = ""
    if config.center_crop:
        text += "\n\n**Images are cropped to the middle 90 % of their area** (LIBERO's script: `--center_crop True`)."
    if config.gripper:
        text += f"\n\nThe last dimension of an action, un-normalized: {config.gripper}."
    if "towers" in config.raw.get("grape", {}):
        text += "\n\n**A nano policy: its image tower is of grape's own making, so no other program loads it.**"
    return text


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


def export_adapter(policy: Path | str, base_name: str = "") -> PolicyExport:
    """An adapter in PEFT's layout.

    Args:
        policy: Folder of the adapter, or its name on the hub.
        base_name: What others call its base; empty takes the adapter's own word, a path made absolute.

    Raises:
        SettingsError: The policy is a whole checkpoint, or an adapter of another kind than LoRA.
        DataError: The adapter's weights are truncated or fit no layer of the base.
    """
    source = find_source(policy)
    config = read_policy_config(source.folder)
    return adapter_export(source, config, empty_model(config), base_name, facts_text(config))


def adapter_export(
    source: PolicySource,
    config: OpenVLAConfig,
    model: nn.Module,
    base_name: str,
    facts: str,
    apart: Collection[str] = (),
) -> PolicyExport:
    """An adapter in PEFT's layout, of any kind of policy.

    Args:
        source: The adapter.
        config: Its configuration.
        model: The base's network; it may be empty (on the meta device).
        base_name: As for :func:`export_adapter`.
        facts: Sentences for the model card.
        apart: As for :func:`~grape.policies.openvla.adapters.check_adapter`.

    Raises:
        SettingsError: As for :func:`export_adapter`.
        DataError: As there.
    """
    if source.base is None:
        raise SettingsError(
            f"{source.folder} is a whole checkpoint, not an adapter.",
            "Use 'grape export merged'; adapters come from a training with --lora-rank.",
        )
    layers = tuple(check_adapter(source.folder, model, apart=apart))
    hub = parse_hub_name(source.base_name)
    name = base_name or (str(hub) if hub is not None else str(source.base.resolve()))
    peft_config = read_json(source.folder / CONFIG_FILE)

    def write(folder: Path) -> None:
        write_json(folder / CONFIG_FILE, _understood_by_peft_011(peft_config, name, list(layers)))
        copy_files(source.folder, folder, _ADAPTER_FILES)
        if (folder / POINTER).is_file():
            base = address_in_mirror(Path(name)) or name
            write_json(folder / POINTER, {**read_json(folder / POINTER), "base": base})

    description = _ADAPTER.format(rank=peft_config.get("r"), layers=len(layers), base=name, facts=facts)
    return PolicyExport(source, name, description, tuple(config.norm_stats), write, layers)


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
