"""Description of a task for a model: the instruction, existing names and their meanings, and the first image.

It comes from a suite's task, a store of episodes, or the user's own words, names and image.
"""

import dataclasses
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grape.core.errors import CompatibilityError, DataError, GrapeError, SettingsError
from grape.core.reading import parse_yaml, read_file
from grape.core.tasks import Task
from grape.core.trajectories import Trajectory
from grape.costs import builtin_suites, image_keypoint, suite_names_of
from grape.costs.builtins import SuiteNames
from grape.envs.base import SuiteBase
from grape.envs.registry import get_suite, select_tasks
from grape.generation.generate_settings import GenerateCostsSettings
from grape.store import EpisodeStore
from grape.vlm import ChatImage

__all__ = ["MAX_INSTRUCTION", "TaskBrief", "brief_of", "plain_words"]

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
    """A task as described to a model.

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
        camera: Whether the camera is recorded, so that its frame can be referenced; None if unknown.
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
            raise SettingsError("No keypoint is known, so no cost can be written.", "Give --names or --store.")
        if len(self.keypoints) + len(self.signals) > MAX_NAMES:
            raise SettingsError(f"More than {MAX_NAMES} keypoints and signals.", "Name those that the task needs.")
        for name in (*self.keypoints, *self.signals):
            if not _NAME.fullmatch(name):
                raise SettingsError(
                    f"{plain_words(name, 60)!r} is no name.", "Letters, digits, '_', '-', '.', starting with a letter."
                )

    def as_data(self) -> dict[str, Any]:
        """The description as JSON values of visible characters."""
        data: dict[str, Any] = {"instruction": plain_words(self.instruction, MAX_INSTRUCTION)}
        data["limit"] = f"{self.limit} steps"
        data |= {"control_hz": f"{self.control_hz:g} Hz"} if self.control_hz else {}
        data["keypoints"] = {name: plain_words(meaning, MAX_MEANING) for name, meaning in self.keypoints.items()}
        data["signals"] = {name: plain_words(meaning, MAX_MEANING) for name, meaning in self.signals.items()}
        if self.numbered:
            data["numbers_on_the_picture"] = dict(self.numbered)
        return data

    def header(self) -> dict[str, Any]:
        """The part of the specification that the model does not write."""
        head: dict[str, Any] = {"version": 1}
        head |= {"suite": self.suite} if self.suite else {}
        head |= {"task": self.task} if self.task else {}
        head["limit"] = f"{self.limit} steps"
        return head | ({"control_hz": f"{self.control_hz:g} Hz"} if self.control_hz else {})


DEFAULT_LIMIT = 300


def brief_of(settings: GenerateCostsSettings) -> TaskBrief:
    """Build the description of a task.

    Raises:
        SettingsError: SuiteBase, task or names are unknown, or a needed one is not given.
        DataError: An image or a file of names cannot be read.
        CompatibilityError: The store holds no episode of the task.
        SimulatorError: The suite's image is asked for and its simulator is missing.
    """
    suite = get_suite(settings.suite) if settings.suite else None
    task = None if suite is None else _task(suite, settings.task)
    episode = _first_episode(settings, task) if settings.store else None
    names = _names(settings, episode)
    brief = TaskBrief(
        instruction=settings.instruction or ("" if task is None else task.instruction),
        limit=settings.limit or (DEFAULT_LIMIT if task is None else task.max_steps),
        keypoints=names.keypoints,
        signals=names.signals,
        camera=names.camera,
        suite="" if suite is None else suite.name,
        task="" if task is None else task.name,
        control_hz=None if suite is None else suite.action_space.control_hz,
        numbered=_numbered(names.keypoints),
    )
    return dataclasses.replace(brief, image=None if settings.no_image else _image(settings, suite, task, episode))


def _task(suite: SuiteBase, name: str) -> Task:
    tasks = select_tasks(suite, name)
    if len(tasks) != 1:
        raise SettingsError(f"--task {name!r} names {len(tasks)} tasks.", "A specification is for one.")
    return tasks[0]


def _first_episode(settings: GenerateCostsSettings, task: Task | None) -> Trajectory:
    for path in settings.store:
        store = EpisodeStore.open(path)
        for meta in store.metas():
            if task is None or meta.task == task.name:
                return store.read(meta.episode_id, frames=settings.image is None and not settings.no_image)
    of_task = f" of task '{task.name}'" if task else ""
    places = ", ".join(map(str, settings.store))
    raise CompatibilityError(f"{places}: no episode{of_task}.", "Choose stores of that task.")


def _names(settings: GenerateCostsSettings, episode: Trajectory | None) -> SuiteNames:
    """Names on offer: what is recorded, with what is known of their meaning."""
    suite_described = SuiteNames({}, {})
    if settings.suite in builtin_suites():
        suite_described = suite_names_of(settings.suite)
    if settings.names is not None:
        suite_described = _read_names(settings.names)
    if episode is None:
        if not suite_described.keypoints:
            raise SettingsError("Nothing says which keypoints are recorded.", "Give --names or --store.")
        return suite_described
    return SuiteNames(
        {name: suite_described.keypoints.get(name, "") for name in sorted(episode.keypoints)},
        {name: suite_described.signals.get(name, "") for name in sorted(episode.signals)},
        "camera" in episode.meta.extra,
    )


def _read_names(path: Path) -> SuiteNames:
    hint = 'For example "keypoints: {gripper: between the finger tips}" and "signals: {success: 1 where solved}".'
    document = parse_yaml(read_file(path), f"--names {path}", hint=hint)
    if not isinstance(document, Mapping) or not set(document) <= {"keypoints", "signals"}:
        raise DataError(f"{path} holds something other than 'keypoints' and 'signals'.", hint)
    tables: list[dict[str, str]] = []
    for part in ("keypoints", "signals"):
        table: Any = document.get(part) or {}
        if not isinstance(table, Mapping) or not all(
            isinstance(name, str) and isinstance(meaning, str | None) for name, meaning in table.items()
        ):
            raise DataError(f"{path}: '{part}' is no mapping of names to meanings.", hint)
        tables.append({name: meaning or "" for name, meaning in table.items()})
    return SuiteNames(tables[0], tables[1])


def _numbered(keypoints: Mapping[str, str]) -> dict[str, int]:
    """Points that are numbered on the image, by the names that recordings give them."""
    numbers = {name: int(match[1]) for name in keypoints if (match := re.fullmatch(r"\D+_(\d{1,4})", name))}
    return {name: number for name, number in numbers.items() if name == image_keypoint(number)}


def _image(
    settings: GenerateCostsSettings, suite: SuiteBase | None, task: Task | None, episode: Trajectory | None
) -> ChatImage | None:
    if settings.image is not None:
        return ChatImage.read(settings.image)
    if episode is not None and 0 not in episode.frames.shape:
        images = episode.frames if episode.display is None or 0 in episode.display.shape else episode.display
        return ChatImage.of(images[0])
    if suite is None or task is None:
        raise SettingsError("There is no image of the first state.", "Give --image, or --no-image to go without.")
    try:
        environment = suite.make_environment(task)
        try:
            snapshot = environment.reset(settings.initial_state)
        finally:
            environment.close()
    except GrapeError as error:
        raise type(error)(error.message, f"{error.hint} Or give --image, or --no-image to go without.") from error
    return ChatImage.of(snapshot.image if snapshot.display is None else snapshot.display)
