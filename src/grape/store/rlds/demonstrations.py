"""An RLDS data set in the place of an episode store, so that training reads both by the same road."""

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from grape.core.errors import DataError, SettingsError
from grape.core.files import content_hash, file_hash
from grape.core.pictures import lanczos3
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.store.foreign import ACTION_SPACE, foreign_trajectory, task_name
from grape.store.rlds.dataset import RldsDataset, open_rlds
from grape.store.rlds.standardise import Rule, StandardEpisode, rule_for, standard_episodes, standardise
from grape.store.rlds.statistics import dataset_statistics

__all__ = ["RldsDemonstrations", "is_rlds_location"]

_SCHEME = "rlds"
_SIDE = 224


def is_rlds_location(path: Path | str) -> bool:
    """Whether a path means an RLDS data set: ``rlds:/path/name``, or with a rule ``rlds+libero:/path/name``."""
    return str(path).partition(":")[0].partition("+")[0] == _SCHEME and ":" in str(path)


class RldsDemonstrations:
    """Episodes of one split, readable like those of an :class:`~grape.store.EpisodeStore`.

    Pictures are resized to 224 x 224 as the published loader does (TensorFlow's lanczos3), except under the rule
    ``plain``, which leaves them as they are. Episodes without an instruction are left out, as there.

    Args:
        location: ``rlds:/path/name``, with a rule ``rlds+RULE:/path/name``.
        split: Which part.

    Attributes:
        path: The data set's version folder.
        name: The data set's name, which is that of its folder; its statistics stand under it.
        suite: ``"rlds"``.
        contract: The action space, whose gripper is 1 = open and 0 = closed.
        dataset: The data set.
        rule: How it is read.

    Raises:
        SettingsError: The location is none, or no rule is known for the data set.
        DataError: There is no data set.
    """

    suite = "rlds"

    def __init__(self, location: Path | str, split: str = "train") -> None:
        scheme, colon, place = str(location).partition(":")
        kind, _, rule = scheme.partition("+")
        if kind != _SCHEME or not colon or not place:
            raise SettingsError(f"{location} is no RLDS location.", "Write rlds:/path/name or rlds+RULE:/path/name.")
        self.dataset: RldsDataset = open_rlds(Path(place).expanduser())
        self.rule: Rule = rule_for(self.dataset, rule)
        self.path = self.dataset.path
        self.name = self.path.parent.name
        self.split = split
        self.contract: Mapping[str, Any] = {"action_space": ACTION_SPACE, "rule": self.rule.name}

    def __repr__(self) -> str:
        return f"RldsDemonstrations({str(self.path)!r}, rule={self.rule.name!r}, split={self.split!r})"

    def __len__(self) -> int:
        return len(self.ids())

    def __contains__(self, episode_id: object) -> bool:
        return episode_id in self._metas

    def ids(self) -> tuple[str, ...]:
        """Ids of all episodes, in the order of the files."""
        return tuple(self._metas)

    def metas(self) -> tuple[EpisodeMeta, ...]:
        """Facts of all episodes. The first call reads the data set once; pictures stay encoded.

        Raises:
            DataError: A file is damaged, or the split is empty.
        """
        return tuple(self._metas.values())

    def meta(self, episode_id: str) -> EpisodeMeta:
        """Facts of one episode.

        Raises:
            DataError: There is no such episode.
        """
        if episode_id not in self._metas:
            raise DataError(f"{self.path} has no episode {episode_id!r} in split {self.split!r}.")
        return self._metas[episode_id]

    def read(self, episode_id: str, *, frames: bool = True, display: bool = False) -> Trajectory:
        """One episode as a trajectory: pictures, instruction and un-normalised actions; no robot state.

        Args:
            episode_id: Which one.
            frames: Whether to decode pictures; without, ``frames`` is ``(T+1, 0, 0, 3)``.
            display: Ignored: there are no pictures for people.

        Raises:
            DataError: There is no such episode, or the file is damaged.
        """
        meta = self.meta(episode_id)
        episode = standardise(self.dataset.episode(self.split, meta.initial_state), self.rule)
        pictures = np.zeros((episode.steps, 0, 0, 3), dtype=np.uint8)
        if frames:
            pictures = episode.pictures.decode()
            if self.rule.name != "plain" and pictures.shape[1:3] != (_SIDE, _SIDE):
                pictures = np.stack([lanczos3(picture, _SIDE, _SIDE) for picture in pictures])
        return foreign_trajectory(meta, pictures, episode.actions, pictures_after_action=False, reader=None)

    def digest(self) -> str:
        """Hash of the data set's descriptions, rule and split: what a training run belongs to."""
        files = [file_hash(self.path / name) for name in ("dataset_info.json", "features.json")]
        return content_hash([*files, self.rule.name, self.split])

    def norm_stats(self) -> dict[str, Any]:
        """Statistics as the published loader computes them: over all splits, in float32."""
        return dataset_statistics([(self.dataset, self.rule)])

    @cached_property
    def _metas(self) -> dict[str, EpisodeMeta]:
        found = {
            meta.episode_id: meta for meta in map(_facts, standard_episodes(self.dataset.read(self.split), self.rule))
        }
        if not found:
            raise DataError(f"{self.path} has no episode with an instruction in split {self.split!r}.")
        return found


def _facts(episode: StandardEpisode) -> EpisodeMeta:
    """Facts of a demonstration. What is not known stands for the usual: a success, an initial state of its own."""
    task = task_name(episode.instruction)
    return EpisodeMeta(
        episode_id=f"{task[:80]}-{episode.index:06d}",
        suite="rlds",
        task=task,
        task_index=int.from_bytes(hashlib.sha256(task.encode()).digest()[:4], "big"),
        instruction=episode.instruction,
        initial_state=episode.index,
        sample=0,
        seed=0,
        success=True,
        steps=episode.steps,
        actor="expert",
        extra={"imported_from": episode.where, "file_path": episode.file_path},
    )
