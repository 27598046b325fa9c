"""Writing an OpenVLA-OFT policy for other programs, with a statement of how it is run beside it."""

import dataclasses
from pathlib import Path

from grape.policies.exports import PolicyExport
from grape.policies.kinds import find_parts
from grape.policies.openvla.adapters import MergedWeights
from grape.policies.openvla.checkpoint import write_files
from grape.policies.openvla.exporting import (
    PROVENANCE,
    adapter_export,
    copy_files,
    facts_text,
    find_source,
    restore_published_texts,
)
from grape.policies.openvla_oft.conventions import Conventions
from grape.policies.openvla_oft.loading import OFTChoices, load_oft_policy, read_oft_network, read_oft_policy
from grape.policies.openvla_oft.model import PARTS
from grape.policies.openvla_oft.parts import save_merged_part

__all__ = ["export_adapter", "export_merged"]

_MERGED = """A vision-language-action policy of OpenVLA-OFT's architecture in its published layout{merged}:
OpenVLA-OFT's own code loads it, and so does `grape evaluate --policy FOLDER`. `config.json` says nothing of how it is
run; `grape.json` beside it does: {conventions}.{facts}"""

_NANO = """A nano policy of OpenVLA-OFT's kind{merged}; `grape evaluate --policy FOLDER` loads it. `config.json` says
how it is run: {conventions}.{facts}"""


def export_merged(policy: Path | str, choices: OFTChoices, shard_bytes: int) -> PolicyExport:
    """A policy as a whole checkpoint; the sum of base and adapter is rounded once, to the configuration's type.

    ``config.json`` stays as published; ``grape.json`` states conventions, layout and statistics in use. Parts in files
    of their own are copied, or written anew where an adapter changes them.

    Args:
        policy: A folder or a name on the hub.
        choices: How it is meant.
        shard_bytes: Size from which on the weights are divided into several files.

    Raises:
        SettingsError: There is no such policy, or neither it nor the choices say how it is run.
        CompatibilityError: Statistics are of another dimension than the network.
        DataError: A file is missing or broken. So does writing: where weights are truncated or do not fit.
    """
    opened = read_oft_policy(policy, choices)  # mistakes come before hashing
    source, config = find_source(policy, chunks=True), opened.config

    def write(folder: Path) -> None:
        loaded = load_oft_policy(
            source.folder, choices, dtype="bfloat16" if config.storage_dtype == "bfloat16" else "float32"
        )
        write_files(folder, loaded.files, MergedWeights(loaded.model, without=PARTS), shard_bytes)
        origin = source.base or source.folder
        restore_published_texts(origin, folder, dict(config.norm_stats))
        copy_files(source.folder, folder, (PROVENANCE,))
        parts = find_parts(path.name for path in origin.iterdir())
        copy_files(origin, folder, tuple(name for names in parts.values() for name in names))
        for name in PARTS:
            part = getattr(loaded.model, name)
            if part is not None and any(".lora_" in weight for weight in part.state_dict()):
                save_merged_part(part, origin / parts[name][0], folder / parts[name][0])

    return PolicyExport(
        source,
        source.base_name or str(policy),
        (_NANO if "towers" in config.raw.get("grape", {}) else _MERGED).format(
            merged="" if source.base is None else ", with a LoRA adapter merged into its weights",
            conventions=_listed(opened.conventions),
            facts=facts_text(config),
        ),
        tuple(config.norm_stats),
        write,
        identity={"oft": dataclasses.asdict(choices)},
    )


def export_adapter(policy: Path | str, base_name: str = "") -> PolicyExport:
    """An adapter in PEFT's layout.

    Args:
        policy: Folder of the adapter, or its name on the hub.
        base_name: What others call its base; empty takes the adapter's own word, a path made absolute.

    Raises:
        SettingsError: The policy is a whole checkpoint, or an adapter of another kind than LoRA.
        DataError: The adapter's weights are truncated or fit no layer of the base.
    """
    source = find_source(policy, chunks=True)
    config, stated, network = read_oft_network(source.folder)
    facts = "" if stated is None else f"\n\nThe policy is run so: {_listed(stated)}."
    export = adapter_export(source, config, network, base_name, facts + facts_text(config), apart=PARTS)
    apart = sorted({layer.partition(".")[0] for layer in export.layers}.intersection(PARTS))
    if not apart:
        return export
    warning = (
        f"The adapter changes {' and '.join(apart)}, which OpenVLA-OFT's own code loads apart from the network: there "
        "PEFT does not apply this part of it. 'grape export merged' writes a checkpoint that is right everywhere."
    )
    return dataclasses.replace(export, warning=warning, description=f"{export.description}\n\n{warning}")


def _listed(conventions: Conventions) -> str:
    return ", ".join(f"{name} {value}" for name, value in conventions.to_json().items())
