"""Which policy an adapter belongs to, and what it changes of that policy's configuration.

An adapter folder holds PEFT's ``adapter_config.json`` and ``adapter_model.safetensors``, and ``grape_adapter.json``
which points to the policy it belongs to: ``{"base": path, address or name on the hub}``, with what differs from that
policy's configuration beside it. Folders that PEFT alone wrote have no such file; there ``base_model_name_or_path``
counts. Statistics of data that the base has not seen stand in ``dataset_statistics.json``, as in a checkpoint.
"""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grape.core.errors import DataError, SettingsError
from grape.core.files import read_json, write_json
from grape.core.remote.addresses import remote_address
from grape.core.remote.mirror_names import address_in_mirror, address_led_to, are_in_one_mirror
from grape.core.repositories import local_folder
from grape.policies.kinds import find_parts
from grape.policies.opening import HubName, parse_hub_name, resolve_policy
from grape.policies.openvla.adapter_config import CONFIG_FILE
from grape.policies.openvla.checkpoint import read_files
from grape.policies.openvla.config import OpenVLAConfig

__all__ = ["POINTER", "AdapterPointer", "adapter_base", "read_pointer", "write_pointer"]

POINTER = "grape_adapter.json"
_STATISTICS = "dataset_statistics.json"
_OF_PEFT_SCRIPTS = "lora_adapter"
"""Folder that OpenVLA-OFT's trainer puts an adapter in, beside the separate parts it was trained with."""


@dataclass(frozen=True)
class AdapterPointer:
    """The base policy of an adapter.

    Attributes:
        base: Folder of that policy.
        name: The base as it is written down: a path or a name on the hub.
        center_crop: Whether the adapter was trained with cropped images; None where the base's configuration holds.
        unnorm_key: Statistics that are in use with the adapter; empty where the base's configuration holds.
        gripper: What the last dimension of its actions means; empty where the base's configuration holds.
        oft: Conventions and layout of OpenVLA-OFT as a configuration states them under ``grape.oft``; None where the
            base's configuration holds.
        norm_stats: Normalization statistics by data set that the base has not.
        hub: The base's name on the hub; None where it is a folder.
    """

    base: Path
    name: str
    center_crop: bool | None = None
    unnorm_key: str = ""
    gripper: str = ""
    oft: Mapping[str, Any] | None = None
    norm_stats: Mapping[str, Any] = field(default_factory=dict)
    hub: HubName | None = None

    def configure(self, config: OpenVLAConfig) -> OpenVLAConfig:
        """The base's configuration as it is with the adapter."""
        if self.center_crop is not None:
            config = config.with_center_crop(self.center_crop)
        if self.norm_stats:
            config = config.with_norm_stats({**config.norm_stats, **self.norm_stats})
        if self.oft is not None:
            grape_fields = {**config.raw.get("grape", {}), "oft": self.oft}
            config = OpenVLAConfig.from_json({**config.raw, "grape": grape_fields})
        return config.with_facts(
            unnorm_key=self.unnorm_key or config.unnorm_key, gripper=self.gripper or config.gripper
        )


def read_pointer(policy: Path | str, *, weights: bool = False, parts: bool = False) -> AdapterPointer | None:
    """The base of an adapter, or None if ``policy`` is no folder that holds an adapter.

    ``grape_adapter.json`` says it; folders of others have only ``base_model_name_or_path`` in PEFT's configuration. A
    path counts from the adapter's folder, then from the current one; a name is looked up on the hub, an address such as
    ``s3://bucket/policy`` is fetched.

    Args:
        policy: The adapter's folder.
        weights: As for :func:`~grape.policies.opening.resolve_policy`, of the base.
        parts: As there.

    Raises:
        SettingsError: The hub does not give the base, or separate parts of a network lie beside the adapter.
        DataError: The pointer to the base is missing or malformed, leads nowhere, or to another adapter.
    """
    folder = Path(policy)
    if not (folder / CONFIG_FILE).is_file():
        return None
    source, key = (POINTER, "base") if (folder / POINTER).is_file() else (CONFIG_FILE, "base_model_name_or_path")
    data = read_json(folder / source)
    name = data.get(key) if isinstance(data, dict) else None
    pointer = data if isinstance(data, dict) and source == POINTER else {}
    crop, key_in_use, gripper = pointer.get("center_crop"), pointer.get("unnorm_key", ""), pointer.get("gripper", "")
    oft = pointer.get("oft")
    sound = isinstance(crop, bool | None) and isinstance(key_in_use, str) and isinstance(gripper, str)
    if not isinstance(name, str) or not name or not sound or not isinstance(oft, dict | None):
        raise DataError(
            f"{folder / source} does not say which policy the adapter belongs to.",
            f"Write {{'base': path or name on the hub}} into {folder / POINTER}.",
        )
    _refuse_parts(folder)
    pointed = AdapterPointer(Path(), name, crop, key_in_use, gripper, oft, _statistics(folder))
    if remote := _remote_base(folder, name):
        return _checked(folder, dataclasses.replace(pointed, base=local_folder(remote)))
    for base in (folder / name, Path(name)):
        if _is_folder(base):
            return _checked(folder, dataclasses.replace(pointed, base=base))
    if parse_hub_name(name) is not None:
        full_name = name + ("" if pointer else _revision(folder, name, data.get("revision")))
        base = resolve_policy(full_name, weights=weights, parts=parts)
        return _checked(folder, dataclasses.replace(pointed, base=base, hub=parse_hub_name(full_name)))
    raise DataError(
        f"The base policy of adapter {folder} is not at {str(folder / name)!r}.",
        f"Move it there, or correct '{key}' in {folder / source}.",
    )


def _checked(folder: Path, pointer: AdapterPointer) -> AdapterPointer:
    if (pointer.base / CONFIG_FILE).is_file():
        raise DataError(f"The base of adapter {folder} is an adapter itself ({pointer.base}).", "Merge that first.")
    return pointer


def _refuse_parts(folder: Path) -> None:
    """Refuse an adapter that was trained together with an action head or projector in a file of its own.

    The base has not these files, so such an adapter would act without them, or with older ones.
    """
    places = [folder, *([folder.parent] if folder.resolve().name == _OF_PEFT_SCRIPTS else [])]
    for place in places:
        parts = find_parts(path.name for path in place.iterdir())
        if parts:
            raise SettingsError(
                f"{folder} is an adapter that was trained together with {', '.join(sum(parts.values(), ()))} "
                f"(in {place}).",
                "Merge it into its base where it was made (OpenVLA-OFT's merge_lora_weights_and_save.py), and give the "
                "merged folder with these files in it.",
            )


def _remote_base(folder: Path, name: str) -> str:
    """The address of a base: the name itself, or where it leads to from an adapter that is mirrored alone; else empty.

    Of a name that may be the hub's, only one that climbs out of the folder leads anywhere.
    """
    if remote_address(name) is not None:
        return name
    return address_led_to(folder, name)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that no file can have: too long, or with a NUL byte
        return False


def _revision(folder: Path, name: str, revision: Any) -> str:
    """``@revision`` as PEFT wrote it down beside the base's name; empty where it did not."""
    if revision in (None, "") or "@" in name:
        return ""
    if not isinstance(revision, str) or parse_hub_name(f"{name}@{revision}") is None:
        raise DataError(f"{folder / CONFIG_FILE}: revision {revision!r} of {name} is none.", "Save the adapter again.")
    return f"@{revision}"


def _statistics(folder: Path) -> Mapping[str, Any]:
    path = folder / _STATISTICS
    if not path.is_file():
        return {}
    data = read_json(path)
    if not isinstance(data, dict):
        raise DataError(f"{path} holds no JSON object.", "Save the adapter again.")
    return data


def adapter_base(policy: Path | str) -> Path | None:
    """Folder of the policy that an adapter belongs to, or None for no adapter; see :func:`read_pointer`."""
    pointer = read_pointer(resolve_policy(policy, weights=False))
    return None if pointer is None else pointer.base


def write_pointer(folder: Path, base: Path | str, config: OpenVLAConfig, place: Path | None = None) -> None:
    """Write ``grape_adapter.json``, and ``dataset_statistics.json`` where there are new statistics.

    Args:
        folder: The adapter's folder.
        base: The policy it belongs to. A folder is written relative to the adapter, one in another mirror as its
            address, a name on the hub as it is.
        config: Configuration of the policy with the adapter; what differs from the base's is written down.
        place: The adapter folder's final path, if it is written to a temporary folder first.

    Raises:
        SettingsError: The base is not there.
        DataError: The base's configuration is damaged.
    """
    before = read_files(resolve_policy(base, weights=False), chunks=True).config
    extra: dict[str, Any] = {
        name: getattr(config, name)
        for name in ("unnorm_key", "gripper")
        if getattr(config, name) != getattr(before, name)
    }
    if config.recorded_center_crop != before.recorded_center_crop:
        extra["center_crop"] = config.center_crop
    oft = config.raw.get("grape", {}).get("oft")
    if oft != before.raw.get("grape", {}).get("oft"):
        extra["oft"] = oft
    fresh = {name: value for name, value in config.norm_stats.items() if name not in before.norm_stats}
    if fresh:
        write_json(folder / _STATISTICS, fresh)
    write_json(folder / POINTER, {"base": _written_name(base, place or folder), **extra})


def _written_name(base: Path | str, folder: Path) -> str:
    """The base as an adapter in ``folder`` names it."""
    if parse_hub_name(base) is not None:
        return str(base)
    if not are_in_one_mirror(Path(base), folder):  # within one, both may be moved together
        if address := address_in_mirror(Path(base)):
            return address
        if address_in_mirror(folder):  # where mirrors lie differs between machines
            return Path(base).absolute().as_posix()
    return Path(os.path.relpath(base, folder)).as_posix()
