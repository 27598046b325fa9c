"""A whole collection as one flat RLDS data set, for supervised fine-tuning in other software."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grape.core.errors import CompatibilityError
from grape.core.events import Progress
from grape.core.files import write_json
from grape.core.trajectories import EpisodeMeta
from grape.mapping import Mapper
from grape.store import EpisodeStore, OpenedStores
from grape.store.rlds.columns import ActionSource, ImageEncoding, flat_features, to_columns
from grape.store.rlds.dataset import open_rlds
from grape.store.rlds.features import Column, FeatureTree
from grape.store.rlds.shared_work import ExportedEpisode, compare_shared, write_shared
from grape.store.rlds.standardize import RULES
from grape.store.rlds.statistics import dataset_statistics
from grape.store.rlds.writer import VERSION, RldsWriter, TrainValSplit

__all__ = ["write_collection"]


def write_collection(
    folder: Path,
    store: EpisodeStore,
    metas: Sequence[EpisodeMeta],
    *,
    name: str,
    gripper: str,
    actions: ActionSource,
    encoding: ImageEncoding,
    division: TrainValSplit,
    mapper: Mapper,
    progress: Progress,
) -> dict[str, Any]:
    """Write episodes as ``folder/NAME/1.0.0`` with statistics beside them, read them back and compare.

    Args:
        folder: Where it is made; should not carry its final name yet.
        store: Where the episodes are.
        metas: Which of them, in the order of the export; at least one.
        name: Name of the data set.
        gripper: The suite's gripper convention.
        actions: Executed actions, or what an imitator should learn.
        encoding: How images are stored.
        division: Into splits and files.
        mapper: Where episodes are encoded and compared.
        progress: Advanced once an episode written and once an episode compared.

    Returns:
        Facts of the export: numbers of episodes and steps, shard lengths.

    Raises:
        DataError: An episode is damaged, or the data came back altered.
        CompatibilityError: Episodes differ in the size of images, state or actions.
        OSError: The disk is full or the folder cannot be written.
    """
    states = [(meta.task, meta.initial_state) for meta in metas]
    parts = division.splits(metas, states)
    lengths = division.lengths(parts)
    first = store.read(metas[0].episode_id)
    _, height, width, channels = first.frames.shape
    features = flat_features(
        (height, width, channels),
        first.proprio.shape[1],
        first.actions.shape[1],
        encoding,
        outcomes_known=all(meta.success is not None for meta in metas),
    )

    episodes = {
        split: [
            ExportedEpisode(store.part_of(meta.episode_id).path, meta.episode_id, meta.episode_id, meta.task)
            for meta in part
        ]
        for split, part in parts.items()
    }
    read_columns = _CollectionColumns(features, gripper, actions)
    place = folder / name / VERSION
    writer = RldsWriter(place, name, features, f"Episodes collected in the suite {store.suite}.")
    for split, part in episodes.items():
        write_shared(writer, split, part, lengths[split], read_columns, mapper, progress)
    writer.finish()
    for split, part in episodes.items():
        compare_shared(place, split, part, read_columns, mapper, progress)
    if first.actions.shape[1] == 7:  # the rules know 7-D actions only
        write_json(place / "dataset_statistics.json", {name: dataset_statistics([(open_rlds(place), RULES["plain"])])})
    return {
        "episodes": len(metas),
        "successes": sum(meta.success is True for meta in metas),
        "splits": {split: {"episodes": len(part), "shard_lengths": lengths[split]} for split, part in parts.items()},
        "steps": sum(meta.steps for meta in metas),
    }


@dataclass(frozen=True)
class _CollectionColumns:
    features: FeatureTree
    gripper: str
    actions: ActionSource
    stores: OpenedStores = field(default_factory=OpenedStores)

    def __call__(self, episode: ExportedEpisode) -> Mapping[str, Column]:
        trajectory = self.stores.read(episode.store, episode.episode_id)
        columns = to_columns(
            trajectory, self.features, file_path=episode.file_path, gripper=self.gripper, actions=self.actions
        )
        shapes = {
            "action": trajectory.actions.shape[1:],
            "observation/image": trajectory.frames.shape[1:],
            "observation/state": trajectory.proprio.shape[1:],
        }
        for path, shape in shapes.items():
            expected = getattr(self.features.steps.get(path), "shape", (0,))
            if shape != expected:
                raise CompatibilityError(
                    f"Episode {episode.episode_id}: '{path}' is of shape {shape}, in the first episode {expected}.",
                    "One data set holds one shape: export the kinds separately.",
                )
        return columns
