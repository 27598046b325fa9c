"""Named rules that convert a data set's columns to the standard form that policies are trained on.

RLDS sets agree on a layout, not on meaning: which image, whose actions, what the gripper's number says. Each rule
states this for one family of data sets, as OpenVLA's published loader (and the first GRAPE loader derived from it)
treats it, so that actions and statistics equal theirs. After a rule, actions are 7 numbers: translation and rotation
as the data set has them, and a gripper of 1 = open, 0 = closed.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError, SettingsError, did_you_mean, require_known
from grape.core.tasks import GripperConvention, parse_convention
from grape.store.rlds.dataset import Episode, RldsDataset
from grape.store.rlds.features import Column
from grape.store.rlds.images import EncodedImages

__all__ = [
    "RULES",
    "Rule",
    "StandardEpisode",
    "binarize_gripper",
    "gripper_from_loader",
    "gripper_to_loader",
    "noop_mask",
    "rule_for",
    "standard_episodes",
    "standardize",
]

Float32 = npt.NDArray[np.float32]

_OPEN, _CLOSED = 0.95, 0.05
_NOOP = 1e-4


@dataclass(frozen=True, eq=False)
class StandardEpisode:
    """An episode in the standard form.

    Attributes:
        index: Position in its split.
        file_path: What the data set calls it, e.g. a pair's id; may be empty.
        instruction: The task in words, as recorded (no change of case); the first one where steps have several.
        instructions: What each step is told, ``T`` texts; empty ones are those before them.
        images: ``T`` images, one before each action, still encoded.
        actions: float32 ``(T, 7)``, un-normalized, gripper 1 = open and 0 = closed.
        where: File and record, for messages.
    """

    index: int
    file_path: str
    instruction: str
    instructions: tuple[str, ...]
    images: EncodedImages
    actions: Float32
    where: str

    @property
    def steps(self) -> int:
        """Number of steps ``T``."""
        return int(self.actions.shape[0])


Steps = tuple[slice, Float32]
"""Which steps stay, and their actions."""


@dataclass(frozen=True)
class Rule:
    """How one family of data sets is read.

    Attributes:
        name: What the user types.
        image: Column of the main camera.
        steps: Which steps stay, and their actions.
        meaning: The rule in one sentence.
    """

    name: str
    image: str
    steps: Callable[[Episode], Steps]
    meaning: str


def binarize_gripper(gripper: Float32) -> Float32:
    """Continuous gripper positions ``(T,)`` as open (1) or closed (0).

    Above 0.95 is open, below 0.05 closed. What lies between takes the value of the next clear one: the hand is already
    on its way there. After the last clear one, the last raw value stays (OpenVLA's ``binarize_gripper_actions``).
    """
    result = np.empty_like(gripper)
    value = gripper[-1] if gripper.size else np.float32(0)
    for step in range(gripper.size - 1, -1, -1):
        if gripper[step] > _OPEN:
            value = np.float32(1)
        elif gripper[step] < _CLOSED:
            value = np.float32(0)
        result[step] = value
    return result


def noop_mask(actions: Float32) -> npt.NDArray[np.bool_]:
    """Which actions do something, as the modified LIBERO sets were filtered.

    A no-op moves by less than 1e-4 (norm of all but the gripper) and leaves the gripper as the last kept action had it;
    before the first kept action, the gripper does not count.

    Args:
        actions: Raw actions, float32 ``(T, D)``, gripper last.

    Returns:
        Bool ``(T,)``, true for steps to keep.
    """
    keep = np.ones(len(actions), dtype=np.bool_)
    last: np.float32 | None = None
    for step, action in enumerate(actions):
        still = float(np.linalg.norm(action[:-1])) < _NOOP
        keep[step] = not (still and (last is None or action[-1] == last))
        if keep[step]:
            last = action[-1]
    return keep


def gripper_to_loader(actions: Float32, convention: str) -> Float32:
    """Actions of a suite in the published loaders' convention (1 = open, 0 = closed).

    Args:
        actions: Un-normalized actions, gripper last, float32 ``(T, D)``.
        convention: What the suite says of its gripper, e.g. ``"+1 closes"`` (which implies -1 opens).

    Raises:
        SettingsError: The convention is unknown.
    """
    gripper = parse_convention(GripperConvention, convention)
    result = actions.copy()
    result[:, -1] = np.clip(
        (result[:, -1] - np.float32(gripper.closed)) / np.float32(gripper.opened - gripper.closed), 0, 1
    )
    return result


def gripper_from_loader(actions: Float32, convention: str) -> Float32:
    """Inverse of :func:`gripper_to_loader`.

    Raises:
        SettingsError: The convention is unknown.
    """
    gripper = parse_convention(GripperConvention, convention)
    result = actions.copy()
    result[:, -1] = np.float32(gripper.closed) + result[:, -1] * np.float32(gripper.opened - gripper.closed)
    return result


def standardize(episode: Episode, rule: Rule) -> StandardEpisode:
    """Apply a rule to an episode.

    Raises:
        DataError: A column that the rule needs is not there or damaged, or an action is not finite.
    """
    kept_steps, actions = rule.steps(episode)
    images = episode.steps[rule.image]
    texts = episode.steps["language_instruction"]
    if not isinstance(images, EncodedImages) or not isinstance(texts, list):
        raise DataError(f"{episode.where}: '{rule.image}' holds no images, or the instruction is no text.")
    if not np.isfinite(actions).all():
        raise DataError(f"{episode.where}: some actions are not finite.", "Leave this episode out of the data set.")
    instruction = next((text for text in texts[kept_steps] if text), "")
    instructions = tuple(
        itertools.accumulate(texts[kept_steps], lambda before, text: text or before, initial=instruction)
    )[1:]
    part = images.part(kept_steps)
    return StandardEpisode(episode.index, episode.file_path, instruction, instructions, part, actions, episode.where)


def standard_episodes(episodes: Iterator[Episode], rule: Rule) -> Iterator[StandardEpisode]:
    """Episodes by a rule; those without an instruction or without a step are left out, as the published loaders do."""
    for episode in episodes:
        standard = standardize(episode, rule)
        if standard.instruction and standard.steps:
            yield standard


def rule_for(dataset: RldsDataset, name: str = "") -> Rule:
    """The rule of a data set.

    Args:
        dataset: The data set.
        name: The user's choice; empty recognizes the data set by its folder's name, then by its own.

    Raises:
        SettingsError: The name is unknown, or none was given and the data set is not recognized.
    """
    if name:
        require_known("RLDS rule", name, RULES)
        return RULES[name]
    for candidate in (dataset.path.parent.name, dataset.description.name):
        if candidate in _FAMILIES:
            return RULES[_FAMILIES[candidate]]
    raise SettingsError(
        f"No rule is known for the RLDS data set {dataset.path} (called {dataset.description.name!r}).",
        f"Name one. {did_you_mean(dataset.path.parent.name, RULES)} 'plain' takes actions as they are.",
    )


def _actions(episode: Episode) -> Float32:
    column = episode.steps["action"]
    if not isinstance(column, np.ndarray) or column.ndim != 2 or column.shape[1] != 7:
        raise DataError(f"{episode.where}: column 'action' is not of shape (T, 7).")
    return column.astype(np.float32)


def _numbers(column: Column, where: str) -> Float32:
    if not isinstance(column, np.ndarray) or column.ndim != 2:
        raise DataError(f"{where}: column 'observation/state' is no list of numbers a step.")
    return column.astype(np.float32)


def _plain(episode: Episode) -> Steps:
    return slice(0, episode.length), _actions(episode)


def _bridge_orig(episode: Episode) -> Steps:
    """Drop the first step (all zero), binarize the gripper; motion is the way to the next recorded pose."""
    gripper = binarize_gripper(_actions(episode)[1:, 6])
    poses = _numbers(episode.steps["observation/state"], episode.where)[1:, :6]
    return slice(1, max(1, episode.length - 1)), np.concatenate([poses[1:] - poses[:-1], gripper[:-1, None]], axis=1)


def _libero(episode: Episode) -> Steps:
    """The gripper is -1 open, +1 closed: cut to [0, 1] and turned."""
    actions = _actions(episode)
    actions[:, 6] = 1 - np.clip(actions[:, 6], 0, 1)
    return slice(0, episode.length), actions


def _grape_pair(episode: Episode) -> Steps:
    """Drop the first and the last step, binarize the gripper."""
    actions = _actions(episode)[1:]
    actions[:, 6] = binarize_gripper(actions[:, 6])
    return slice(1, max(1, episode.length - 1)), actions[:-1]


RULES: Mapping[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            "bridge_orig",
            "observation/image_0",
            _bridge_orig,
            "first camera; first step dropped; motion relabeled as the way to the next pose, so the last step goes, "
            "too; gripper binarized",
        ),
        Rule(
            "libero",
            "observation/image",
            _libero,
            "third-person camera (already turned by 180 degrees on disk); gripper from -1 open, +1 closed to 1 open, "
            "0 closed",
        ),
        Rule(
            "rlds_np_rollout",
            "observation/image",
            _grape_pair,
            "as the first GRAPE loader: first and last step dropped, gripper binarized",
        ),
        Rule("plain", "observation/image", _plain, "everything as it is on disk"),
    )
}
"""Rules by name."""

_FAMILIES: Mapping[str, str] = {
    "bridge_orig": "bridge_orig",
    "rlds_np_rollout": "rlds_np_rollout",
    **{f"libero_{suite}_no_noops": "libero" for suite in ("spatial", "object", "goal", "10", "90")},
}
"""Rules by the folder's name."""
