"""Opening the policy of a collection, checking it against the suite, and identifying it on resumption."""

from typing import Any

from grape.collect.settings import CollectSettings
from grape.core.events import SILENT, Reporter
from grape.envs.external_python import suite_of
from grape.envs.registry import get_suite
from grape.policies.base import Policy, check_policy
from grape.policies.opening import check_policy_name, opening_arguments, read_checkpoint_info

__all__ = ["inputs_of", "open_policy"]


def open_policy(settings: CollectSettings, reporter: Reporter = SILENT) -> Policy | None:
    """Open the policy that the settings name and check it against the suite; nothing is written.

    Args:
        settings: Which policy, in what precision, for which suite.
        reporter: Is warned where nobody says whether the policy was trained with random crops.

    Returns:
        None for the suite's scripted experts.

    Raises:
        SettingsError: The folder is no checkpoint, the suite is unknown, or PyTorch is missing.
        DataError: The checkpoint is damaged.
        CompatibilityError: The policy does not fit the suite.
    """
    if settings.policy == "expert":
        return None
    suite = get_suite(settings.suite)
    check_policy_name(settings.policy)
    from grape.policies.openvla import load_policy

    policy = load_policy(settings.policy, **opening_arguments(settings))
    check_policy(policy.freeze().spec, suite.action_space, settings.policy, suite.proprio_dim)
    if settings.center_crop == "auto" and read_checkpoint_info(settings.policy).center_crop is None:
        reporter.warn(
            f"{settings.policy} does not say whether it was trained with random crops; it sees whole images. "
            "Policies published for LIBERO need --center-crop yes."
        )
    return policy


def inputs_of(policy: Policy | None, settings: CollectSettings) -> dict[str, Any]:
    """Inputs that must be equal on resumption: the policy, its image preprocessing and precision, the simulator."""
    spec = policy.spec if policy is not None else None
    inputs = {
        "policy_hash": spec.policy_hash if spec else "",
        "preprocessing_hash": spec.preprocessing_hash if spec else "",
        "computation": spec.computation if spec else "",
        "versions": dict(suite_of(settings.suite, settings.env_python).versions()),
    }
    return inputs | {"rotation": spec.rotation} if spec and spec.rotation else inputs
