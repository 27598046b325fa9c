"""Data that real LeRobot writes, in both layouts, is read as it was given to it.

LeRobot is no dependency of GRAPE: `make test-lerobot` puts it into an environment of its own and runs this file.
"""

import os
import subprocess

import numpy as np
import pytest

from grape.store.lerobot.demonstrations import LeRobotDemonstrations
from tests.architecture.allowed_imports import ROOT
from tests.store.lerobot import write_with_lerobot as written

VENV = ROOT / os.environ.get("LEROBOT_VENV", ".venv-lerobot")
PYTHON = VENV / "bin" / "python"

pytestmark = [
    pytest.mark.skipif(not PYTHON.exists(), reason=f"no LeRobot at {VENV}: run `make test-lerobot`"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module", params=["v2.1", "v3.0"])
def folder(request, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param)
    older = {"PYTHONPATH": str(VENV / "v21")} if request.param == "v2.1" else {}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    reply = subprocess.run(
        [str(PYTHON), written.__file__, str(out)],
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
        env=environment | older | {"HF_HOME": str(out / "cache"), "HF_HUB_OFFLINE": "1"},
    )
    assert reply.returncode == 0, reply.stderr
    return request.param, out


@pytest.mark.parametrize("kind", ["videos", "images"])
def test_what_lerobot_writes_is_read(folder, kind):
    version, out = folder
    source = LeRobotDemonstrations(out / kind)
    assert source.dataset.description.version == version
    assert source.contract["action_space"] == {"names": written.NAMES, "control_hz": 10.0}
    assert [meta.instruction for meta in source.metas()] == list(written.TASKS)
    assert [meta.success for meta in source.metas()] == [True, False, True]
    loss = 0 if kind == "images" else 6  # levels; LeRobot codes with AV1 at quality 30
    for episode, (name, length) in enumerate(zip(source.ids(), written.LENGTHS, strict=True)):
        rows = range(length)
        trajectory = source.read(name)
        np.testing.assert_array_equal(trajectory.actions, [written.action(episode, row) for row in rows])
        np.testing.assert_array_equal(trajectory.proprio[:-1], [written.state(episode, row) for row in rows])
        for number, images in enumerate((trajectory.frames, trajectory.cameras["wrist"])):
            expected = np.array([written.image(episode, row, number) for row in rows]).astype(float)
            assert np.abs(images[:-1] - expected).mean(axis=(1, 2)).max() <= loss
        some = [length - 1, 0, length // 2]
        np.testing.assert_array_equal(source.images(name, some), trajectory.frames[some])
