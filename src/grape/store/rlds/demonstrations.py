"""An RLDS data set with the interface of an episode store, for training."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.core.files import content_hash, file_hash
from grape.core.images import lanczos3
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.store.foreign import ForeignEpisodes
from grape.store.imported import ACTION_SPACE, foreign_trajectory, task_name
from grape.store.rlds.dataset import RldsDataset, open_rlds
from grape.store.rlds.standardize import Rule, StandardEpisode, rule_for, standard_episodes, standardize
from grape.store.rlds.statistics import dataset_statistics
from grape.store.source import Decisions

__all__ = ["RldsDemonstrations", "is_rlds_location"]

_SCHEME = "rlds"
_SIDE = 224


def is_rlds_location(path: Path | str) -> bool:
    """Whether a path means an RLDS data set: ``rlds:/path/name``, or with a rule ``rlds+libero:/path/name``."""
    return str(path).partition(":")[0].partition("+")[0] == _SCHEME and ":" in str(path)


class RldsDemonstrations(ForeignEpisodes):
    """Episodes of one split, readable like those of an :class:`~grape.store.EpisodeStore`.

    Images are resized to 224 x 224 as the published loader does (TensorFlow's lanczos3), except under the rule
    ``plain``, which leaves them as they are. Episodes without an instruction are left out, as there. Each step keeps
    the instruction it has, as there: an episode whose instruction changes becomes one episode for each of its
    instructions.

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

    @property
    def _part_that_is_read(self) -> str:
        return f" in split {self.split!r}"

    def read(self, episode_id: str, *, frames: bool = True, display: bool = False) -> Trajectory:
        """One episode as a trajectory: images, instruction and un-normalized actions; no robot state.

        Args:
            episode_id: Which one.
            frames: Whether to decode images; without, ``frames`` is ``(T+1, 0, 0, 3)``.
            display: Ignored: there are no images for people.

        Raises:
            DataError: There is no such episode, or the file is damaged.
        """
        return self._trajectory(episode_id, self._standard(episode_id), frames=frames)

    def decisions(self, episode_id: str) -> Decisions:
        """The decisions of an episode: labels only, since nothing was sampled. No image is decoded.

        Where ``features.json`` leaves the images' size open, the first image of the episode is.

        Raises:
            DataError: There is no such episode, or the file is damaged.
        """
        episode = self._standard(episode_id)
        part = self._trajectory(episode_id, episode, frames=False)
        height, width, channels = episode.images.shape
        if self.rule.name != "plain":
            height = width = _SIDE
        if height is None or width is None or channels is None:
            height, width, channels = episode.images[0].shape
        shape, states = (height, width, channels), part.proprio[: len(part.labels)]
        return Decisions(part.action_tokens, part.token_logps, part.labels, shape, states)

    def images(self, episode_id: str, decisions: Sequence[int], camera: str = "") -> npt.NDArray[np.uint8]:
        """Images before some decisions of an episode, in that order, uint8 ``(B, H, W, 3)``; no other is decoded.

        Raises:
            CompatibilityError: Another camera than the main one is asked for.
            DataError: There is no such episode, or the file is damaged.
        """
        if camera:
            raise CompatibilityError(
                f"{self.path} is read by rule {self.rule.name!r}, which has images of the main camera "
                f"({self.rule.image}) alone, none of {camera!r}.",
                "Use an episode store with this camera, or a policy that reads the main camera alone.",
            )
        encoded = self._standard(episode_id).images
        images = [encoded[decision] for decision in decisions]
        if len({image.shape for image in images}) > 1:
            raise DataError(f"{encoded.where}: the images of one episode are of several sizes.")
        return self._resized(np.stack(images))

    def _standard(self, episode_id: str) -> StandardEpisode:
        meta = self.meta(episode_id)
        episode = standardize(self.dataset.episode(self.split, meta.initial_state), self.rule)
        return _part(episode, *meta.extra.get("steps", (0, episode.steps)))

    def _trajectory(self, episode_id: str, episode: StandardEpisode, *, frames: bool) -> Trajectory:
        images = self._resized(episode.images.decode()) if frames else np.zeros((episode.steps, 0, 0, 3), np.uint8)
        meta = self.meta(episode_id)
        return foreign_trajectory(meta, images, episode.actions, pictures_after_action=False, reader=None)

    def _resized(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Images at the size that the rule asks for, ``(N, H, W, 3)``."""
        if self.rule.name == "plain" or images.shape[1:3] == (_SIDE, _SIDE):
            return images
        return np.stack([lanczos3(image, _SIDE, _SIDE) for image in images])

    def digest(self) -> str:
        """Hash of the data set's descriptions, rule and split, which identifies the data of a training run."""
        files = [file_hash(self.path / name) for name in ("dataset_info.json", "features.json")]
        return content_hash([*files, self.rule.name, self.split])

    def norm_stats(self) -> dict[str, Any]:
        """Statistics as the published loader computes them: over all splits, in float32."""
        return dataset_statistics([(self.dataset, self.rule)])

    @cached_property
    def _metas(self) -> dict[str, EpisodeMeta]:
        episodes = standard_episodes(self.dataset.read(self.split), self.rule)
        metas = {meta.episode_id: meta for episode in episodes for meta in _facts(episode)}
        if not metas:
            raise DataError(f"{self.path} has no episode with an instruction in split {self.split!r}.")
        return metas


def _spans(instructions: Sequence[str]) -> list[tuple[int, int]]:
    """Half-open ranges of steps with the same instruction."""
    starts = [
        step for step, instruction in enumerate(instructions) if not step or instruction != instructions[step - 1]
    ]
    return list(zip(starts, [*starts[1:], len(instructions)], strict=True))


def _part(episode: StandardEpisode, start: int, stop: int) -> StandardEpisode:
    steps = slice(start, stop)
    instructions = episode.instructions[steps]
    return dataclasses.replace(
        episode,
        instruction=instructions[0],
        instructions=instructions,
        images=episode.images.part(steps),
        actions=episode.actions[steps],
    )


def _facts(episode: StandardEpisode) -> list[EpisodeMeta]:
    """Facts of a demonstration, or of each of its parts with an instruction of its own.

    Whether a demonstration succeeded is not known: data sets do not say.
    """
    spans = _spans(episode.instructions)
    metas = []
    for number, (start, stop) in enumerate(spans):
        task = task_name(episode.instructions[start])
        part = f"-part{number:02d}" if len(spans) > 1 else ""
        extra: dict[str, Any] = {"imported_from": episode.where, "file_path": episode.file_path}
        meta = EpisodeMeta(
            episode_id=f"{task[:80]}-{episode.index:06d}{part}",
            suite="rlds",
            task=task,
            task_index=int.from_bytes(hashlib.sha256(task.encode()).digest()[:4], "big"),
            instruction=episode.instructions[start],
            initial_state=episode.index,
            sample=0,
            seed=0,
            success=None,
            steps=stop - start,
            actor="expert",
            extra=extra if not part else {**extra, "steps": [start, stop]},
        )
        metas.append(meta)
    return metas
