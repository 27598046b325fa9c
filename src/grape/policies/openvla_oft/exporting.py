"""Writing an OpenVLA-OFT policy for other programs, with a statement of how it is run beside it."""

from pathlib import Path

from grape.policies.kinds import find_parts
from grape.policies.openvla.adapters import MergedWeights
from grape.policies.openvla.checkpoint import read_files, write_files
from grape.policies.openvla.exporting import PROVENANCE, PolicySource, copy_files, restore_published_texts
from grape.policies.openvla_oft.loading import OFTChoices, load_oft_policy
from grape.policies.openvla_oft.model import PARTS

__all__ = ["write_oft_merged"]


def write_oft_merged(source: PolicySource, folder: Path, choices: OFTChoices, shard_bytes: int) -> None:
    """Write a policy as a whole checkpoint into an existing folder.

    ``config.json`` stays as published; ``grape.json`` states conventions, layout and statistics in use. Parts in files
    of their own are copied.

    Args:
        source: The policy.
        folder: Where; its files appear one by one.
        choices: How it is meant.
        shard_bytes: Size from which on the weights are divided into several files.

    Raises:
        SettingsError: The policy does not say how it is run, and neither do the choices.
        DataError: Weights are missing, truncated or do not fit.
    """
    config = read_files(source.folder, chunks=True).config
    policy = load_oft_policy(
        source.folder, choices, dtype="bfloat16" if config.storage_dtype == "bfloat16" else "float32"
    )
    write_files(folder, policy.files, MergedWeights(policy.model, without=PARTS), shard_bytes)
    restore_published_texts(source.folder, folder, dict(config.norm_stats))
    parts = find_parts(path.name for path in source.folder.iterdir())
    copy_files(source.folder, folder, (PROVENANCE, *(name for names in parts.values() for name in names)))
