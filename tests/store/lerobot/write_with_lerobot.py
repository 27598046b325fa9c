"""Write two small data sets with real LeRobot. Runs in the environment of `make test-lerobot`.

Usage: write_with_lerobot.py OUT. OUT/videos and OUT/images are written; the test knows their content from here.
"""

import sys
import types
from pathlib import Path

import numpy as np

FPS = 10
SIZE = (64, 96)
LENGTHS = (7, 25, 4)
TASKS = ("open the drawer", "Öffne die Lade", "open the drawer")
NAMES = ["dx", "dy", "gripper"]
CAMERAS = ("observation.images.front", "observation.images.wrist")


def action(episode: int, row: int) -> np.ndarray:
    return np.array([episode + row / 100, -row / 7, (-1) ** row], np.float32)


def state(episode: int, row: int) -> np.ndarray:
    return np.array([episode, row, 0.25, -1], np.float32) / 3


def image(episode: int, row: int, camera: int) -> np.ndarray:
    """One color, by which an image is recognized after lossy coding."""
    picture = np.empty((*SIZE, 3), np.uint8)
    picture[:] = (20 + 8 * row, 40 + 60 * episode, 60 + 120 * camera)
    return picture


def success(episode: int, row: int) -> bool:
    return episode != 1 and row == LENGTHS[episode] - 1


def write(folder: Path, *, videos: bool) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    kind = "video" if videos else "image"
    features = {
        "action": {"dtype": "float32", "shape": (3,), "names": NAMES},
        "observation.state": {"dtype": "float32", "shape": (4,), "names": ["a", "b", "c", "d"]},
        "next.success": {"dtype": "bool", "shape": (1,), "names": None},
        **{key: {"dtype": kind, "shape": (*SIZE, 3), "names": ["height", "width", "channels"]} for key in CAMERAS},
    }
    dataset = LeRobotDataset.create(
        "grape/test", fps=FPS, features=features, root=folder, robot_type="so100", use_videos=videos
    )
    for episode, length in enumerate(LENGTHS):
        for row in range(length):
            frame = {
                "action": action(episode, row),
                "observation.state": state(episode, row),
                "next.success": np.array([success(episode, row)]),
                **{key: image(episode, row, number) for number, key in enumerate(CAMERAS)},
            }
            if dataset.meta.info["codebase_version"] == "v2.1":
                dataset.add_frame(frame, task=TASKS[episode])
            else:
                dataset.add_frame({**frame, "task": TASKS[episode]})
        dataset.save_episode()
    if hasattr(dataset, "finalize"):
        dataset.finalize()


def main(out: Path) -> None:
    import datasets  # noqa: F401 (before what follows, which it would take for the real one)

    # LeRobot's module imports it for the images that it reads; of what writes, nothing calls it.
    torchvision = types.ModuleType("torchvision")
    torchvision.transforms = types.ModuleType("torchvision.transforms")
    sys.modules |= {"torchvision": torchvision, "torchvision.transforms": torchvision.transforms}
    for name in ("videos", "images"):
        write(out / name, videos=name == "videos")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
