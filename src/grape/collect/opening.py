"""Opening the policy of a collection, checking it against the suite, and identifying it on resumption."""

from typing import Any

from grape.collect.settings import CollectSettings
from grape.core.chunks import PLAIN
from grape.core.errors import SettingsError
from grape.core.events import SILENT, Reporter
from grape.envs.base import SuiteBase
from grape.envs.external_python import suite_of
from grape.envs.registry import get_suite
from grape.policies.base import Policy, check_policy
from grape.policies.opening import check_policy_name, opening_arguments, read_checkpoint_kind
from grape.policies.registry import read_checkpoint_info

__all__ = ["chunk_contract", "inputs_of", "open_policy"]


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
    if read_checkpoint_kind(settings.policy).name == "openvla-oft":
        return _open_oft(settings, suite)
    from grape.policies.openvla import load_policy

    policy = load_policy(settings.policy, **opening_arguments(settings))
    check_policy(
        policy.freeze().spec, suite.action_space, settings.policy, cameras=suite.cameras, proprio_dim=suite.proprio_dim
    )
    _check_execute(settings, policy.spec.chunk, settings.policy)
    if settings.center_crop == "auto" and read_checkpoint_info(settings.policy).center_crop is None:
        reporter.warn(
            f"{settings.policy} does not say whether it was trained with random crops; it sees whole images. "
            "Policies published for LIBERO need --center-crop yes."
        )
    return policy


def _open_oft(settings: CollectSettings, suite: SuiteBase) -> Policy:
    """Open a policy that decides in chunks; what would fail at the first decision is said before."""
    from grape.policies.openvla_oft.loading import OFTChoices, load_oft_policy

    arguments = opening_arguments(settings)
    choices = OFTChoices(unnorm_key=arguments.pop("unnorm_key"), center_crop=arguments.pop("center_crop"))
    policy = load_oft_policy(settings.policy, choices, **arguments).freeze()
    spec = policy.spec
    check_policy(spec, suite.action_space, settings.policy, cameras=suite.cameras, proprio_dim=suite.proprio_dim)
    _check_execute(settings, spec.chunk, settings.policy)
    if not policy.has_logps and settings.temperature > 0:
        raise SettingsError(
            f"{settings.policy} acts through an L1 regression head, which cannot sample; --temperature is "
            f"{settings.temperature:g}.",
            "Give --temperature 0.",
        )
    return policy


def _check_execute(settings: CollectSettings, chunk: int, name: str) -> None:
    if settings.execute > chunk:
        raise SettingsError(
            f"--execute {settings.execute}: {name} decides on {chunk} action{'s' * (chunk > 1)} at once.",
            f"Give at most {chunk}, or leave --execute out.",
        )


def chunk_contract(policy: Policy | None) -> dict[str, Any]:
    """What all episodes of a store have in common beside the suite's facts; nothing where each action is a decision."""
    if policy is None:
        return {}
    spec = policy.spec
    facts = (spec.chunk, spec.support, spec.logp_temperature)
    return {} if facts == PLAIN else {"chunks": dict(zip(("length", "support", "temperature"), facts, strict=True))}


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
