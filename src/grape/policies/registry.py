"""Policy types by name, and the type of a checkpoint.

Types of other distributions register under the entry-point group ``grape.policies``; a program can register its own
for as long as it runs. A type's module is imported when its policies are opened; the ``config.json`` of a checkpoint
says which type it is of, before weights are downloaded.
"""

import importlib
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar, cast

from grape.core.errors import GrapeError, SettingsError, require_known
from grape.core.provenance import Provenance, read_provenance
from grape.core.repositories import cached_model, parse_hub_name
from grape.core.settings import flag_of
from grape.policies.base import FIX_POLICY, Policy, PolicySpec, TrainablePolicy
from grape.policies.kinds import recognize_checkpoint
from grape.policies.opening import PolicySettings, check_policy_name, read_checkpoint_config
from grape.policies.remote.address import is_server_address
from grape.policies.types import AS_STATED, USER_OPTIONS, CheckpointInfo, OpeningOptions, PolicyType

__all__ = [
    "check_policy_place",
    "check_weights_here",
    "contract_of",
    "conventions_of",
    "crop_caution",
    "get_policy_type",
    "open_as",
    "open_policy",
    "policy_folder",
    "policy_type_names",
    "provenance_of",
    "read_checkpoint_info",
    "read_policy",
    "recognize_policy",
    "register_policy_type",
]

_T = TypeVar("_T")

_GROUP = "grape.policies"
_BUILTIN: dict[str, tuple[str, str]] = {
    "openvla": ("grape.policies.builtin", "OpenVLAType"),
    "openvla-oft": ("grape.policies.builtin", "OpenVLAOFTType"),
    "ws": ("grape.policies.remote.policy", "RemotePolicyType"),
    "wss": ("grape.policies.remote.policy", "RemotePolicyType"),
}
_OF_FILES = ("openvla", "openvla-oft")
_of_this_process: dict[str, type[PolicyType]] = {}


def register_policy_type(name: str, kind: type[PolicyType]) -> None:
    """Make a policy type known in this process, e.g. one that a notebook defines; a package has an entry point.

    Args:
        name: What it is called, as in ``NAME:PLACE``. A name that was registered here before, or that an entry point
            has, now stands for ``kind``: a cell of a notebook may run again.
        kind: Its class, made without arguments when a policy is opened.

    Raises:
        SettingsError: The name is that of a built-in type, or nothing that can stand in ``NAME:PLACE``; or ``kind``
            is no class that derives from :class:`PolicyType` and can be made without arguments.
    """
    if name in (*_BUILTIN, "expert") or not name.replace("-", "_").isidentifier():
        raise SettingsError(
            f"{name!r} cannot name a policy type of one's own.",
            f"Take letters, digits, - and _, and none of {', '.join(_BUILTIN)}, expert.",
        )
    if not (isinstance(kind, type) and issubclass(kind, PolicyType)):
        raise SettingsError(f"{kind!r} is no class of policy types.", "Derive it from grape.policies.PolicyType.")
    try:
        kind()
    except Exception as error:
        raise SettingsError(
            f"{kind.__name__} cannot be made: {type(error).__name__}: {error}.",
            "Define what PolicyType leaves open, and let it be made without arguments.",
        ) from error
    _of_this_process[name] = kind


def policy_type_names() -> tuple[str, ...]:
    """Names of all policy types, built in, from entry points, or registered in this process, sorted."""
    points = (point.name for point in metadata.entry_points(group=_GROUP))
    return tuple(sorted({*_BUILTIN, *_of_this_process, *points}))


def get_policy_type(name: str) -> PolicyType:
    """Policy type registered under ``name``.

    Raises:
        SettingsError: The name is unknown, or the plugin that registered it cannot be loaded.
    """
    if name in _BUILTIN:
        module, attribute = _BUILTIN[name]
        made = getattr(importlib.import_module(module), attribute)()
    elif name in _of_this_process:
        made = _of_this_process[name]()
    else:
        require_known("policy type", name, policy_type_names())
        (point, *_) = metadata.entry_points(group=_GROUP, name=name)
        try:
            made = point.load()()
        except Exception as error:
            raise SettingsError(
                f"Policy type {name!r} is registered as {point.value!r} but cannot be loaded: "
                f"{type(error).__name__}: {error}.",
                "Fix or uninstall the package that registers it.",
            ) from error
        if not isinstance(made, PolicyType):
            raise SettingsError(
                f"Policy type {name!r} is registered as {point.value!r}, which makes no grape.policies.PolicyType.",
                "Derive its class from PolicyType; what it does not define has defaults there.",
            )
    made.name = name
    return cast(PolicyType, made)


def recognize_policy(policy: Path | str, preset: str = "") -> tuple[PolicyType, Path | str]:
    """The type of a policy and its place.

    Args:
        policy: A checkpoint folder, a name on the hub, or ``TYPE:PLACE``, e.g. ``ws://host:port`` for a server.
        preset: Named conventions that the user asks for; they say that the checkpoint is OpenVLA-OFT's.

    Raises:
        SettingsError: There is no such policy, or no type knows it.
        DataError: The configuration is damaged.
    """
    name, place = _named_type(policy)
    if name:
        return get_policy_type(name), place
    check_policy_name(policy)
    config, names = read_checkpoint_config(policy)
    if config is not None and config.get("model_type") != "openvla":
        broken = []
        for other in policy_type_names():
            if other in _BUILTIN:
                continue
            try:
                plugin = get_policy_type(other)
                recognized = _answer(plugin, "look at a configuration", partial(plugin.recognizes, config, names))
            except SettingsError as error:  # the checkpoint may be of another type
                broken.append(error)
                continue
            if recognized:
                return plugin, policy
        if broken:
            raise SettingsError(
                f"No policy type that works knows {policy} (model_type {config.get('model_type')!r}). "
                + " ".join(error.message for error in broken),
                broken[0].hint,
            )
    known = [name for name in policy_type_names() if name not in _BUILTIN or name in _OF_FILES]
    kind = "openvla" if config is None else recognize_checkpoint(config, names, str(policy), known).name
    return get_policy_type("openvla-oft" if preset else kind), policy


def check_policy_place(policy: Path | str, flag: str = "--policy") -> None:
    """Refuse what is neither a folder, nor could be a name on the hub, nor names its type; nothing is opened.

    Args:
        policy: What the user wrote.
        flag: How it was given, for the message.

    Raises:
        SettingsError: There is no such folder.
    """
    if not _named_type(policy)[0]:
        check_policy_name(policy, flag)


def check_weights_here(policy: Path | str) -> None:
    """Refuse a policy on a server where its weights are needed; nothing is opened.

    Args:
        policy: What the user wrote, or a path that was made of it.

    Raises:
        SettingsError: It is the address of a server.
    """
    if is_server_address(policy):
        raise SettingsError(
            "A policy on a server can act, but it cannot be trained from here: its weights are not here.",
            "Train where its checkpoint lies, and give that folder. 'grape collect' and 'grape evaluate' take servers.",
        )


def provenance_of(policy: Path | str) -> Provenance:
    """Initial states that a policy was trained or chosen on, as its folder or its server says.

    Args:
        policy: As for :func:`recognize_policy`.

    Raises:
        DataError: What says so is not understood.
        SettingsError: A policy's server does not answer.
    """
    name, place = _named_type(policy)
    return get_policy_type(name).provenance(place) if name else read_provenance(Path(place))


def policy_folder(policy: Path | str) -> Path:
    """Where a policy's files lie, if they do so here: the place of ``TYPE:PLACE``, the path, or the hub's snapshot."""
    place = _named_type(policy)[1]
    name = parse_hub_name(place)
    return Path(place) if name is None else cached_model(name) or Path(place)


def _named_type(policy: Path | str) -> tuple[str, str]:
    """Type and place of ``TYPE:PLACE``; an empty type where the policy is written otherwise."""
    name, colon, place = str(policy).partition(":")
    named = colon and not Path(policy).exists() and name in policy_type_names()
    return (name, place) if named else ("", str(policy))


def open_policy(policy: Path | str, options: OpeningOptions = AS_STATED) -> Policy:
    """Open a policy of any type with its weights.

    Args:
        policy: As for :func:`recognize_policy`.
        options: How.

    Raises:
        SettingsError: There is no such policy, no type knows it, or the options do not fit it.
        CompatibilityError: Statistics, cameras or chunk are not the checkpoint's.
        DataError: A file is missing, truncated or does not fit the others.
    """
    return open_as(*recognize_policy(policy, options.preset), options)


def open_as(policy_type: PolicyType, place: Path | str, options: OpeningOptions) -> Policy:
    """As :func:`open_policy`, where the type is known; what is wrong with another distribution's type is told."""
    _check_options(policy_type, options)
    policy = _answer(policy_type, f"open {place}", lambda: policy_type.open(place, options))
    spec = _answer(policy_type, f"say the contract of {place}", lambda: contract_of(policy))
    if not isinstance(spec, PolicySpec):
        raise SettingsError(
            f"What policy type {policy_type.name!r} opened ({type(policy).__name__}) has no PolicySpec as its spec.",
            FIX_POLICY,
        )
    if options.chunk not in (None, spec.chunk):
        raise SettingsError(
            f"--chunk {options.chunk}: {place} decides on {spec.chunk} action{'s' * (spec.chunk > 1)} at once.",
            "Leave --chunk out.",
        )
    return policy


def contract_of(policy: Policy) -> PolicySpec:
    """A policy's contract, where the hash of its weights is not needed."""
    return policy.contract if isinstance(policy, TrainablePolicy) else policy.spec


def conventions_of(policy: Policy) -> Mapping[str, Any]:
    """What a suite shall do, by name, as a policy states it; a policy that only acts need not state anything."""
    return cast(Mapping[str, Any], getattr(policy, "evaluation_conventions", {}))


def crop_caution(policy_type: PolicyType, place: Path | str, settings: PolicySettings, name: str) -> str:
    """A sentence where nobody says whether a policy was trained with random crops, so that it sees whole images.

    Args:
        policy_type: Its type.
        place: Its place.
        settings: How it is opened.
        name: What messages call it.

    Returns:
        The sentence; empty where there is nothing to warn of.
    """
    unsaid = settings.center_crop == "auto" and not settings.preset and "center_crop" in policy_type.takes
    if policy_type.is_remote or not unsaid or policy_type.info(place).center_crop is not None:
        return ""  # a server warned where it was started
    return (
        f"{name} does not say whether it was trained with random crops; it sees whole images. Policies published for "
        "LIBERO need --center-crop yes."
    )


def read_policy(policy: Path | str, options: OpeningOptions = AS_STATED) -> TrainablePolicy | None:
    """Open a policy without its weights; None where its type cannot. Arguments and errors as :func:`open_policy`."""
    policy_type, place = recognize_policy(policy, options.preset)
    _check_options(policy_type, options)
    return _answer(policy_type, f"read {place}", lambda: policy_type.read(place, options))


def _check_options(policy_type: PolicyType, options: OpeningOptions) -> None:
    names = [
        name
        for name in USER_OPTIONS
        if name not in policy_type.takes and getattr(options, name) != getattr(AS_STATED, name)
    ]
    if names:
        raise SettingsError(
            f"Policies of type {policy_type.name!r} have no use for {', '.join(map(flag_of, names))}.",
            "Leave it out." if len(names) == 1 else "Leave them out.",
        )


def _answer(policy_type: PolicyType, what: str, ask: Callable[[], _T]) -> _T:
    """What a type answers; an unexpected exception of another distribution's becomes a message with its place."""
    try:
        return ask()
    except (GrapeError, OSError, MemoryError):
        raise
    except Exception as error:
        if policy_type.name in _BUILTIN:
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise SettingsError(
            f"Policy type {policy_type.name!r} could not {what}: {type(error).__name__}: {error} "
            f"({Path(frame.filename).name}, line {frame.lineno}).",
            "Check the checkpoint's files, or ask those who wrote the package of this type.",
        ) from error


def read_checkpoint_info(policy: Path | str, options: OpeningOptions = AS_STATED) -> CheckpointInfo:
    """Facts from a policy's configuration. Arguments and errors as :func:`open_policy`."""
    policy_type, place = recognize_policy(policy, options.preset)
    return policy_type.info(place, options)
