"""Episodes as files, for programs in other interpreters.

An episode is a folder with one ``.npy`` file of images a camera, uint8 ``(N+1, H, W, 3)``, and ``arrays.npz`` with
everything else that is recorded by control step. The simulator's verdict is in none of them.
"""

import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from grape.core.trajectories import Trajectory

__all__ = ["EpisodeFiles"]

MAIN_CAMERA = "main"
"""What the camera of ``Trajectory.frames`` is called in messages."""

_MOST_EPISODES = 8  # of some 20 MB each


class EpisodeFiles:
    """Folders of the episodes that were described last.

    Args:
        folder: Where they are made; who gives it removes it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._described: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._count = 0

    def describe(self, trajectory: Trajectory) -> dict[str, Any]:
        """Write an episode's files; returns what a message says of it, with their absolute paths.

        The files stay until seven more episodes have been described.
        """
        meta = trajectory.meta
        if meta.episode_id in self._described:
            self._described.move_to_end(meta.episode_id)
            return self._described[meta.episode_id]
        folder = self._folder / f"{self._count:06d}"
        self._count += 1
        folder.mkdir()
        cameras = {}
        for number, (name, images) in enumerate([(MAIN_CAMERA, trajectory.frames), *trajectory.cameras.items()]):
            # A camera's name may hold what no file name does.
            path = folder / f"camera-{number}.npy"
            np.save(path, images, allow_pickle=False)
            cameras[name] = str(path)
        arrays = {"actions": trajectory.actions, "proprio": trajectory.proprio}
        arrays |= {f"keypoint/{name}": value for name, value in trajectory.keypoints.items()}
        arrays |= {f"signal/{name}": value for name, value in trajectory.signals.items() if name != "success"}
        np.savez(folder / "arrays.npz", allow_pickle=False, **arrays)
        starts = range(trajectory.steps) if trajectory.chunks is None else trajectory.chunks.starts.tolist()
        description = {
            "episode_id": meta.episode_id,
            "suite": meta.suite,
            "task": meta.task,
            "instruction": meta.instruction,
            "initial_state": meta.initial_state,
            "control_steps": trajectory.steps,
            "decision_starts": list(starts),
            "cameras": cameras,
            "arrays": str(folder / "arrays.npz"),
        }
        self._described[meta.episode_id] = description
        while len(self._described) > _MOST_EPISODES:
            _, oldest = self._described.popitem(last=False)
            shutil.rmtree(Path(oldest["arrays"]).parent, ignore_errors=True)
        return description
