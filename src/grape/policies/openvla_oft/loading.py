"""Opening and saving OpenVLA-OFT policies."""

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from grape.core.errors import CompatibilityError, SettingsError
from grape.policies.kinds import CheckpointKind
from grape.policies.opening import read_checkpoint_kind, resolve_policy
from grape.policies.openvla.action_tokens import ActionNorm, choose_unnorm_key
from grape.policies.openvla.adapter_pointer import AdapterPointer, read_pointer
from grape.policies.openvla.adapters import attach_adapter, check_adapter, refuse_4bit_merge
from grape.policies.openvla.checkpoint import CheckpointFiles, load_weights, read_files
from grape.policies.openvla.config import OpenVLAConfig
from grape.policies.openvla.precision import Attention, DType, choose_precision
from grape.policies.openvla.proprio import ProprioProjector
from grape.policies.openvla_oft.conventions import (
    Conventions,
    Layout,
    choose_conventions,
    conventions_from_json,
    layout_from_json,
    override_conventions,
)
from grape.policies.openvla_oft.model import PARTS, OpenVLAOFT, check_attention, empty_oft_model, rows_beside_prompt
from grape.policies.openvla_oft.normalization import action_norm, proprio_norm
from grape.policies.openvla_oft.parts import L1ActionHead, load_l1_head, load_proprio_projector
from grape.policies.openvla_oft.policy import OFTPolicy

__all__ = [
    "OFTChoices",
    "load_oft_policy",
    "read_oft_config",
    "read_oft_network",
    "read_oft_policy",
    "state_oft",
    "with_conventions",
]

_STATED = "oft"
_HEADS = {"tokens": "action tokens", "l1": "an L1 regression head (action_head--*.pt)"}
_CAMERAS = ("agentview", "wrist")
_HEAD_BLOCKS = 2
"""Residual blocks of published L1 heads."""


@dataclass(frozen=True)
class OFTChoices:
    """How a checkpoint of OpenVLA-OFT is meant, as far as it does not say so itself.

    Attributes:
        preset: Conventions to run it with (:data:`~grape.policies.openvla_oft.conventions.PRESETS`); empty takes what
            the checkpoint states, and for an L1 head, which one stack has, those of ``openvla-oft``.
        changes: Single conventions to change, ``NAME=VALUE`` each.
        chunk: Actions a decision; None takes what the checkpoint states, or the reference's constant for its robot.
        cameras: Number of cameras; None takes what the checkpoint states, or one.
        unnorm_key: Normalization statistics to use; ``NAME`` also finds ``NAME_no_noops``. None takes those that the
            checkpoint says are in use, or the only ones there are.
        center_crop: Whether to crop images; None takes what the conventions say.
        proprio_dim: Numbers of the robot's state that it will be given, to be compared; None compares nothing.
    """

    preset: str = ""
    changes: tuple[str, ...] = ()
    chunk: int | None = None
    cameras: int | None = None
    unnorm_key: str | None = None
    center_crop: bool | None = None
    proprio_dim: int | None = None


@dataclass(frozen=True, eq=False)
class _Opened:
    """What is known of a policy before its weights are read; ``pointer`` is an adapter's, else None."""

    folder: Path
    pointer: AdapterPointer | None
    files: CheckpointFiles
    unnorm_key: str
    conventions: Conventions
    layout: Layout
    proprio_projector: ProprioProjector | None
    action_head: L1ActionHead | None


def load_oft_policy(
    path: Path | str,
    choices: OFTChoices = OFTChoices(),
    *,
    device: str = "cpu",
    dtype: DType = "auto",
    attention: Attention = "sdpa",
    load_in_4bit: bool = False,
    merge: bool = False,
) -> OFTPolicy:
    """Open an OpenVLA-OFT policy, with action tokens or an L1 regression head, or an adapter that points to one.

    Everything that can be wrong with the call or the small files is found before weights are read.

    Args:
        path: A folder, or a name on the hub.
        choices: What the checkpoint does not say.
        device: As for :func:`grape.policies.openvla.load_policy`.
        dtype: As there.
        attention: As there.
        load_in_4bit: As there.
        merge: As there.

    Raises:
        SettingsError: There is no such policy or it is of another kind; a name is unknown; the chunk or the cameras are
            not the checkpoint's.
        CompatibilityError: Statistics are of another dimension than the network.
        DataError: A file is missing, truncated or does not fit the others.
    """
    kind = read_checkpoint_kind(path)
    opened = _open(resolve_policy(path, parts=True), kind, choices, weights=True)
    if opened.pointer is not None and merge:
        refuse_4bit_merge(load_in_4bit)
    precision = choose_precision(device, dtype, attention, load_in_4bit, opened.files.config.storage_dtype)
    policy = _without_weights(opened, precision.attention)
    model, pointer = policy.model, opened.pointer
    if pointer is not None:
        check_adapter(opened.folder, model, apart=PARTS)
    weights = opened.folder if pointer is None else pointer.base
    load_weights(weights, model, precision.dtype, precision.device, four_bit=precision.four_bit, without=PARTS)
    for part in (model.proprio_projector, model.action_head):
        if part is not None:
            part.to(device=precision.device, dtype=precision.dtype)
    model.eval()
    return policy if pointer is None else attach_adapter(policy, opened.folder, merge=merge, apart=PARTS)


def read_oft_policy(path: Path | str, choices: OFTChoices = OFTChoices()) -> OFTPolicy:
    """Open a policy without its weights: prompts, images, layout and conventions are there, but it cannot act.

    Separate parts are not read either, nor downloaded: their sizes are those that the configuration states, or else
    those of the statistics and the published ones. What does not fit them is found when the policy is loaded.

    Args:
        path: As for :func:`load_oft_policy`.
        choices: As there.

    Raises:
        SettingsError: As there.
        CompatibilityError: As there.
        DataError: As there.
    """
    return _without_weights(_open(resolve_policy(path, weights=False), read_checkpoint_kind(path), choices))


def _without_weights(opened: _Opened, attention: str = "sdpa") -> OFTPolicy:
    model = empty_oft_model(opened.files.config, opened.conventions, opened.layout, attention)
    model.proprio_projector, model.action_head = opened.proprio_projector, opened.action_head
    return OFTPolicy(model, opened.files, opened.unnorm_key)


def with_conventions(policy: OFTPolicy, conventions: Conventions) -> OFTPolicy:
    """The same network run under other conventions. Weights are shared, not copied.

    Args:
        policy: The policy; it stays as it is.
        conventions: How the new one is run, and what it states where it is saved.

    Raises:
        SettingsError: The policy's kind of attention cannot be bidirectional.
    """
    check_attention(policy.model.attention, conventions)
    model = copy.copy(policy.model)  # the registered parameters and submodules are the same objects
    model.conventions = conventions
    config = state_oft(policy.config, conventions, policy.layout, policy.unnorm_key)
    return OFTPolicy(model, policy.files.with_config(config), policy.unnorm_key)


def _open(folder: Path, kind: CheckpointKind, choices: OFTChoices, *, weights: bool = False) -> _Opened:
    pointer = read_pointer(folder, weights=weights, parts=True)
    files, base = _files(folder, pointer)
    config = files.config
    _, stated_layout = _read_stated(config, str(folder))
    conventions = _conventions(config, kind, str(folder), choices.preset)
    conventions = override_conventions(conventions, choices.changes)
    if choices.center_crop is not None:
        conventions = dataclasses.replace(conventions, center_crop=choices.center_crop)
    key = _choose_key(config, choices.unnorm_key)
    layout = stated_layout or Layout.of_platform(ActionNorm.from_stats(config.norm_stats[key], key).dim)
    if weights:
        projector, head = _parts(base, kind, config.hidden)
    else:
        projector, head = _empty_parts(kind, config, key, layout)
    layout = dataclasses.replace(
        layout,
        chunk=_chunk(choices.chunk, layout, stated_layout is not None),
        cameras=_cameras(choices.cameras, layout, stated_layout is not None),
        proprio_dim=0 if projector is None else projector.proprio_dim,
        head=kind.head,
    )
    if stated_layout is not None and layout.head != stated_layout.head:
        raise CompatibilityError(
            f"{folder} states that its actions come from {_HEADS[stated_layout.head]}, its files give "
            f"{_HEADS[layout.head]}.",
            "Copy or download the checkpoint again, with all its files.",
        )
    if stated_layout is not None and layout.proprio_dim != stated_layout.proprio_dim:
        raise CompatibilityError(
            f"{folder} states that it reads {stated_layout.proprio_dim} numbers of the robot's state, its projector "
            f"reads {layout.proprio_dim}.",
            "Copy or download the checkpoint again, with all its files.",
        )
    if choices.proprio_dim not in (None, layout.proprio_dim):
        raise CompatibilityError(
            f"The policy reads {layout.proprio_dim or 'no'} numbers of the robot's state, "
            f"{choices.proprio_dim or 'none'} are given.",
            "Give exactly these (--proprio where there is no suite). One with a file proprio_projector--*.pt reads the "
            "state that its statistics describe, others read none.",
        )
    if head is not None and head.action_dim != layout.action_dim:
        raise CompatibilityError(
            f"Statistics {key!r} are of actions of {layout.action_dim} dimensions, the action head decides "
            f"{head.action_dim}.",
            "Choose another --unnorm-key.",
        )
    action_norm(config.norm_stats[key], key, layout)
    proprio_norm(config.norm_stats[key], key, layout)
    _check_length(config, conventions, layout)
    files = files.with_config(state_oft(config, conventions, layout, key))
    return _Opened(folder, pointer, files, key, conventions, layout, projector, head)


def _empty_parts(
    kind: CheckpointKind, config: OpenVLAConfig, key: str, layout: Layout
) -> tuple[ProprioProjector | None, L1ActionHead | None]:
    """As :func:`_parts`, without memory for the weights and without reading them."""
    stats = config.norm_stats[key]
    proprio_dim = layout.proprio_dim  # what else it could be is refused for lack of statistics
    if not proprio_dim:
        proprio_dim = ActionNorm.from_stats(stats, key, part="proprio").dim if "proprio" in stats else 1
    with torch.device("meta"):
        return (
            ProprioProjector(proprio_dim, config.hidden) if kind.proprio_projector else None,
            L1ActionHead(_HEAD_BLOCKS, config.hidden, config.hidden, layout.action_dim) if kind.action_head else None,
        )


def read_oft_config(path: Path | str) -> tuple[OpenVLAConfig, Conventions | None]:
    """Configuration and conventions of a policy; weights and separate parts are neither read nor downloaded.

    Conventions are None where nothing says with which the policy is run.

    Args:
        path: As for :func:`load_oft_policy`.

    Raises:
        SettingsError: There is no such policy, or it is of another kind.
        DataError: A file is missing or broken.
    """
    kind = read_checkpoint_kind(path)
    folder = resolve_policy(path, weights=False)
    config = _files(folder, read_pointer(folder))[0].config
    known = kind.stated or kind.head == "l1"
    return config, _conventions(config, kind, str(path)) if known else None


def read_oft_network(folder: Path) -> tuple[OpenVLAConfig, Conventions | None, OpenVLAOFT]:
    """Configuration, stated conventions and layers of a policy, which need not say how it is run.

    Args:
        folder: Folder of the checkpoint or adapter, with its separate parts.

    Raises:
        SettingsError: The policy is of another kind.
        DataError: A file is missing or broken.

    Returns:
        The configuration; the conventions, None where they are not stated; the network without weights, which has all
        layers but is not run.
    """
    files, base = _files(folder, read_pointer(folder, parts=True))
    config = files.config
    network = empty_oft_model(config, Conventions(), Layout(chunk=1, action_dim=1))
    network.proprio_projector, network.action_head = _parts(base, read_checkpoint_kind(folder), config.hidden)
    return config, _read_stated(config, str(folder))[0], network


def _files(folder: Path, pointer: AdapterPointer | None) -> tuple[CheckpointFiles, Path]:
    """A policy's files, with what an adapter changes, and the folder that its weights and parts are in."""
    if pointer is None:
        return read_files(folder, chunks=True), folder
    files = read_files(pointer.base, chunks=True)
    return files.with_config(pointer.configure(files.config)), pointer.base


def _parts(folder: Path, kind: CheckpointKind, hidden: int) -> tuple[ProprioProjector | None, L1ActionHead | None]:
    """The parts that are kept in files of their own; None for those that the checkpoint has not."""
    projector, head = kind.proprio_projector, kind.action_head
    return (
        load_proprio_projector(folder / projector, hidden) if projector else None,
        load_l1_head(folder / head, hidden) if head else None,
    )


def _conventions(config: OpenVLAConfig, kind: CheckpointKind, where: str, preset: str = "") -> Conventions:
    stated, _ = _read_stated(config, where)
    only_stack = "openvla-oft" if kind.head == "l1" and stated is None else ""
    return choose_conventions(preset or only_stack, stated)


def _read_stated(config: OpenVLAConfig, where: str) -> tuple[Conventions | None, Layout | None]:
    stated = config.raw.get("grape", {}).get(_STATED)
    if stated is None:
        return None, None
    parts = stated if isinstance(stated, Mapping) else {}
    return (
        conventions_from_json(parts.get("conventions"), f"{where}: grape.{_STATED}.conventions"),
        layout_from_json(parts.get("layout"), f"{where}: grape.{_STATED}.layout"),
    )


def state_oft(config: OpenVLAConfig, conventions: Conventions, layout: Layout, unnorm_key: str) -> OpenVLAConfig:
    """A configuration that states conventions, layout and, where there are several, the statistics in use."""
    ours = {
        **config.raw.get("grape", {}),
        _STATED: {"conventions": conventions.to_json(), "layout": layout.to_json()},
    }
    if len(config.norm_stats) > 1:
        ours["unnorm_key"] = unnorm_key
    return OpenVLAConfig.from_json({**config.raw, "grape": ours})


def _choose_key(config: OpenVLAConfig, unnorm_key: str | None) -> str:
    key = unnorm_key or config.unnorm_key or None
    if key is not None and key not in config.norm_stats and f"{key}_no_noops" in config.norm_stats:
        return f"{key}_no_noops"
    return choose_unnorm_key(config.norm_stats, key)


def _chunk(given: int | None, layout: Layout, stated: bool) -> int:
    if given is None:
        return layout.chunk
    if stated and given != layout.chunk:
        raise CompatibilityError(
            f"A chunk of {given} actions is asked for; the checkpoint decides {layout.chunk} at once.",
            "Its network was trained for that number: leave --chunk out.",
        )
    return given


def _cameras(given: int | None, layout: Layout, stated: bool) -> tuple[str, ...]:
    if given is None or given == len(layout.cameras):
        return layout.cameras
    if stated:
        raise CompatibilityError(
            f"Images of {given} cameras are given; the checkpoint reads {len(layout.cameras)} "
            f"({', '.join(layout.cameras)}).",
            "Give one image a camera of the checkpoint, further ones with --wrist.",
        )
    return (*_CAMERAS[:given], *(f"wrist{number}" for number in range(2, given)))


def _check_length(config: OpenVLAConfig, conventions: Conventions, layout: Layout) -> None:
    """Refuse what leaves no room for a prompt."""
    longest = int(config.text["max_position_embeddings"])
    beside = rows_beside_prompt(config, conventions, layout) + 2  # the shortest prompt
    if beside >= longest:
        raise SettingsError(
            f"Images of {len(layout.cameras)} cameras and {layout.chunk} actions of {layout.action_dim} dimensions "
            f"take {beside} positions; the network has {longest}.",
            "Use a shorter --chunk or fewer cameras.",
        )
