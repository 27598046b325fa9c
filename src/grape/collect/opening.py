"""Opening the policy of a collection, checking it against the suite, and identifying it on resumption."""

from typing import Any

from grape.collect.settings import CollectSettings
from grape.core.chunks import PLAIN
from grape.core.errors import PolicyError, SettingsError
from grape.core.events import SILENT, Reporter
from grape.envs.base import SuiteBase
from grape.envs.external_python import suite_of
from grape.envs.registry import get_suite
from grape.policies.action_conventions import check_policy
from grape.policies.base import Policy, PolicySpec, TrainablePolicy
from grape.policies.opening import opening_options
from grape.policies.registry import conventions_of, crop_caution, open_as, read_policy, recognize_policy

__all__ = [
    "check_opened",
    "check_spec",
    "check_unopened",
    "chunk_contract",
    "executed_actions",
    "inputs_of",
    "open_policy",
]


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
    options = opening_options(settings)
    policy_type, place = recognize_policy(settings.policy, settings.preset)
    for sentence in policy_type.cautions(place, options):
        reporter.warn(sentence)
    policy = open_as(policy_type, place, options)
    if isinstance(policy, TrainablePolicy):
        policy.freeze()
    for name, value in conventions_of(policy).items():
        if (own := suite.conventions.get(name, value)) != value:
            reporter.warn(
                f"{settings.policy} states {name} {value}, the suite {suite.name} has {own}: figures are not those "
                "of the stack it was trained in."
            )
    check_spec(settings, policy.spec, suite)
    if caution := crop_caution(policy_type, place, settings, settings.policy):
        reporter.warn(caution)
    return policy


def check_unopened(settings: CollectSettings) -> PolicySpec | None:
    """Check a policy against the suite by its configuration alone, for dry runs.

    Returns:
        Its contract; None for experts and where its type cannot be read so.

    Raises:
        SettingsError: As for :func:`open_policy`.
        DataError: As there.
        CompatibilityError: As there.
    """
    policy = None if settings.policy == "expert" else read_policy(settings.policy, opening_options(settings))
    if policy is None:
        return None
    check_spec(settings, policy.contract, get_suite(settings.suite))
    return policy.contract


def check_opened(settings: CollectSettings, policy: Policy) -> Policy:
    """Check a policy that is open already against the suite; returns the same policy.

    Runs are told apart by the policy's ``policy_hash``, so it must have one, which changes with what it does.

    Raises:
        CompatibilityError: As for :func:`open_policy`.
        SettingsError: As there.
        PolicyError: Its contract has no ``policy_hash``.
    """
    if not policy.spec.policy_hash:
        raise PolicyError(
            f"{type(policy).__name__} states no policy_hash, by which results of different policies are told apart.",
            "Give its PolicySpec a hash of all that its decisions depend on, e.g. of its weights.",
        )
    check_spec(settings, policy.spec, get_suite(settings.suite))
    return policy


def executed_actions(settings: CollectSettings, spec: PolicySpec | None) -> int:
    """``execute`` as a run knows it: 0 where the whole chunk is executed, whether it was asked for or not."""
    whole = 1 if spec is None else spec.chunk
    return 0 if settings.execute == whole else settings.execute


def check_spec(settings: CollectSettings, spec: PolicySpec, suite: SuiteBase) -> None:
    """Check a policy's contract against the suite and the settings.

    Raises:
        CompatibilityError: They do not fit.
        SettingsError: More actions are to be executed than the policy decides on, or it cannot sample.
    """
    check_policy(spec, suite.action_space, settings.policy, cameras=suite.cameras, proprio_dim=suite.proprio_dim)
    _check_execute(settings, spec.chunk, settings.policy)
    if not spec.support and settings.temperature > 0:
        raise SettingsError(
            f"{settings.policy} has no action tokens and cannot sample; --temperature is {settings.temperature:g}.",
            "Give --temperature 0.",
        )


def _check_execute(settings: CollectSettings, chunk: int, name: str) -> None:
    if settings.execute > chunk:
        raise SettingsError(
            f"--execute {settings.execute}: {name} decides on {chunk} action{'s' * (chunk > 1)} at once.",
            f"Give at most {chunk}, or leave --execute out.",
        )


def chunk_contract(spec: PolicySpec | None) -> dict[str, Any]:
    """What all episodes of a store have in common beside the suite's facts; nothing where each action is a decision."""
    if spec is None:
        return {}
    facts = (spec.chunk, spec.support, spec.logp_temperature)
    return {} if facts == PLAIN else {"chunks": dict(zip(("length", "support", "temperature"), facts, strict=True))}


def inputs_of(spec: PolicySpec | None, settings: CollectSettings) -> dict[str, Any]:
    """Inputs that must be equal on resumption: the policy, its image preprocessing and precision, the simulator."""
    inputs = {
        "policy_hash": spec.policy_hash if spec else "",
        "preprocessing_hash": spec.preprocessing_hash if spec else "",
        "computation": spec.computation if spec else "",
        "versions": dict(suite_of(settings.suite, settings.env_python).versions()),
    }
    return inputs | {"rotation": spec.rotation} if spec and spec.rotation else inputs
