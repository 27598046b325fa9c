"""Records what the tests of LIBERO's cost specifications look at: ``python -m tests.costs.record_libero``.

For every task with a scripted expert: clean and sloppy episodes from the same initial states, keypoints and signals
only, in tenths of a millimeter and thousandths. Tasks that are recorded already are left alone.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from grape.core.tasks import Task
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.envs.libero.experts.scripts import UNSOLVED
from grape.envs.libero.suite import LiberoSuite
from grape.envs.registry import select_tasks
from tests.costs.expert_recordings import record

FOLDER = Path(__file__).parent / "libero"
SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10")
INITIAL_STATES = (1, 6)
OPERATORS = (("clean", 1), ("noisy", 1), ("sloppy", 2))

_LENGTH, _SIGNAL = 1e4, 1e3


def path_of(task: Task) -> Path:
    return FOLDER / f"{task.suite}-{task.index}.npz"


def write(path: Path, episodes: list[Trajectory]) -> None:
    arrays: dict[str, np.ndarray] = {}
    for number, episode in enumerate(episodes):
        meta = episode.meta
        facts = {"initial_state": meta.initial_state, "sample": meta.sample, "operator": meta.operator}
        names = {"keypoints": sorted(episode.keypoints), "signals": sorted(episode.signals)}
        arrays[f"{number}.meta"] = np.array(json.dumps({**facts, **names, "success": bool(meta.success)}))
        points = np.stack([episode.keypoints[name] for name in names["keypoints"]], axis=1)
        values = np.stack([episode.signals[name] for name in names["signals"]], axis=1)
        arrays[f"{number}.keypoints"] = np.rint(points * _LENGTH).astype(np.int16)
        arrays[f"{number}.signals"] = np.rint(values * _SIGNAL).astype(np.int16)
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, **arrays)


def read(task: Task, path: Path | None = None) -> list[Trajectory]:
    episodes = []
    with np.load(path or path_of(task), allow_pickle=False) as arrays:
        for number in range(len(arrays.files) // 3):
            facts = json.loads(str(arrays[f"{number}.meta"]))
            points = arrays[f"{number}.keypoints"].astype(np.float32) / np.float32(_LENGTH)
            values = arrays[f"{number}.signals"].astype(np.float32) / np.float32(_SIGNAL)
            steps = len(points) - 1
            meta = EpisodeMeta(
                episode_id=f"{task.name}-{facts['initial_state']}-{facts['operator']}-{facts['sample']}",
                suite=task.suite,
                task=task.name,
                task_index=task.index,
                instruction=task.instruction,
                initial_state=facts["initial_state"],
                sample=facts["sample"],
                seed=0,
                success=facts["success"],
                steps=steps,
                actor="expert",
                operator=facts["operator"],
            )
            episodes.append(
                Trajectory(
                    meta=meta,
                    frames=np.zeros((steps + 1, 0, 0, 3), dtype=np.uint8),
                    proprio=np.zeros((steps + 1, 1), dtype=np.float32),
                    actions=np.zeros((steps, 7), dtype=np.float32),
                    labels=np.zeros((steps, 7), dtype=np.float32),
                    action_tokens=np.full((steps, 7), -1, dtype=np.int32),
                    token_logps=np.full((steps, 7), np.nan, dtype=np.float32),
                    keypoints={name: points[:, column] for column, name in enumerate(facts["keypoints"])},
                    signals={name: values[:, column] for column, name in enumerate(facts["signals"])},
                )
            )
    return episodes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suites", default=",".join(SUITES))
    parser.add_argument("--tasks", default="", help="by index or name, as for grape collect")
    chosen = parser.parse_args()
    for name in chosen.suites.split(","):
        suite = LiberoSuite(name, images=False)
        for task in select_tasks(suite, chosen.tasks):
            if task.name in UNSOLVED or path_of(task).exists():
                continue
            environment = suite.make_environment(task)
            episodes = [
                record(suite, task, environment, operator, state, sample)
                for state in INITIAL_STATES
                for operator, samples in OPERATORS
                for sample in range(samples)
            ]
            write(path_of(task), episodes)
            print(task.id, [(one.meta.operator, one.meta.success, one.steps) for one in episodes], flush=True)


if __name__ == "__main__":
    main()
