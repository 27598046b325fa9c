"""The conventions in which public OpenVLA-OFT stacks differ, as explicit settings with named presets.

Nothing in a public checkpoint says which of them it was trained with, and a wrong one gives no error, only a worse
policy. So each is a setting, is part of the preprocessing hash, and is written into checkpoints saved here.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from grape.core.errors import DataError, SettingsError, require_known
from grape.core.settings import Range, check_ranges, setting, settings_from_dict, settings_to_dict

__all__ = [
    "MOST_ACTIONS",
    "PRESETS",
    "Conventions",
    "Layout",
    "choose_conventions",
    "conventions_from_json",
    "layout_from_json",
    "override_conventions",
]

MOST_ACTIONS = 1024
"""Longest chunk, actions; published ones have 1 to 25."""

Bounds = Literal["q01-q99", "min-max"]


@dataclass(frozen=True)
class Conventions:
    """How one stack runs a checkpoint. The defaults are those of the reference code.

    Attributes:
        attention: ``"bidirectional"``: every position looks at every other, as published checkpoints were trained
            with a changed transformers; ``"causal"``: what stock attention makes of them.
        stop_row: Whether the embedding of the stop token stands behind the placeholders of the actions.
        prompt_tail: What stands behind ``Out:``. ``"appended"``: Llama's empty token (29871) unless it is last
            already; ``"written"``: a space, which must become that token; ``"none"``.
        center_crop: Whether 90 % of an image's area is cropped from the middle, after the resize.
        image_preprocessing: What an evaluation does to a camera's image before. ``"jpeg-lanczos"``: half a turn, JPEG
            round trip, Lanczos; ``"resize"``: half a turn and a plain resize. The suite's part; recorded here.
        idle_steps: Control steps that an evaluation waits before the first decision. The suite's part; recorded here.
        support: Token ids that the softmax runs over, and the argmax of greedy decoding: the whole ``"vocabulary"``,
            or the ``"window"`` of action tokens.
        temperature: Temperature of log-probabilities, and of sampling in that stack.
    """

    attention: Literal["bidirectional", "causal"] = "bidirectional"
    stop_row: Literal["kept", "removed"] = "kept"
    prompt_tail: Literal["appended", "written", "none"] = "appended"
    center_crop: bool = True
    image_preprocessing: Literal["jpeg-lanczos", "resize"] = "jpeg-lanczos"
    idle_steps: int = setting(10, range=Range(0, 10_000))
    support: Literal["vocabulary", "window"] = "vocabulary"
    temperature: float = setting(1.0, range=Range(0.0, 1000.0, open_low=True))

    def __post_init__(self) -> None:
        check_ranges(self)

    def to_json(self) -> dict[str, Any]:
        """JSON mapping by field."""
        return dict(settings_to_dict(self))


PRESETS: Mapping[str, Conventions] = {
    "openvla-oft": Conventions(),
    "simplevla-rl": Conventions(support="window", temperature=1.6),
    "rlinf": Conventions(
        stop_row="removed",
        prompt_tail="written",
        center_crop=False,
        image_preprocessing="resize",
        idle_steps=15,
        support="window",
        temperature=1.6,
    ),
}
"""What public stacks do on LIBERO: moojink/openvla-oft, PRIME-RL/SimpleVLA-RL, RLinf/RLinf (its class ``rlinf``)."""


@dataclass(frozen=True)
class Layout:
    """What goes into a checkpoint's network and comes out of it.

    Attributes:
        chunk: Actions ``K`` a decision.
        action_dim: Dimensions ``D`` of an action.
        cameras: Names of the cameras, in the order in which their patches are read.
        proprio_dim: Dimensions of the robot's state behind the patches; 0 for none.
        bounds: Statistics that map to -1 and 1, of actions and of the robot's state.
        head: Where actions come from: the language model's ``"tokens"``, or an ``"l1"`` regression head.
        placeholders: What the rows are where the actions come out: ``"zeros"``, one a token, as published; or
            ``"per-action"``, one learned vector an action, as policies made here have them.
    """

    chunk: int = setting(range=Range(1, MOST_ACTIONS), kw_only=True)
    action_dim: int = setting(range=Range(1, MOST_ACTIONS), kw_only=True)
    cameras: tuple[str, ...] = ("agentview",)
    proprio_dim: int = setting(0, range=Range(0, MOST_ACTIONS))
    bounds: Bounds = "q01-q99"
    head: Literal["tokens", "l1"] = "tokens"
    placeholders: Literal["zeros", "per-action"] = "zeros"

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.cameras or len(set(self.cameras)) != len(self.cameras):
            raise SettingsError(f"Cameras {', '.join(self.cameras) or '(none)'}: each needs a name of its own.")

    @property
    def tokens(self) -> int:
        """Action tokens ``K * D`` a decision."""
        return self.chunk * self.action_dim

    @property
    def rows(self) -> int:
        """Rows of a sequence that the actions come out of: one a token, or one an action."""
        return self.chunk if self.placeholders == "per-action" else self.tokens

    def to_json(self) -> dict[str, Any]:
        """JSON mapping by field."""
        return dict(settings_to_dict(self))

    @staticmethod
    def of_platform(action_dim: int) -> "Layout":
        """The reference's constants for a robot, which no checkpoint states.

        Two arms of 7 dimensions (ALOHA, RoboTwin) have 25 actions, normalized by minimum and maximum; others as LIBERO
        8 actions, normalized by percentiles.
        """
        if action_dim == 14:
            return Layout(chunk=25, action_dim=14, bounds="min-max")
        return Layout(chunk=8, action_dim=action_dim)


def choose_conventions(preset: str, stated: Conventions | None) -> Conventions:
    """The conventions to run a checkpoint with.

    Args:
        preset: Name of a preset; empty takes what the checkpoint states.
        stated: What the checkpoint states, or None.

    Raises:
        SettingsError: The preset is unknown, or there is none and the checkpoint states nothing.
    """
    if preset:
        require_known("preset", preset, PRESETS)
        return PRESETS[preset]
    if stated is None:
        raise SettingsError(
            "This is a checkpoint of OpenVLA-OFT that does not say with which conventions it was trained.",
            f"Choose a --preset: {', '.join(PRESETS)}.",
        )
    return stated


def override_conventions(conventions: Conventions, changes: Sequence[str]) -> Conventions:
    """Conventions with single ones changed.

    Args:
        conventions: Where to start.
        changes: ``NAME=VALUE`` each, e.g. ``"attention=causal"``; dashes and underscores are the same in names.

    Raises:
        SettingsError: A name or value is unknown.
    """
    values: dict[str, Any] = {}
    for change in changes:
        name, equals, value = change.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise SettingsError(
                f"--convention {change!r} is no NAME=VALUE.", "For example --convention stop-row=removed."
            )
        require_known("convention", name, [item.name for item in dataclasses.fields(Conventions)])
        whole = re.fullmatch(r"-?\d+", value.strip())
        values[name] = int(value) if whole and name != "temperature" else value.strip()
    return settings_from_dict(Conventions, values, conventions)


def conventions_from_json(data: Any, where: str) -> Conventions:
    """Conventions as a checkpoint states them.

    Raises:
        DataError: They are incomplete or unknown: running with a default instead could be silently wrong.
    """
    return cast(Conventions, _complete(Conventions, data, where))


def layout_from_json(data: Any, where: str) -> Layout:
    """A layout as a checkpoint states it.

    Raises:
        DataError: It is incomplete or unknown.
    """
    return cast(Layout, _complete(Layout, data, where))


def _complete(kind: type[Any], data: Any, where: str) -> Any:
    missing = [item.name for item in dataclasses.fields(kind) if not isinstance(data, Mapping) or item.name not in data]
    if missing:
        raise DataError(f"{where} lacks {', '.join(missing)}.", "Copy or download this file again.")
    try:
        return settings_from_dict(kind, data)
    except SettingsError as error:
        raise DataError(f"{where}: {error.message}", "It was written by another release, or changed.") from error
