"""Preference pairs as two RLDS data sets whose episodes correspond one to one.

The first public loader pairs by position, so both sides are written in one go: the same keys in the same order, the
same splits, shards of equal lengths. The pair's id stands in ``episode_metadata/file_path`` on both sides, so that
readers need not rely on positions (see :mod:`grape.store.rlds.joining`). Both sides are read back and compared before
they are published.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grape.core.errors import CompatibilityError, DataError
from grape.core.events import Progress
from grape.core.files import write_json
from grape.core.preferences import PreferencePair
from grape.core.trajectories import Trajectory
from grape.mapping import Mapper
from grape.store import EpisodeStore, OpenedStores
from grape.store.rlds.columns import pair_features, to_columns
from grape.store.rlds.dataset import open_rlds
from grape.store.rlds.features import Column, FeatureTree
from grape.store.rlds.shared_work import ExportedEpisode, compare_shared, write_shared
from grape.store.rlds.standardize import RULES
from grape.store.rlds.statistics import dataset_statistics
from grape.store.rlds.writer import VERSION, RldsWriter, TrainValSplit

__all__ = ["PAIR_DATASET", "SIDES", "check_pairs", "write_pairs"]

PAIR_DATASET = "rlds_np_rollout"
"""Name under which the first public loader knows pair sets."""

SIDES = ("chosen", "rejected")

_DIM = 7


def write_pairs(
    folder: Path,
    store: EpisodeStore,
    pairs: Sequence[PreferencePair],
    *,
    gripper: str,
    division: TrainValSplit,
    mapper: Mapper,
    progress: Progress,
) -> dict[str, Any]:
    """Write both sides of all pairs below ``folder``, read them back and compare.

    Args:
        folder: Where ``chosen/`` and ``rejected/`` are made; should not carry its final name yet.
        store: Where the episodes are.
        pairs: In the order of the export.
        gripper: The suite's gripper convention.
        division: Into splits and files; readers of pairs need both splits.
        mapper: Where episodes are encoded and compared.
        progress: Advanced once an episode written and once an episode compared.

    Returns:
        Facts of the export: numbers of pairs and steps, shard lengths.

    Raises:
        DataError: An episode is missing, damaged or does not belong to its pair, or the data came back altered.
        CompatibilityError: Actions are not 7-dimensional, or images of several sizes.
        OSError: The disk is full or the folder cannot be written.
    """
    check_pairs(store, pairs)
    states = [(pair.task, pair.initial_state) for pair in pairs]
    parts = division.splits(pairs, states)
    lengths = division.lengths(parts)
    features, steps = _features(store, pairs), {}
    read_columns = _PairColumns(features, gripper)
    for side in SIDES:
        place = folder / side / PAIR_DATASET / VERSION
        writer = RldsWriter(place, PAIR_DATASET, features, f"{side.capitalize()} trajectories of preference pairs.")
        episodes = {split: _episodes(store, part, side) for split, part in parts.items()}
        for split, exported in episodes.items():
            write_shared(writer, split, exported, lengths[split], read_columns, mapper, progress)
        writer.finish()
        for split, exported in episodes.items():
            compare_shared(place, split, exported, read_columns, mapper, progress)
        steps[side] = sum(store.meta(getattr(pair, side)).steps for pair in pairs)
    rule = RULES[PAIR_DATASET]
    sides = [(open_rlds(folder / side / PAIR_DATASET), rule) for side in SIDES]
    write_json(folder / "dataset_statistics.json", {PAIR_DATASET: dataset_statistics(sides)})
    return {
        "pairs": len(pairs),
        "splits": {split: {"pairs": len(part), "shard_lengths": lengths[split]} for split, part in parts.items()},
        "steps": steps,
    }


def _episodes(store: EpisodeStore, pairs: Sequence[PreferencePair], side: str) -> list[ExportedEpisode]:
    names = [(getattr(pair, side), pair) for pair in pairs]
    return [ExportedEpisode(store.part_of(name).path, name, pair.pair_id, pair.task) for name, pair in names]


@dataclass(frozen=True)
class _PairColumns:
    features: FeatureTree
    gripper: str
    stores: OpenedStores = field(default_factory=OpenedStores)

    def __call__(self, episode: ExportedEpisode) -> Mapping[str, Column]:
        trajectory = self.stores.read(episode.store, episode.episode_id)
        _check_shape(trajectory, self.features)
        return to_columns(
            trajectory, self.features, file_path=episode.file_path, gripper=self.gripper, actions="executed"
        )


def _features(store: EpisodeStore, pairs: Sequence[PreferencePair]) -> FeatureTree:
    first = store.read(pairs[0].chosen)
    if first.actions.shape[1] != _DIM:
        raise CompatibilityError(
            f"Actions have {first.actions.shape[1]} dimensions; the schema of pair sets has {_DIM}.",
            "Export the collection as one flat data set instead.",
        )
    return pair_features(_image_shape(first), _rotation(store))


def _rotation(store: EpisodeStore) -> str:
    space = store.contract.get("action_space")
    return str(space.get("rotation", "")) if isinstance(space, Mapping) else ""


def _image_shape(trajectory: Trajectory) -> tuple[int, int, int]:
    _, height, width, channels = trajectory.frames.shape
    return height, width, channels


def _check_shape(trajectory: Trajectory, features: FeatureTree) -> None:
    feature = features.steps["observation/image"]
    if _image_shape(trajectory) != getattr(feature, "shape", None):
        raise CompatibilityError(
            f"Episode {trajectory.meta.episode_id} has images of {_image_shape(trajectory)[:2]} pixels, others "
            "differ; one data set holds one size.",
            "Export the sizes separately.",
        )


def check_pairs(store: EpisodeStore, pairs: Sequence[PreferencePair]) -> None:
    """Refuse pairs whose sides are not there, are empty, or began from different states.

    Raises:
        DataError: There is such a pair.
    """
    for pair in pairs:
        for side in SIDES:
            meta = store.meta(getattr(pair, side))
            if (meta.task, meta.initial_state) != (pair.task, pair.initial_state):
                raise DataError(
                    f"Pair {pair.pair_id}: its {side} episode {meta.episode_id} starts from {meta.task}, state "
                    f"{meta.initial_state}, not from {pair.task}, state {pair.initial_state}.",
                    "The pairs were made from another store: run 'grape pair' again.",
                )
            if not meta.steps:
                raise DataError(f"Pair {pair.pair_id}: its {side} episode {meta.episode_id} has no decisions.")
