"""What a checkpoint says about how it wants to be used, read without its weights."""

from dataclasses import dataclass

from grape.core.errors import SettingsError
from grape.core.runs import read_provenance

__all__ = ["CheckpointInfo", "read_checkpoint_info"]


@dataclass(frozen=True)
class CheckpointInfo:
    """Facts from a checkpoint's configuration.

    Attributes:
        norm_keys: Names of its normalisation statistics, sorted.
        center_crop: Whether it was trained with random crops; None where it says nothing, as checkpoints of other
            software do. What was trained here says it in ``grape.center_crop``, or else learned from whole images.
    """

    norm_keys: tuple[str, ...]
    center_crop: bool | None


def read_checkpoint_info(policy: str) -> CheckpointInfo:
    """Read the configuration of a policy.

    Args:
        policy: A checkpoint folder or a name on the hub.

    Raises:
        SettingsError: There is no such policy, or PyTorch is missing.
        DataError: The configuration is damaged.
    """
    try:
        from grape.policies.openvla import read_policy_config
        from grape.policies.openvla.hub import resolve_policy
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "grape":
            raise
        raise SettingsError(
            f"Policies need PyTorch and transformers, and {error.name} is missing.", "pip install 'grape-vla[train]'"
        ) from error
    config = read_policy_config(policy)
    says = config.says_center_crop
    if says is None and (config.preset or read_provenance(resolve_policy(policy, weights=False))):
        says = config.center_crop
    return CheckpointInfo(tuple(sorted(config.norm_stats)), says)
