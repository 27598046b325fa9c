"""Saving of OpenVLA-OFT policies."""

from pathlib import Path

from grape.core.atomic_folders import atomic_folder
from grape.core.files import write_json
from grape.policies.kinds import FACTS_FILE
from grape.policies.openvla.adapters import MergedWeights
from grape.policies.openvla.checkpoint import SHARD_BYTES, write_files
from grape.policies.openvla.config import OpenVLAConfig
from grape.policies.openvla_oft.model import PARTS
from grape.policies.openvla_oft.parts import save_part
from grape.policies.openvla_oft.policy import OFTPolicy

__all__ = ["save_oft_policy", "write_oft_policy"]


def save_oft_policy(policy: OFTPolicy, path: Path, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Save a policy as a checkpoint folder in the published layout; it appears when complete.

    ``config.json`` stays as published; conventions and layout are stated in ``grape.json`` beside it (a nano policy's
    configuration, which holds its towers, states them itself). Adapters are merged into the saved weights.

    Args:
        policy: The policy.
        path: The folder; an older one is replaced.
        shard_bytes: Size from which on the weights are divided into several files.

    Raises:
        PolicyError: The policy's weights are held in 4 bits.
        GrapeError: The disk is full or not writable.
    """
    with atomic_folder(path) as temporary:
        write_oft_policy(policy, temporary, shard_bytes=shard_bytes)


def write_oft_policy(policy: OFTPolicy, folder: Path, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write a policy's files into an existing folder, see :func:`save_oft_policy`."""
    config = policy.config
    ours = dict(config.raw["grape"])
    if "towers" not in ours:
        config = OpenVLAConfig.from_json({name: value for name, value in config.raw.items() if name != "grape"})
    write_files(folder, policy.files.with_config(config), MergedWeights(policy.model, without=PARTS), shard_bytes)
    if config is not policy.config:
        write_json(folder / FACTS_FILE, ours)
    for name in PARTS:
        part = getattr(policy.model, name)
        if part is not None:
            save_part(part, folder / f"{name}--0_checkpoint.pt")
