"""A nano policy, images, and the golden fixtures made with the public reference implementation."""

from pathlib import Path

import numpy as np
import pytest
import torch

from grape.core.trajectories import Observation
from grape.policies.openvla import OpenVLAPolicy, compute_norm_stats, create_nano

NAMES = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
INSTRUCTIONS = ("open the drawer", "turn on the faucet", "press the button")
GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "openvla"


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def golden() -> Path:
    if not (GOLDEN / "ckpt").is_dir():
        pytest.skip(f"golden fixtures are not at {GOLDEN}")
    return GOLDEN


@pytest.fixture(scope="session")
def actions() -> np.ndarray:
    """Actions (64, 7) with dead rotations and a gripper of -1 or 1, like Meta-World's."""
    rng = np.random.default_rng(7)
    values = rng.uniform(-1.0, 1.0, (64, 7)).astype(np.float32)
    values[:, 3:6] = 0.0
    values[:, 6] = np.where(values[:, 6] > 0, 1.0, -1.0)
    return values


def make_nano(actions: np.ndarray, seed: int = 0) -> OpenVLAPolicy:
    return create_nano(
        seed=seed,
        norm_stats={"metaworld": compute_norm_stats(actions, NAMES)},
        gripper="+1 closes",
        instructions=INSTRUCTIONS,
    )


@pytest.fixture(scope="session")
def nano(actions) -> OpenVLAPolicy:
    """Shared by tests that do not change it."""
    return make_nano(actions)


@pytest.fixture
def fresh_nano(actions) -> OpenVLAPolicy:
    """For tests that change weights or layers."""
    return make_nano(actions)


@pytest.fixture(scope="session")
def observations() -> list[Observation]:
    """20 observations with three instructions of one length and one, never seen by the tokenizer, that is longer."""
    rng = np.random.default_rng(3)
    texts = (*INSTRUCTIONS, "put the xylophone behind the green bowl")
    return [
        Observation(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), np.zeros(4, np.float32), texts[i % 4])
        for i in range(20)
    ]
