"""Published evaluation protocols by name: the settings that each fixes, so that results can be compared across papers.

A protocol is data. :func:`apply_protocol` turns it into settings and refuses flags that say otherwise;
:func:`fit_checkpoint` decides what depends on the policy. Image preprocessing, action convention, waiting steps and the
simulator's own seed belong to the suite and cannot be chosen anyway.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from grape.core.errors import CompatibilityError, SettingsError, require_known
from grape.core.selections import format_numbers, parse_numbers
from grape.evaluation.settings import EvaluateSettings, with_defaults

__all__ = ["PROTOCOLS", "Protocol", "apply_protocol", "fit_checkpoint", "tasks_left_out"]


@dataclass(frozen=True)
class Protocol:
    """Settings that a named protocol fixes.

    Attributes:
        name: What ``--protocol`` takes.
        suites: Suites that it is for.
        tasks: Its tasks by name; empty means all of the suite.
        initial_states: Initial states of every task.
        until: When an episode ends, see :class:`~grape.evaluation.settings.EvaluateSettings`.
        seed: Seed of the run.
        seeds: Rollouts from each initial state that a policy also plays by sampling from its own distribution, beside
            the greedy rollout that the point estimate rests on. 0 for none.
        unnorm_keys: Names that the normalization statistics may have, the preferred one first; ``{suite}`` stands for
            the suite's name. Empty leaves the choice to checkpoint and user.
        crops_by_default: Whether a checkpoint that does not say whether it was trained with random crops is taken for
            one that was.
        signals: What is measured beside success: name of the recorded signal by name of the measure.
        rules: What a reader of the figures must know, in sentences.
    """

    name: str
    suites: tuple[str, ...]
    initial_states: str
    until: Literal["success", "last-step"]
    seed: int
    tasks: tuple[str, ...] = ()
    seeds: int = 0
    unnorm_keys: tuple[str, ...] = ()
    crops_by_default: bool = False
    signals: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[str, ...] = ()

    @property
    def fixes(self) -> Mapping[str, Any]:
        """Fixed settings by name of the field in :class:`~grape.evaluation.settings.EvaluateSettings`."""
        states = parse_numbers(self.initial_states, "initial states")
        return {
            "initial_states": self.initial_states,
            "episodes": len(states),
            "first_state": states[0],
            "samples": 1,
            "temperature": 0.0,
            "until": self.until,
            "max_steps": 0,
            "seed": self.seed,
        }

    def keys_of(self, suite: str) -> tuple[str, ...]:
        """Names that the normalization statistics may have for this suite."""
        return tuple(dict.fromkeys(key.format(suite=suite) for key in self.unnorm_keys))


_LIBERO = Protocol(
    name="libero-openvla-v1",
    suites=("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90"),
    initial_states="0-49",
    until="success",
    seed=7,
    unnorm_keys=("{suite}", "{suite}_no_noops"),
    crops_by_default=True,
    rules=(
        "Greedy decoding; an episode ends at its first success, or at the suite's limit: 220 decisions (spatial), 280 "
        "(object), 300 (goal), 520 (10), 400 (90), after 10 waiting steps.",
        "Images: 256 pixels, half a turn, JPEG round trip, lanczos3 to 224, and the middle 90 % for policies trained "
        "with random crops.",
    ),
)

_SIMPLER = Protocol(
    name="simpler-widowx-24x3",
    suites=("simpler_widowx", "simpler_widowx-v0"),
    initial_states="0-23",
    until="last-step",
    seed=0,
    seeds=3,
    # Of `grape sft` on demonstrations of the suite or of its unvaried tasks, of the first public GRAPE, of BridgeData.
    # A policy fine-tuned from a public checkpoint still holds that one's statistics, so the particular ones come first.
    unnorm_keys=("{suite}", "simpler_widowx", "Simpler", "bridge_orig"),
    signals={"grasp": "grasped", "success": "success"},
    rules=(
        "The benchmark's four tasks are those of simpler_widowx (in ManiSkill 3) and simpler_widowx-v0 (the original "
        "SimplerEnv).",
        "An episode runs to its last step: success counts in the last state, and 'ever' says whether it was reached at "
        "any step. The literature knows both, and they differ widely.",
        "The point estimate is greedy. Its repetition would give the same episodes, so the 3 seeds sample from the "
        "policy's own distribution (temperature 1) and are reported beside it.",
    ),
)

# The benchmark's rules on other tasks than its four get a name of their own, which results and reports carry.
_SIMPLER_VARIATIONS = replace(
    _SIMPLER,
    name="simpler-widowx-variations",
    suites=("simpler_widowx_subject", "simpler_widowx_physical", "simpler_widowx_semantic"),
    rules=(
        f"The rules of {_SIMPLER.name} on variations of its tasks, which are ours: figures are not the benchmark's.",
        *_SIMPLER.rules[1:],
    ),
)

PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in (_LIBERO, _SIMPLER, _SIMPLER_VARIATIONS)}
"""Known protocols by name."""


def apply_protocol(settings: EvaluateSettings) -> tuple[EvaluateSettings, Protocol | None]:
    """Settings with everything that their protocol fixes, and the protocol; None where none was named.

    Raises:
        SettingsError: The protocol is unknown or for other suites, or a setting contradicts it.
    """
    if not settings.protocol:
        return with_defaults(settings), None
    require_known("protocol", settings.protocol, PROTOCOLS)
    protocol = PROTOCOLS[settings.protocol]
    if settings.suite not in protocol.suites:
        hint = f"Add --suite with one of: {', '.join(protocol.suites)}."
        others = [other.name for other in PROTOCOLS.values() if settings.suite in other.suites]
        if others:
            hint += f" For {settings.suite} there is --protocol {' or '.join(others)}."
        raise SettingsError(f"Protocol {protocol.name} is not for suite '{settings.suite}'.", hint)
    defaults = {item.name: item.default for item in fields(EvaluateSettings)}
    for name, value in protocol.fixes.items():
        user_value = getattr(settings, name)
        if name == "initial_states" and user_value:
            user_value = format_numbers(parse_numbers(user_value, "initial states"))
        if user_value not in (defaults[name], value):
            raise _contradiction(protocol, name, user_value, str(value))
    keys = protocol.keys_of(settings.suite)
    if settings.unnorm_key and keys and settings.unnorm_key not in keys:
        raise _contradiction(protocol, "unnorm_key", settings.unnorm_key, " or ".join(keys))
    settings = replace(settings, **protocol.fixes)
    if not settings.tasks:
        settings = replace(settings, tasks=",".join(protocol.tasks))
    return settings, protocol


def tasks_left_out(protocol: Protocol, chosen: Sequence[str], due: Sequence[str]) -> tuple[str, ...]:
    """Tasks that belong to the protocol but were not chosen.

    Args:
        protocol: The protocol.
        chosen: Names of the chosen tasks.
        due: Names of the protocol's tasks.

    Raises:
        SettingsError: A chosen task does not belong to the protocol.
    """
    foreign = [name for name in chosen if name not in due]
    if foreign:
        raise SettingsError(
            f"Task {foreign[0]} is not one of protocol {protocol.name}.",
            f"Its tasks: {', '.join(due)}. Leave --protocol out to evaluate others.",
        )
    return tuple(name for name in due if name not in chosen)


def fit_checkpoint(
    protocol: Protocol, settings: EvaluateSettings, norm_keys: Sequence[str], crop: bool | None
) -> EvaluateSettings:
    """Settings with what the protocol lets depend on the policy.

    Args:
        protocol: The protocol.
        settings: From :func:`apply_protocol`.
        norm_keys: Names of the checkpoint's normalization statistics.
        crop: Whether the checkpoint says that its images are to be cropped; None if it says nothing.

    Raises:
        CompatibilityError: The checkpoint has no statistics of the suite.
        SettingsError: ``--center-crop`` contradicts the checkpoint.
    """
    keys = [key for key in protocol.keys_of(settings.suite) if key in norm_keys]
    if protocol.unnorm_keys and not keys:
        raise CompatibilityError(
            f"{settings.policy} has no normalization statistics of {settings.suite}, which protocol {protocol.name} "
            f"takes ({' or '.join(protocol.keys_of(settings.suite))}).",
            f"It has: {', '.join(sorted(norm_keys)) or 'none'}. Choose the suite that it was trained for, or leave "
            "--protocol out.",
        )
    if keys and not settings.unnorm_key:
        settings = replace(settings, unnorm_key=keys[0])
    if not protocol.crops_by_default:
        return settings
    if crop is not None and settings.center_crop not in ("auto", "yes" if crop else "no"):
        raise SettingsError(
            f"--center-crop {settings.center_crop} contradicts {settings.policy}, which was trained "
            f"{'with' if crop else 'without'} random crops; protocol {protocol.name} crops accordingly.",
            "Leave --center-crop out.",
        )
    if settings.center_crop == "auto":
        settings = replace(settings, center_crop="no" if crop is False else "yes")
    return settings


def _contradiction(protocol: Protocol, name: str, value: object, fixed: str) -> SettingsError:
    flag = f"--{name.replace('_', '-')}"
    return SettingsError(
        f"{flag} {value} contradicts --protocol {protocol.name}, which fixes {fixed}.",
        f"Leave {flag} out; or leave --protocol out, and every setting is free.",
    )
