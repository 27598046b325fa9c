"""What a model is told of one task: the instruction, which names exist and what they mean, and the first image."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from grape.core.errors import SettingsError
from grape.vlm import ChatImage

__all__ = ["MAX_INSTRUCTION", "TaskBrief", "plain_words"]

MAX_INSTRUCTION = 1000
MAX_MEANING = 200
MAX_NAMES = 64

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}", re.ASCII)


def plain_words(text: str, most: int) -> str:
    """One line of visible characters: no control characters, no marks that hide or turn round what is written.

    Args:
        text: From whoever.
        most: Longest result; what is longer is cut.
    """
    visible = "".join(
        character if unicodedata.category(character)[0] != "C" else " "
        for character in unicodedata.normalize("NFC", text)
    )
    line = " ".join(visible.split())
    return line if len(line) <= most else line[: most - 3].rstrip() + "..."


@dataclass(frozen=True)
class TaskBrief:
    """A task as a model gets to know it.

    Attributes:
        instruction: What the robot should do.
        limit: Decisions after which an episode ends.
        keypoints: Names that are recorded, and what they mark.
        signals: Likewise.
        suite: Suite of the task; may be empty.
        task: Its name; may be empty.
        control_hz: Decisions a second; None if unknown.
        image: The first state; None to go by words alone.
        numbered: Keypoints that are points numbered on the image, and their numbers.
        camera: Whether the camera is recorded, so that its frame can be spoken of; None if unknown.
    """

    instruction: str
    limit: int
    keypoints: Mapping[str, str]
    signals: Mapping[str, str]
    suite: str = ""
    task: str = ""
    control_hz: float | None = None
    image: ChatImage | None = None
    numbered: Mapping[str, int] = field(default_factory=dict)
    camera: bool | None = None

    def __post_init__(self) -> None:
        if not plain_words(self.instruction, MAX_INSTRUCTION):
            raise SettingsError("The instruction is empty.", "Say what the robot should do.")
        if len(self.instruction) > MAX_INSTRUCTION:
            raise SettingsError(f"The instruction has more than {MAX_INSTRUCTION} characters.", "Make it shorter.")
        if not self.keypoints:
            raise SettingsError("No keypoint is known, so there is nothing to speak of.", "Give --names or --store.")
        if len(self.keypoints) + len(self.signals) > MAX_NAMES:
            raise SettingsError(f"More than {MAX_NAMES} keypoints and signals.", "Name those that the task needs.")
        for name in (*self.keypoints, *self.signals):
            if not _NAME.fullmatch(name):
                raise SettingsError(
                    f"{plain_words(name, 60)!r} is no name.", "Letters, digits, '_', '-', '.', starting with a letter."
                )

    def as_data(self) -> dict[str, Any]:
        """What the model is told, as JSON values of visible words."""
        data: dict[str, Any] = {"instruction": plain_words(self.instruction, MAX_INSTRUCTION)}
        data["limit"] = f"{self.limit} steps"
        data |= {"control_hz": f"{self.control_hz:g} Hz"} if self.control_hz else {}
        data["keypoints"] = {name: plain_words(meaning, MAX_MEANING) for name, meaning in self.keypoints.items()}
        data["signals"] = {name: plain_words(meaning, MAX_MEANING) for name, meaning in self.signals.items()}
        if self.numbered:
            data["numbers_on_the_picture"] = dict(self.numbered)
        return data

    def header(self) -> dict[str, Any]:
        """The part of the specification that the model has no say in."""
        head: dict[str, Any] = {"version": 1}
        head |= {"suite": self.suite} if self.suite else {}
        head |= {"task": self.task} if self.task else {}
        head["limit"] = f"{self.limit} steps"
        return head | ({"control_hz": f"{self.control_hz:g} Hz"} if self.control_hz else {})
