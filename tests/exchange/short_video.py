"""A sound recording of half a second, as ``grape import video`` takes it, and how its import is called."""

import numpy as np
import pytest

from grape.core.cameras import Camera
from grape.core.errors import DataError, SettingsError
from grape.exchange import ImportVideoSettings, run_import_video
from grape.store import EpisodeStore
from tests.perception.recording_fixtures import ACTIONS, write_camera, write_list, write_log, write_video

STATES, FPS = 6, 20
SIZE = (32, 48)


def camera() -> Camera:
    """Half a meter above the robot's frame, looking down."""
    pose = np.diag([1.0, -1.0, -1.0, 1.0])
    pose[:3, 3] = (0.4, 0.0, 0.8)
    return Camera(np.array([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]]), pose, SIZE)


def log_rows():
    rows = []
    for state in range(STATES):
        row = {"time": 5.0 + 0.1 * state, "x": 0.4 + 0.01 * state, "y": 0.0, "z": 0.1, "gripper": 0.04}
        rows.append(row | dict.fromkeys(ACTIONS, 0.1 * state))
    return rows


def images(count=2 * STATES - 1):
    shades = np.linspace(30, 220, count).astype(np.uint8)
    return np.broadcast_to(shades[:, None, None, None], (count, *SIZE, 3)).copy()


ENTRY = {
    "video": "take.mp4", "depth": "depth.npy", "camera": "camera.yaml", "log": "log.csv", "offset": 5.0,
    "outcome": "success", "initial_state": 3,
}  # fmt: skip
GRIPPER = {"gripper": [0.0, 0.08]}


def relist(folder, robot_log=None, **change):
    entry = {key: value for key, value in (ENTRY | change).items() if value is not None}
    return write_list(folder / "episodes.yaml", [entry], robot_log=GRIPPER | (robot_log or {}))


def run(folder, **options):
    settings = ImportVideoSettings(folder / "episodes.yaml", folder.parent / "out", **options)
    return run_import_video(settings)


def refused(folder, words, **options):
    with pytest.raises((DataError, SettingsError), match=words) as caught:
        run(folder, **options)
    assert not (folder.parent / "out").exists(), "something was written"
    return str(caught.value)


def read(folder):
    return EpisodeStore.open(folder.parent / "out" / "store").read("push-puck-0003-00")


def write_recording(folder):
    """A sound recording of half a second; the video's clock starts at 0, the log's at 5 seconds."""
    folder.mkdir()
    write_video(folder / "take.mp4", images(), FPS)
    np.save(folder / "depth.npy", np.full((2 * STATES - 1, *SIZE), 700, np.uint16))
    write_log(folder / "log.csv", log_rows())
    write_camera(folder / "camera.yaml", camera())
    relist(folder)
    return folder
