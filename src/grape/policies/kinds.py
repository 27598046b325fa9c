"""What kind of policy a checkpoint is, from its ``config.json`` and the names of its files: before weights are read.

OpenVLA-OFT keeps parts of its network in files of their own (``action_head--STEPS_checkpoint.pt``) beside weights that
are named like OpenVLA's, and ``config.json`` says nothing of it. Run without their head, such weights act at random; so
a separate head is never passed over. A checkpoint with action tokens and nothing beside looks like OpenVLA's: there the
user says what it is (a preset), or what was saved here says it under ``grape.oft``.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from grape.core.errors import SettingsError

__all__ = ["FACTS_FILE", "PART_PATTERNS", "CheckpointKind", "find_parts", "recognize_checkpoint"]

FACTS_FILE = "grape.json"
"""What stands under ``grape`` in a configuration of the project's own, for checkpoints whose published configuration
stays as it was."""

_PARTS = re.compile(
    r"(?P<part>action_head|noisy_action_projector|proprio_projector|vision_backbone|diffusion_\w+)"
    r"--\w+\.(pt|pth|bin)$"
)
PART_PATTERNS = ("action_head--*.pt", "proprio_projector--*.pt")
"""Files beside the weights that are read, as patterns for a download."""


@dataclass(frozen=True)
class CheckpointKind:
    """What a checkpoint is.

    Attributes:
        name: Kind of policy.
        head: Where actions come from: the language model's ``"tokens"``, or an ``"l1"`` regression head.
        reason: What says so; empty where nothing says that it is more than plain OpenVLA.
        action_head: Name of the file of the action head; empty for none.
        proprio_projector: Name of the file of the projector of the robot's state; empty for none.
        stated: Whether its configuration says with which conventions it is run.
    """

    name: Literal["openvla", "openvla-oft"]
    head: Literal["tokens", "l1"] = "tokens"
    reason: str = ""
    action_head: str = ""
    proprio_projector: str = ""
    stated: bool = False


def find_parts(names: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Files of separate parts of a network, sorted, by part: ``action_head``, ``proprio_projector``, ..."""
    parts: dict[str, list[str]] = {}
    for name in sorted(names):
        match = _PARTS.match(name)
        if match is not None:
            parts.setdefault(match["part"], []).append(name)
    return {part: tuple(files) for part, files in parts.items()}


def recognize_checkpoint(
    config: Any,
    names: Iterable[str],
    where: str = "This checkpoint",
    known: Sequence[str] = ("openvla", "openvla-oft"),
) -> CheckpointKind:
    """The kind of a checkpoint.

    Args:
        config: Content of its ``config.json``, with ``grape.json`` under ``grape``.
        names: Names of its files.
        where: What messages call it.
        known: Names of all policy types, for the message.

    Raises:
        SettingsError: It is of a kind that is not run: a diffusion head, FiLM in the vision towers, parts of an unknown
            kind, several files of one part, or another model altogether.
    """
    if not isinstance(config, Mapping) or config.get("model_type") != "openvla":
        kind = config.get("model_type") if isinstance(config, Mapping) else None
        raise SettingsError(
            f"{where} is a model of type {kind!r}; policies known here: {', '.join(known)}.",
            "Its type must be installed; those of OpenVLA have model_type 'openvla' in config.json.",
        )
    parts = find_parts(names)
    diffusion = [part for part in parts if part.startswith("diffusion_") or part == "noisy_action_projector"]
    if diffusion:
        raise SettingsError(
            f"{where} acts through a diffusion head ({parts[diffusion[0]][0]}), which is not supported.",
            "It has no action tokens either: its language model was not trained to act. Use a checkpoint with tokens "
            "or an L1 regression head.",
        )
    if "vision_backbone" in parts:
        raise SettingsError(
            f"{where} changes its vision towers by the instruction (FiLM: {parts['vision_backbone'][0]}), which is "
            "not supported.",
            "Use a checkpoint trained without FiLM.",
        )
    several = [files for files in parts.values() if len(files) > 1]
    if several:
        raise SettingsError(
            f"{where} has {len(several[0])} files of one part: {', '.join(several[0])}.", "Keep the one you mean."
        )
    head, projector = (parts.get(part, ("",))[0] for part in ("action_head", "proprio_projector"))
    ours = config.get("grape")
    stated = isinstance(ours, Mapping) and "oft" in ours
    if not (head or projector or stated):
        return CheckpointKind("openvla")
    reason = f"it has {head or projector}" if head or projector else "its configuration says so (grape.oft)"
    return CheckpointKind("openvla-oft", "l1" if head else "tokens", reason, head, projector, stated)
