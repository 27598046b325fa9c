"""Episodes of scripted experts with keypoints and signals, for `generated_costs.py`; kept in stores once played."""

from pathlib import Path

import numpy as np

from grape.core.tasks import Task
from grape.core.trajectories import Trajectory
from grape.envs.registry import get_suite
from grape.store import EpisodeStore
from tests.costs.expert_recordings import record
from tests.costs.record_libero import read as read_libero

TASKS = (
    ("metaworld", "button-press"),
    ("metaworld", "door-open"),
    ("metaworld", "drawer-open"),
    ("metaworld", "faucet-open"),
    ("metaworld", "pick-place"),
    ("metaworld", "push"),
    ("libero_spatial", 0),
    ("libero_object", 7),
    ("libero_goal", 0),
    ("libero_10", 0),
)
"""Suite, and name or index."""

OPERATORS = (("clean", 1), ("noisy", 3), ("sloppy", 4))


def store_of(task: Task, work: Path) -> EpisodeStore:
    return EpisodeStore.create(work / "stores" / f"{task.suite}-{task.index}", task.suite, {"pictures": "none"})


def episodes_of(task: Task, work: Path, initial_states: range) -> list[Trajectory]:
    """Episodes in the order of their ids, played where they are not in the store yet."""
    store = store_of(task, work)
    there = {meta.episode_id for meta in store.metas()}
    if task.suite != "metaworld":
        episodes = read_libero(task)
        for episode in episodes:
            if episode.meta.episode_id not in there:
                store.write(episode)
        return sorted(episodes, key=lambda one: one.meta.episode_id)
    from grape.envs.metaworld import camera

    # Images take most of the time and are not looked at here.
    blank = np.zeros((camera.DISPLAY_SIZE, camera.DISPLAY_SIZE, 3), dtype=np.uint8)
    camera.SceneCamera.image = lambda self, data: blank  # type: ignore[method-assign]
    suite, environment = get_suite("metaworld"), None
    for state in initial_states:
        for operator, samples in OPERATORS:
            for sample in range(samples):
                if f"{task.name}-{state}-{operator}-{sample}" not in there:
                    environment = environment or suite.make_environment(task)
                    store.write(record(suite, task, environment, operator, state, sample))
    states = set(initial_states)
    ids = sorted(meta.episode_id for meta in store.metas() if meta.initial_state in states)
    return [store.read(episode_id, frames=False) for episode_id in ids]
