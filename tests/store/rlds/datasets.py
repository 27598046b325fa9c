"""Small data sets to read, written here."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from grape.store.rlds import RldsDataset, open_rlds
from grape.store.rlds.columns import pair_features
from grape.store.rlds.features import Column
from grape.store.rlds.writer import RldsWriter, shard_lengths

SIZE = (6, 8, 3)
FEATURES = pair_features(SIZE)


def make_columns(name: str, steps: int = 3, seed: int = 0, instruction: str = "open the drawer") -> dict[str, Column]:
    rng = np.random.default_rng(seed)
    count = np.arange(steps)
    return {
        "episode_metadata/file_path": [name],
        "steps/action": rng.normal(size=(steps, 7)).astype(np.float32),
        "steps/discount": np.ones(steps, np.float32),
        "steps/is_first": count == 0,
        "steps/is_last": count == steps - 1,
        "steps/is_terminal": count == steps - 1,
        "steps/language_embedding": np.zeros((steps, 512), np.float32),
        "steps/language_instruction": [instruction] * steps,
        "steps/observation/image": rng.integers(0, 256, (steps, *SIZE), dtype=np.uint8),
        "steps/reward": (count == steps - 1).astype(np.float32),
    }


def write_dataset(
    folder: Path,
    names: Mapping[str, list[str]] | None = None,
    *,
    name: str = "rlds_np_rollout",
    shards: int = 1,
    steps: int = 3,
    instruction: str = "open the drawer",
) -> RldsDataset:
    """A data set of the pair schema below ``folder``; ``names``: ``file_path`` of every episode by split."""
    parts = names or {"train": [f"e{index}" for index in range(5)], "val": ["v0"]}
    writer = RldsWriter(folder / name / "1.0.0", name, FEATURES)
    for split, files in parts.items():
        episodes = [make_columns(file, steps, seed, instruction) for seed, file in enumerate(files)]
        writer.write_split(split, episodes, shard_lengths(len(files), shards))
    writer.finish()
    return open_rlds(folder / name)


def assert_columns(episode, due: Mapping[str, Column]) -> None:
    columns = {f"steps/{path}": column for path, column in episode.steps.items()} | dict(episode.facts.items())
    assert columns.keys() == due.keys()
    for path, column in due.items():
        if isinstance(column, list):
            assert columns[path] == column, path
        else:
            value = columns[path] if isinstance(columns[path], np.ndarray) else columns[path].decode()
            assert (value.dtype, value.shape) == (column.dtype, column.shape), path
            assert value.tobytes() == column.tobytes(), path
