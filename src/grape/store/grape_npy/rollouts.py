"""Rollouts of the first GRAPE implementation: one ``.npy`` file an episode, an array of dictionaries.

Each element holds ``images`` (a Pillow image or an array), ``prompt`` and ``action`` (7 numbers). Two collectors wrote
them, and their files mean different things:

==============  ==================================================  ==============================================
                SimplerEnv                                          LIBERO
==============  ==================================================  ==============================================
file name       ``success_episode_3_success_num_1_cost_5.npy``      ``success_episode_0.npy``
image           Pillow image, taken AFTER the action                array, taken before the action
gripper         1 = open, 0 = closed                                the environment's: +1 closes, -1 opens
cost            in the name, cut to an integer: a hint only         none
==============  ==================================================  ==============================================
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.lib.format as npy_format
import numpy.typing as npt

from grape.core.errors import DataError
from grape.core.npy_files import check_npy_start
from grape.core.reading import open_file
from grape.store.grape_npy.plain_pickle import Slot, read_plain_pickle
from grape.store.opening import check_links

__all__ = ["FLAVORS", "MAX_FILE_BYTES", "Flavor", "Rollout", "read_rollout"]

_NAME = re.compile(
    r"(?:(?P<outcome>success|failure)_)?episode_(?P<episode>\d+)"
    r"(?:_(?P<counted>success|fail)_num_(?P<number>\d+)_cost_(?P<cost>-?\d+(?:\.\d+)?))?"
)
_DIM = 7
MAX_FILE_BYTES = 2**29
_MOST_BYTES = 2 << 30  # images of one rollout, decoded; a pickle can name one image any number of times


@dataclass(frozen=True)
class Flavor:
    """Conventions of one collector's files.

    Attributes:
        name: ``simplerenv`` or ``libero``.
        pictures_after_action: Whether a step's image was taken after its action.
        gripper: Meaning of the gripper's number.
    """

    name: str
    pictures_after_action: bool
    gripper: str


FLAVORS: Mapping[str, Flavor] = {
    "simplerenv": Flavor("simplerenv", True, "1 opens, 0 closes"),
    "libero": Flavor("libero", False, "+1 closes"),
}
"""Known collectors."""


@dataclass(frozen=True, eq=False)
class Rollout:
    """One file as it is, nothing fixed.

    Attributes:
        path: The file.
        flavor: Which collector wrote it.
        prompt: The task in words.
        images: uint8 ``(T, H, W, 3)``.
        actions: float32 ``(T, 7)``.
        success: From the file's name; None where it does not tell.
        episode: Number of the initial state, from the name; 0 where it does not tell.
        number: Number of the rollout among those of its episode and outcome.
        cost_hint: Cost from the name, which collectors cut to an integer; None where there is none.
    """

    path: Path
    flavor: Flavor
    prompt: str
    images: npt.NDArray[np.uint8]
    actions: npt.NDArray[np.float32]
    success: bool | None
    episode: int
    number: int
    cost_hint: float | None

    @property
    def steps(self) -> int:
        """Number of recorded steps ``T``."""
        return len(self.actions)


def read_rollout(path: Path, flavor: str = "", within: Path | None = None) -> Rollout:
    """Read one file. Nothing in it is run: see :mod:`grape.store.grape_npy.plain_pickle`.

    Args:
        path: A ``.npy`` file.
        flavor: Which collector wrote it; empty recognizes it by name and content.
        within: The folder that a link may not lead out of; the file's own if None.

    Raises:
        DataError: The file is missing, damaged, empty, holds anything but plain data, or name and content disagree.
    """
    try:
        check_links(path, within or path.parent)
        elements = _elements(path)
        images, prompts, actions, kinds = _steps(elements)
        if not elements:
            raise DataError("It has no steps.", "Leave it out.")
    except DataError as error:
        raise DataError(f"{path}: {error.message}", error.hint) from error
    match = _NAME.fullmatch(path.name.removesuffix(".npy"))
    facts = match.groupdict() if match else {}
    if len(set(prompts)) > 1:
        raise DataError(f"{path}: its steps have {len(set(prompts))} different prompts.", "Leave it out.")
    return Rollout(
        path=path,
        flavor=FLAVORS[flavor or _recognize(path, kinds, facts)],
        prompt=prompts[0],
        images=images,
        actions=actions,
        success=_outcome(path, facts.get("outcome"), facts.get("counted")),
        episode=int(facts.get("episode") or 0),
        number=int(facts.get("number") or 0),
        cost_hint=float(facts["cost"]) if facts.get("cost") else None,
    )


def _outcome(path: Path, stated: str | None, counted: str | None) -> bool | None:
    """Success or failure from the two places of a name that may tell it; None where neither does."""
    outcomes = {word.startswith("success") for word in (stated, counted) if word}
    if len(outcomes) > 1:
        raise DataError(f"{path}: the name tells both a success and a failure.", "Rename it to what happened.")
    return outcomes.pop() if outcomes else None


def _elements(path: Path) -> list[Any]:
    try:
        with open_file(path, max_bytes=MAX_FILE_BYTES) as handle:
            check_npy_start(handle, path)
            version = npy_format.read_magic(handle)
            reader = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
            shape, _, dtype = reader(handle)
            content = handle.read()
    except (OSError, ValueError, SyntaxError, TypeError, RecursionError, MemoryError, TokenError) as error:
        raise DataError(f"It is no .npy file: {error}.", "Leave it out.") from error
    if not dtype.hasobject:
        if 0 in shape:
            return []
        raise DataError(f"It holds an array of {dtype}, not steps of a rollout.", "Leave it out.")
    document = read_plain_pickle(content)
    if not isinstance(document, Slot) or not isinstance(document.value, list):
        raise DataError("It holds no array of steps.", "Leave it out.")
    return document.value


def _steps(
    elements: list[Any],
) -> tuple[npt.NDArray[np.uint8], list[str], npt.NDArray[np.float32], set[str]]:
    images, prompts, actions, kinds = [], [], [], set()
    for index, step in enumerate(elements):
        if not isinstance(step, dict) or not {"images", "prompt", "action"} <= step.keys():
            raise DataError(f"Step {index} has no images, prompt and action.", "Leave it out.")
        image, prompt, action = step["images"], step["prompt"], step["action"]
        if not isinstance(image, Slot) or not isinstance(image.value, np.ndarray) or not isinstance(prompt, str):
            raise DataError(f"Step {index} has no image or no prompt.", "Leave it out.")
        if image.value.dtype != np.uint8 or image.value.ndim != 3 or image.value.shape[2] != 3:
            raise DataError(f"Step {index}: the image is {image.value.dtype} {image.value.shape}.", "Leave it out.")
        if not prompt.isascii() and prompt != prompt.encode(errors="replace").decode():
            raise DataError(f"Step {index}: the prompt is no valid Unicode text (a lone surrogate).", "Leave it out.")
        images.append(image.value)
        prompts.append(prompt)
        actions.append(_action(action, index))
        kinds.add(image.kind)
    if len({image.shape for image in images}) > 1:
        raise DataError("Its images are of several sizes.", "Leave it out.")
    if sum(image.nbytes for image in images) > _MOST_BYTES:
        raise DataError(f"Its images take more than {_MOST_BYTES >> 30} GiB.", "Leave it out.")
    stacked = np.stack(images) if images else np.zeros((0, 0, 0, 3), dtype=np.uint8)
    return stacked, prompts, np.array(actions, dtype=np.float32).reshape(-1, _DIM), kinds


def _action(value: Any, index: int) -> npt.NDArray[np.float32]:
    if isinstance(value, Slot):
        value = value.value
    if isinstance(value, list | tuple) and all(isinstance(number, int | float) for number in value):
        try:
            value = np.array(value, dtype=np.float64)
        except OverflowError as error:
            raise DataError(f"Step {index}: a number of the action is too large.", "Leave it out.") from error
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        raise DataError(f"Step {index}: the action is no list of numbers.", "Leave it out.")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        action = value.astype(np.float32)
    if action.shape != (_DIM,) or not np.isfinite(action).all():
        raise DataError(f"Step {index}: the action is of shape {action.shape} or not finite.", "Leave it out.")
    return action


def _recognize(path: Path, kinds: set[str], facts: Mapping[str, Any]) -> str:
    by_content = {"image": "simplerenv", "array": "libero"}
    flavors = {by_content[kind] for kind in kinds}
    if facts and facts["outcome"]:
        flavors.add("libero" if facts["cost"] is None else "simplerenv")
    if len(flavors) != 1:
        names_listed = " and ".join(sorted(flavors)) or "neither collector"
        raise DataError(
            f"{path}: name and images speak of {names_listed}.", "Say which it is: --flavour simplerenv or libero."
        )
    return flavors.pop()
