"""A LeRobotDataset with the interface of an episode store, for training and for the import."""

import dataclasses
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import CompatibilityError, DataError, SettingsError, require_known
from grape.core.files import content_hash
from grape.core.tasks import GripperConvention, parse_convention
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.store.foreign import ForeignEpisodes
from grape.store.frames import MAX_EPISODE_BYTES
from grape.store.imported import foreign_trajectory, task_name
from grape.store.lerobot.dataset import TOLERANCE, EpisodeNumbers, LeRobotDataset
from grape.store.lerobot.description import CameraFeature, is_lerobot_folder
from grape.store.lerobot.episode_index import EpisodeEntry
from grape.store.rlds.standardize import gripper_to_loader
from grape.store.source import Decisions

__all__ = ["SUCCESS", "LeRobotDemonstrations", "Meaning", "is_lerobot_location"]

SUITE = "lerobot"
SUCCESS = ("auto", "yes", "no", "unknown")
"""What may be stated of all episodes' success; anything else names a feature."""

_SCHEME = "lerobot"
_SUCCESS_FEATURE = "next.success"


@dataclasses.dataclass(frozen=True)
class Meaning:
    """How a data set is read: what its files do not say themselves.

    Attributes:
        cameras: Names or keys of the cameras to take, main camera first; empty takes all in the order of the file.
        gripper: What the last number of an action means; empty if unknown.
        open_gripper: Whether it becomes 1 = open, 0 = closed, whatever it was.
        success: ``"auto"`` takes what a GRAPE export noted, else the feature ``next.success`` where there is one;
            ``"yes"``, ``"no"`` and ``"unknown"`` are stated of all episodes; anything else is the name of a feature
            that is 1 or true where an episode succeeded.
        tolerance: Seconds by which times may be off.

    Raises:
        SettingsError: The gripper's convention is unknown, or is needed and missing; or the tolerance is negative.
    """

    cameras: tuple[str, ...] = ()
    gripper: str = ""
    open_gripper: bool = False
    success: str = "auto"
    tolerance: float = TOLERANCE

    def __post_init__(self) -> None:
        if self.gripper:
            parse_convention(GripperConvention, self.gripper)
        if self.open_gripper and self.gripper in ("", GripperConvention.NONE):
            raise SettingsError(
                "To turn the gripper, it must be known what its number means.",
                "Give its convention as well, e.g. '+1 closes'.",
            )
        if not 0 <= self.tolerance < np.inf:
            raise SettingsError(f"The tolerance is {self.tolerance}.", "Give seconds from 0 on.")


def is_lerobot_location(path: Path | str) -> bool:
    """Whether a path means a LeRobotDataset: its folder, ``lerobot:FOLDER``, or ``lerobot+OPTION=VALUE:FOLDER``."""
    scheme, colon, _ = str(path).partition(":")
    return bool(colon and scheme.partition("+")[0] == _SCHEME) or is_lerobot_folder(Path(path))


def parse_location(location: Path | str) -> tuple[Path, Meaning]:
    """The folder and how it is read, from what ``--data`` says.

    Raises:
        SettingsError: An option is unknown or has no sound value.
    """
    scheme, colon, place = str(location).partition(":")
    kind, _, options = scheme.partition("+")
    if not colon or kind != _SCHEME:
        return Path(location), Meaning()
    values: dict[str, Any] = {}
    for option in filter(None, re.split(r",(?=\w+=)", options)):
        name, _, value = option.partition("=")
        require_known("option of a LeRobotDataset", name, [item.name for item in dataclasses.fields(Meaning)])
        values[name] = value
    if "cameras" in values:
        values["cameras"] = tuple(filter(None, values["cameras"].split(",")))
    if "open_gripper" in values:
        require_known("value of open_gripper", values["open_gripper"], ("yes", "no"))
        values["open_gripper"] = values["open_gripper"] == "yes"
    try:
        values |= {"tolerance": float(values["tolerance"])} if "tolerance" in values else {}
    except ValueError:
        raise SettingsError(f"tolerance={values['tolerance']} is no number of seconds.", "Write e.g. 0.001.") from None
    return Path(place).expanduser(), Meaning(**values)


class LeRobotDemonstrations(ForeignEpisodes):
    """Episodes of a LeRobotDataset, readable like those of an :class:`~grape.store.EpisodeStore`.

    Images are those before each action; what followed the last action is not in the format, so the last image and the
    last state stand twice. An episode whose task changes becomes one episode for each of its tasks. Episodes without a
    task's text are left out.

    Args:
        location: The folder, also as ``lerobot:FOLDER`` or with options as ``lerobot+OPTION=VALUE,...:FOLDER``.
        meaning: How it is read, in place of options.

    Attributes:
        path: The folder.
        name: The folder's name; statistics stand under it.
        suite: ``"lerobot"``.
        meaning: How it is read.
        dataset: The data set.
        cameras: Those that are read, main camera first.
        contract: Action space, kind of robot and cameras.

    Raises:
        SettingsError: An option is unknown, or a camera or a feature is not in the data set.
        DataError: There is no data set, it is damaged, or it has no camera.
        CompatibilityError: It is of an unknown version.
    """

    suite = SUITE

    def __init__(self, location: Path | str, meaning: Meaning | None = None) -> None:
        self.path, stated = parse_location(location)
        self.meaning = meaning or stated
        self.name = self.path.resolve().name
        self.dataset = LeRobotDataset(self.path, self.meaning.tolerance)
        self.cameras = _chosen(self.dataset, self.meaning.cameras)
        self._times: dict[int, npt.NDArray[np.float64]] = {}
        self._success = _success_feature(self.dataset, self.meaning.success)
        facts = self.dataset.description
        gripper = GripperConvention.ONE_OPENS.value if self.meaning.open_gripper else self.meaning.gripper
        self.contract: Mapping[str, Any] = {
            "action_space": {
                "names": list(facts.action_names),
                "control_hz": facts.fps,
                **({"gripper": gripper} if gripper else {}),
            },
            "robot": facts.robot,
            "cameras": [camera.name for camera in self.cameras],
        }

    def __repr__(self) -> str:
        return f"LeRobotDemonstrations({str(self.path)!r})"

    def read(self, episode_id: str, *, frames: bool = True, display: bool = False) -> Trajectory:
        """One episode as a trajectory.

        Args:
            episode_id: Which one.
            frames: Whether to decode images; without, ``frames`` is ``(T+1, 0, 0, 3)``.
            display: Ignored: there are no images for people.

        Raises:
            DataError: There is no such episode, or a file is missing or damaged.
        """
        entry, numbers, rows = self._part(episode_id)
        self._check_memory(episode_id, len(rows))
        images = {
            camera.name: self.dataset.images(entry, camera, numbers.time, rows)
            if frames
            else np.zeros((len(rows), 0, 0, 3), np.uint8)
            for camera in self.cameras
        }
        return foreign_trajectory(
            self.meta(episode_id),
            images.pop(self.cameras[0].name),
            self._actions(numbers)[rows.start : rows.stop],
            pictures_after_action=False,
            reader=None,
            proprio=numbers.state[rows.start : rows.stop],
            cameras=images,
        )

    def decisions(self, episode_id: str) -> Decisions:
        """The decisions of an episode: labels only, since nothing was sampled. No image is decoded.

        Raises:
            DataError: There is no such episode, or the file is damaged.
        """
        _, numbers, rows = self._part(episode_id)
        labels = self._actions(numbers)[rows.start : rows.stop]
        shapes = {camera.name: (camera.height, camera.width, 3) for camera in self.cameras}
        return Decisions(
            tokens=np.full(labels.shape, -1, np.int32),
            logps=np.full(labels.shape, np.nan, np.float32),
            labels=labels,
            image_shape=shapes.pop(self.cameras[0].name),
            proprio=numbers.state[rows.start : rows.stop],
            camera_shapes=shapes,
        )

    def images(self, episode_id: str, decisions: Sequence[int], camera: str = "") -> npt.NDArray[np.uint8]:
        """Images before some decisions of an episode, in that order, uint8 ``(B, H, W, 3)``.

        Raises:
            CompatibilityError: There is no such camera.
            DataError: There is no such episode, or a file is missing or damaged.
        """
        chosen = next((item for item in self.cameras if item.name == camera), None) if camera else self.cameras[0]
        if chosen is None:
            raise CompatibilityError(
                f"{self.path} has no camera {camera!r}, but {', '.join(item.name for item in self.cameras)}.",
                "Use a policy that reads these cameras.",
            )
        entry, rows = self._rows(episode_id)
        return self.dataset.images(entry, chosen, self._times[entry.index], [rows[number] for number in decisions])

    def digest(self) -> str:
        """Hash of the data set and of how it is read, which identifies the data of a training run."""
        return content_hash([self.dataset.digest(), dataclasses.asdict(self.meaning)])

    def _actions(self, numbers: EpisodeNumbers) -> npt.NDArray[np.float32]:
        if self.meaning.open_gripper:
            return gripper_to_loader(numbers.actions, self.meaning.gripper)
        return numbers.actions

    def _part(self, episode_id: str) -> tuple[EpisodeEntry, EpisodeNumbers, range]:
        """Where an episode lies, the numbers of the whole recorded one, and which of its rows are meant."""
        entry, rows = self._rows(episode_id)
        return entry, self.dataset.numbers(entry), rows

    def _rows(self, episode_id: str) -> tuple[EpisodeEntry, range]:
        extra = self.meta(episode_id).extra
        entry = self.dataset.episodes[extra["episode_index"]]
        return entry, range(*extra.get("steps", (0, entry.length)))

    def _check_memory(self, episode_id: str, rows: int) -> None:
        size = rows * sum(3 * camera.height * camera.width for camera in self.cameras)
        if size > MAX_EPISODE_BYTES:
            raise DataError(
                f"Episode {episode_id} of {self.path} has {rows} images of each of {len(self.cameras)} cameras: "
                f"{size / 1e9:.1f} GB, where {MAX_EPISODE_BYTES / 1e9:.1f} GB are allowed.",
                "Choose fewer cameras.",
            )

    @cached_property
    def _metas(self) -> dict[str, EpisodeMeta]:
        self.dataset.check_files()
        samples: Counter[tuple[str, int]] = Counter()
        metas: dict[str, EpisodeMeta] = {}
        for entry in self.dataset.episodes:
            if not entry.length:
                continue
            numbers = self.dataset.numbers(entry, [self._success] if self._success else [])
            self._times[entry.index] = numbers.time
            for meta in self._facts(entry, numbers, samples):
                metas[meta.episode_id] = meta
        if not metas:
            raise DataError(f"{self.path} has no episode with a task's text.", "Write the tasks into the data set.")
        return metas

    def _facts(
        self, entry: EpisodeEntry, numbers: EpisodeNumbers, samples: Counter[tuple[str, int]]
    ) -> list[EpisodeMeta]:
        """Facts of an episode, or of each of its parts with a task of its own."""
        spans = [
            (rows[0], rows[-1] + 1, text)
            for text, group in itertools.groupby(range(entry.length), key=lambda row: numbers.tasks[row])
            for rows in [list(group)]
        ]
        outcome = self._outcome(entry, numbers)
        metas = []
        for number, (start, stop, text) in enumerate(spans):
            if not text:
                continue
            task = _noted(entry, "task", str) or task_name(text)
            state = _noted(entry, "initial_state", int)
            state = entry.index if state is None or state < 0 else state
            extra: dict[str, Any] = {"imported_from": str(entry.data.name), "episode_index": entry.index}
            if name := _noted(entry, "episode_id", str):
                extra["episode_id"] = name
            if len(spans) > 1:
                extra["steps"] = [start, stop]
            part = f"-part{number:02d}" if len(spans) > 1 else ""
            metas.append(
                EpisodeMeta(
                    episode_id=f"{task_name(text)[:80]}-{entry.index:06d}{part}",
                    suite=SUITE,
                    task=task,
                    task_index=int.from_bytes(hashlib.sha256(task.encode()).digest()[:4], "big"),
                    instruction=text,
                    initial_state=state,
                    sample=samples[task, state],
                    seed=0,
                    success=outcome if stop == entry.length else None,  # of earlier parts nothing is known
                    steps=stop - start,
                    actor="expert",
                    extra=extra,
                )
            )
            samples[task, state] += 1
        return metas

    def _outcome(self, entry: EpisodeEntry, numbers: EpisodeNumbers) -> bool | None:
        choice = self.meaning.success
        if choice in ("yes", "no"):
            return choice == "yes"
        if choice == "auto" and "success" in entry.facts:
            noted: bool | None = _noted(entry, "success", bool)
            return noted
        if not self._success:
            return None
        values = numbers.further[self._success]
        if not np.isin(values, (0, 1)).all():
            raise DataError(
                f"{entry.data}, episode {entry.index}: feature {self._success!r} holds other numbers than 0 and 1.",
                "Name another feature, or say yes, no or unknown.",
            )
        return bool(values.any())


def _noted(entry: EpisodeEntry, name: str, kind: type) -> Any:
    """What a GRAPE export noted of an episode; None where it did not, or not so."""
    value = entry.facts.get(name)
    return value if type(value) is kind else None


def _chosen(dataset: LeRobotDataset, names: Sequence[str]) -> tuple[CameraFeature, ...]:
    """The cameras with these names or keys in their order, or all."""
    cameras = dataset.description.cameras
    if not cameras:
        other = f" but {', '.join(dataset.description.left_out)}" if dataset.description.left_out else ""
        raise DataError(f"{dataset.description.path} has no feature with RGB images{other}.", "Policies need images.")
    known = {camera.name: camera for camera in cameras} | {camera.key: camera for camera in cameras}
    for name in names:
        if name not in known:
            require_known(f"camera of {dataset.folder}", name, [camera.name for camera in cameras])
    chosen = tuple(known[name] for name in names) or cameras
    if len(set(chosen)) < len(chosen):
        raise SettingsError(f"A camera is named twice: {', '.join(names)}.", "Name each once.")
    return chosen


def _success_feature(dataset: LeRobotDataset, choice: str) -> str:
    """Name of the feature that tells success; empty for none."""
    widths = dataset.description.widths
    if choice in SUCCESS:
        return _SUCCESS_FEATURE if choice == "auto" and widths.get(_SUCCESS_FEATURE) == 1 else ""
    if widths.get(choice) != 1:
        raise SettingsError(
            f"{dataset.folder} has no feature {choice!r} with one number a row.",
            f"Say {', '.join(SUCCESS)}, or name one of: {', '.join(name for name in widths if widths[name] == 1)}.",
        )
    return choice
