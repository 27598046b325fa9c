"""Opening and saving policies."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grape.core.atomic_folders import atomic_folder
from grape.core.errors import SettingsError
from grape.policies.opening import resolve_policy
from grape.policies.openvla.action_tokens import choose_unnorm_key
from grape.policies.openvla.adapter_pointer import POINTER, AdapterPointer, read_pointer
from grape.policies.openvla.adapters import MergedWeights, attach_adapter, check_adapter, refuse_4bit_merge
from grape.policies.openvla.checkpoint import (
    SHARD_BYTES,
    CheckpointFiles,
    empty_model,
    load_weights,
    read_files,
    write_files,
)
from grape.policies.openvla.config import OpenVLAConfig
from grape.policies.openvla.policy import OpenVLAPolicy
from grape.policies.openvla.precision import Attention, DType, choose_precision

__all__ = ["load_policy", "read_policy", "read_policy_config", "save_policy"]


def load_policy(
    path: Path | str,
    *,
    unnorm_key: str | None = None,
    device: str = "cpu",
    dtype: DType = "auto",
    merge: bool = False,
    attention: Attention = "sdpa",
    load_in_4bit: bool = False,
    center_crop: bool | None = None,
    norm_stats: Mapping[str, Any] | None = None,
) -> OpenVLAPolicy:
    """Open a policy: a checkpoint in the published layout, or an adapter that points to one.

    Everything that can be wrong with the call or the small files is found before weights are read.

    Args:
        path: A folder, or a name on the hub, e.g. ``"openvla/openvla-7b"`` (see :mod:`~grape.policies.opening`).
        unnorm_key: Which normalization statistics to use; None takes those that the policy says are in use, or the
            only ones there are.
        device: Where to compute: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"``: a GPU if there is one.
        dtype: What frozen weights are held and computed in. ``"auto"``: float32 on the CPU, else as stored. Adapters
            are float32 always.
        merge: Merge an adapter into the weights instead of keeping it beside them.
        attention: How the language model computes attention: ``"sdpa"``, ``"flash-attention-2"`` or ``"eager"``.
        load_in_4bit: Hold the language model in 4 bits; needs bitsandbytes and a GPU.
        center_crop: Whether to crop images in the middle before the network sees them, which policies trained with
            random crops need; None takes what the checkpoint says (nothing means no).
        norm_stats: Statistics of data that the checkpoint has not seen, by data set. Those that ``unnorm_key`` names
            (or the only ones here) are added and used; a checkpoint that holds that name keeps and uses its own.

    Raises:
        SettingsError: There is no such policy or it is of another kind; the statistics' name is unknown or ambiguous;
            the device or a package that was asked for is not there.
        DataError: A file is missing, truncated or does not fit the others.
    """
    folder = resolve_policy(path)
    pointer = read_pointer(folder, weights=True)
    if pointer is not None and merge:
        refuse_4bit_merge(load_in_4bit)
    files = _files(folder, pointer, center_crop)
    precision = choose_precision(device, dtype, attention, load_in_4bit, files.config.storage_dtype)
    files, key = _with_statistics(files, norm_stats, unnorm_key)
    policy = OpenVLAPolicy(empty_model(files.config, precision.attention), files, key)
    if pointer is not None:
        check_adapter(folder, policy.model)
    weights = folder if pointer is None else pointer.base
    load_weights(weights, policy.model, precision.dtype, precision.device, four_bit=precision.four_bit)
    return policy if pointer is None else attach_adapter(policy, folder, merge=merge)


def read_policy_config(path: Path | str) -> OpenVLAConfig:
    """Configuration of a policy, read without its weights; an adapter's is its base's with what the adapter changes.

    Args:
        path: A folder or a name on the hub, as for :func:`load_policy`.

    Raises:
        SettingsError: There is no such policy or it is of another kind.
        DataError: A file is missing or broken.
    """
    folder = resolve_policy(path, weights=False)
    return _files(folder, read_pointer(folder)).config


def read_policy(
    path: Path | str,
    *,
    unnorm_key: str | None = None,
    center_crop: bool | None = None,
    norm_stats: Mapping[str, Any] | None = None,
) -> OpenVLAPolicy:
    """Open a policy without its weights: prompts, images and shapes are all there, but it cannot act.

    Args:
        path: As for :func:`load_policy`.
        unnorm_key: As for :func:`load_policy`.
        center_crop: As for :func:`load_policy`.
        norm_stats: As for :func:`load_policy`.

    Raises:
        SettingsError: There is no such policy or it is of another kind.
        DataError: A file is missing or broken.
    """
    folder = resolve_policy(path, weights=False)
    files = _files(folder, read_pointer(folder), center_crop)
    files, key = _with_statistics(files, norm_stats, unnorm_key)
    return OpenVLAPolicy(empty_model(files.config), files, key)


def _with_statistics(
    files: CheckpointFiles, norm_stats: Mapping[str, Any] | None, unnorm_key: str | None
) -> tuple[CheckpointFiles, str | None]:
    """The files with the given statistics, and the key in use."""
    if not norm_stats:
        return files, unnorm_key
    config = files.config
    key = choose_unnorm_key({**norm_stats, **config.norm_stats} if unnorm_key else norm_stats, unnorm_key)
    if key not in config.norm_stats:
        config = config.with_norm_stats({**config.norm_stats, key: norm_stats[key]})
    if len(config.norm_stats) > 1:
        config = config.with_facts(unnorm_key=key)
    return files.with_config(config), key


def _files(folder: Path, pointer: AdapterPointer | None, center_crop: bool | None = None) -> CheckpointFiles:
    """A policy's files, with what an adapter changes; ``center_crop`` counts where it says otherwise than they do."""
    if pointer is not None and pointer.oft is not None:
        raise SettingsError(
            f"{folder} is an adapter of OpenVLA-OFT, not of OpenVLA: its {POINTER} says so (oft).",
            "It decides in chunks.",
        )
    files = read_files(folder if pointer is None else pointer.base)
    config = files.config if pointer is None else pointer.configure(files.config)
    if center_crop not in (None, config.center_crop):
        config = config.with_center_crop(center_crop)
    return files if config is files.config else files.with_config(config)


def save_policy(policy: OpenVLAPolicy, path: Path, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Save a policy as a checkpoint folder in the published layout; it appears when complete.

    Adapters are merged into the saved weights; the policy itself is not changed. Weights are stored in the
    configuration's type (bfloat16 for published checkpoints, float32 for nano).

    Args:
        policy: The policy.
        path: The folder; an older one is replaced.
        shard_bytes: Size from which on the weights are divided into several files.

    Raises:
        PolicyError: The policy's weights are held in 4 bits.
        GrapeError: The disk is full or not writable.
    """
    weights = MergedWeights(policy.model)
    with atomic_folder(path) as temporary:
        write_files(temporary, policy.files, weights, shard_bytes)
