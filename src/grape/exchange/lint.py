"""``grape lint``: count known defects of foreign pair sets and rollouts; nothing is changed."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError
from grape.core.events import SILENT, Reporter
from grape.core.settings import setting
from grape.core.tasks import same_instruction
from grape.store.grape_npy import read_rollout
from grape.store.rlds import Episode, RldsDataset, open_rlds
from grape.store.rlds.images import EncodedImages
from grape.store.rlds.joining import JoinedPairs, instruction_of, join_pairs
from grape.store.rlds.standardize import RULES
from grape.store.rlds.statistics import dataset_statistics

__all__ = ["LintSettings", "run_lint"]

_WINDOW = 8


@dataclass(frozen=True)
class LintSettings:
    """Look for known defects in RLDS pair sets and rollout files of the first implementation. Changes nothing.

    Attributes:
        data: RLDS data set, or a folder of .npy rollouts. Of a pair set: the chosen side.
        rejected: The rejected side of a pair set.
    """

    data: Path = setting(common=True)
    rejected: Path | None = setting(None, common=True)


@dataclass(frozen=True)
class _Defect:
    """A known defect: its name and its consequence."""

    name: str
    meaning: str


_DEFECTS = {
    defect.name: defect
    for defect in (
        _Defect("unreadable file", "The file is damaged or holds more than data; imports leave it out."),
        _Defect("no split val", "Public loaders silently take train[:95%] and train[95%:] instead."),
        _Defect("several files a split", "OpenVLA's loader reads files in random order, which breaks pairs."),
        _Defect("name differs from the folder", "Files cannot be found by the folder's name."),
        _Defect("episode without instruction", "Published loaders leave it out."),
        _Defect("episode without or with a repeated file_path", "Pairs cannot be joined by name, only by order."),
        _Defect("gripper of the environment", "+1 closes, where training assumes 1 = open, 0 = closed."),
        _Defect("gripper between open and closed", "Published loaders round it to the next clear value."),
        _Defect("action that is not finite", "Statistics and training break."),
        _Defect("failure marked as reward 1", "The last reward of a rejected episode says success."),
        _Defect("episode shorter than a window", "The first trainer's windows of 8 steps reach into the next episode."),
        _Defect("pair of unequal lengths", "The first trainer compares windows of different tasks from there on."),
        _Defect("split on one side only", "Its episodes have no partner."),
        _Defect("pair joined by order alone", "The sides share no file_path: a missing episode would shift all pairs."),
        _Defect("episode without partner", "Joined by order, every pair after it is wrong."),
        _Defect("pair of two instructions", "The sides are out of step, or come from different exports."),
        _Defect("pair out of order", "Joined by order, it is paired with another episode's partner."),
        _Defect("pair that starts from different images", "The sides may not share an initial state."),
        _Defect("action bins that differ by side", "With statistics a side, equal actions become unequal tokens."),
        _Defect("image taken after the action", "Each action is learned from the image it led to."),
        _Defect("cost cut to an integer", "Rankings by it have ties and lose their order."),
        _Defect("no cost", "Chosen and rejected are told apart by success alone."),
    )
}


def run_lint(settings: LintSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Look for defects.

    Returns:
        Summary: ``kind``, ``episodes``, ``defects``: one entry each with ``defect``, ``count`` and ``meaning``.

    Raises:
        DataError: The folder holds neither an RLDS data set nor rollout files, or a record is damaged.
    """
    remarks: Counter[str] = Counter()
    if settings.rejected is None and next(settings.data.rglob("*.npy"), None) is not None:
        kind, episodes = "grape-npy", _lint_rollouts(settings.data, remarks, reporter)
    else:
        chosen = open_rlds(settings.data)
        kind, episodes = "rlds", _lint_dataset(chosen, remarks, failures=False)
        if settings.rejected is not None:
            rejected = open_rlds(settings.rejected)
            kind, episodes = "rlds pairs", episodes + _lint_dataset(rejected, remarks, failures=True)
            _lint_pairs(chosen, rejected, remarks)
    defects = [
        {"defect": defect.name, "count": remarks[defect.name], "meaning": defect.meaning}
        for defect in _DEFECTS.values()
        if remarks[defect.name]
    ]
    return {"kind": kind, "episodes": episodes, "defects": defects}


def _lint_dataset(dataset: RldsDataset, remarks: Counter[str], *, failures: bool) -> int:
    splits = dataset.description.splits
    remarks["no split val"] += "val" not in splits
    remarks["several files a split"] += sum(len(split.shards) > 1 for split in splits.values())
    remarks["name differs from the folder"] += dataset.description.name != dataset.path.parent.name
    names: Counter[str] = Counter()
    count = 0
    for episode in dataset.read("all"):
        count += 1
        names[episode.file_path] += 1
        _lint_episode(episode, remarks, failures=failures)
    remarks["episode without or with a repeated file_path"] += sum(
        times for name, times in names.items() if times > 1 or not name
    )
    return count


def _lint_episode(episode: Episode, remarks: Counter[str], *, failures: bool) -> None:
    actions = episode.steps["action"]
    if not isinstance(actions, np.ndarray) or actions.ndim != 2 or not actions.shape[1]:
        raise DataError(f"{episode.where}: column 'action' is no list of numbers a step.")
    texts = episode.steps["language_instruction"]
    remarks["episode without instruction"] += not (isinstance(texts, list) and any(texts))
    remarks["episode shorter than a window"] += episode.length < _WINDOW
    _lint_actions(actions, remarks)
    reward = episode.steps["reward"] if failures and "reward" in episode.steps else np.zeros(1)
    remarks["failure marked as reward 1"] += bool(isinstance(reward, np.ndarray) and reward.size and reward[-1] == 1)


def _lint_actions(actions: np.ndarray[Any, Any], remarks: Counter[str]) -> None:
    gripper = actions[:, -1]
    remarks["action that is not finite"] += int((~np.isfinite(actions)).any(axis=1).sum())
    remarks["gripper of the environment"] += bool(((gripper < 0) | (gripper > 1)).any())
    remarks["gripper between open and closed"] += int(((gripper >= 0.05) & (gripper <= 0.95)).sum())


def _lint_pairs(chosen: RldsDataset, rejected: RldsDataset, remarks: Counter[str]) -> None:
    for split in chosen.description.splits.keys() | rejected.description.splits.keys():
        counts = [side.length(split) for side in (chosen, rejected) if split in side.description.splits]
        if len(counts) < 2 or not all(counts):
            remarks["split on one side only"] += 1
            remarks["episode without partner"] += sum(counts)
            continue
        pairs = join_pairs(chosen, rejected, RULES["plain"], split=split, warn=_ignore_counted, strict=False)
        remarks["pair joined by order alone"] += len(pairs) * (pairs.joined_by == "order")
        remarks["episode without partner"] += sum(counts) - 2 * len(pairs)
        remarks["pair out of order"] += sum(link.chosen != link.rejected for link in pairs.links)
        _lint_joined(pairs, remarks)
    if remarks["action that is not finite"]:
        return  # no statistics can be computed
    rule = RULES["rlds_np_rollout"]
    sides = [dataset_statistics([(side, rule)])["action"] for side in (chosen, rejected)]
    low, high = (np.array([side[key] for side in sides])[:, :6] for key in ("q01", "q99"))
    width = (high - low).mean(axis=0) / 256
    remarks["action bins that differ by side"] += int(
        (np.maximum(np.ptp(low, axis=0), np.ptp(high, axis=0)) > width).sum()
    )


def _ignore_counted(message: str) -> None:
    """Episodes without partner and the way of joining are counted, so the warnings would only repeat them."""


def _lint_joined(pairs: JoinedPairs, remarks: Counter[str]) -> None:
    for _, *sides in pairs.episodes():
        remarks["pair of unequal lengths"] += sides[0].length != sides[1].length
        remarks["pair of two instructions"] += not same_instruction(*map(instruction_of, sides))
        if all(side.length for side in sides):
            first = [_first_image(side).astype(np.int16) for side in sides]
            same = first[0].shape == first[1].shape and float(np.abs(first[0] - first[1]).mean()) < 2.0
            remarks["pair that starts from different images"] += not same


def _first_image(episode: Episode) -> npt.NDArray[np.uint8]:
    images = episode.steps[RULES["plain"].image]
    if not isinstance(images, EncodedImages):
        raise DataError(f"{episode.where}: '{RULES['plain'].image}' holds no images.")
    return images[0]


def _lint_rollouts(folder: Path, remarks: Counter[str], reporter: Reporter) -> int:
    paths = sorted(path for path in folder.rglob("*.npy") if not path.is_dir())
    with reporter.progress("Reading rollouts", len(paths)) as progress:
        for path in paths:
            try:
                rollout = read_rollout(path, within=folder)
            except DataError as error:
                remarks["unreadable file"] += 1
                reporter.warn(error.message)
            else:
                remarks["image taken after the action"] += rollout.flavor.pictures_after_action
                remarks["cost cut to an integer"] += rollout.cost_hint is not None
                remarks["no cost"] += rollout.cost_hint is None
                remarks["episode shorter than a window"] += rollout.steps < _WINDOW
                _lint_actions(rollout.actions, remarks)
                # The environment's sign is the collector's convention, whatever values a short file happens to hold.
                outside = bool(((rollout.actions[:, -1] < 0) | (rollout.actions[:, -1] > 1)).any())
                remarks["gripper of the environment"] += rollout.flavor.gripper == "+1 closes" and not outside
            progress.advance()
    return len(paths)
