"""A store and a folder of pairs, as ``grape collect`` and ``grape pair`` leave them."""

from pathlib import Path

import numpy as np

from grape.core.files import write_jsonl
from grape.core.preferences import PreferencePair
from grape.core.runs import open_run
from grape.preferences.records import pair_to_row
from grape.store import EpisodeStore
from tests.store.episodes import make_episode

CONTRACT = {"action_space": {"gripper": "+1 closes", "names": ["dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"]}}


def make_recordings(root: Path, states: int = 4, size: tuple[int, int] = (8, 12)) -> tuple[EpisodeStore, Path]:
    """Store and pairs folder below ``root``: per state one success of 3 + state steps and one failure of 6."""
    store = EpisodeStore.create(root / "store", "toy", CONTRACT)
    pairs = []
    for state in range(states):
        names = {}
        for sample, success in enumerate((True, False)):
            name = f"drawer-open-{state:04d}-{sample:02d}"
            names[success] = name
            store.write(
                make_episode(
                    name, 3 + state if success else 6, size, seed=10 * state + sample, initial_state=state,
                    sample=sample, success=success, instruction="öffne the drawer",
                )
            )  # fmt: skip
        pairs.append(
            PreferencePair(f"p{state}", "drawer-open", state, names[True], names[False], 1.0, "best-worst", "Solved.")
        )
    folder = root / "pairs"
    run = open_run(folder, "pair", {"made": "by hand"})
    write_jsonl(folder / "pairs.jsonl", map(pair_to_row, pairs))
    run.finish({"pairs": len(pairs), "store": "../store"})
    return store, folder


def loader_actions(actions: np.ndarray) -> np.ndarray:
    """Actions of the suite with the gripper in the loaders' convention, computed another way than the export does."""
    result = actions.astype(np.float64)
    result[:, 6] = np.clip((1 - result[:, 6]) / 2, 0, 1)
    return result
