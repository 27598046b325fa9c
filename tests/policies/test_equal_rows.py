"""A row's bits do not depend on the rest of its batch, whichever instructions the processor's libraries use."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from grape.core.trajectories import Observation
from grape.policies.openvla import create_nano, decoding

INSTRUCTIONS = ("push the block", "push the block to the red square")
SIZES = (1, 3, 8, 17, 33)


def make_policy():
    statistics = {"toy": {"action": {"q01": [-1.0] * 7, "q99": [1.0] * 7, "mask": [True] * 6 + [False]}}}
    return create_nano(seed=0, norm_stats=statistics, gripper="+1 closes", instructions=INSTRUCTIONS)


def make_observations(count):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    return [
        Observation(image, np.zeros(0, np.float32), INSTRUCTIONS[row % len(INSTRUCTIONS)])
        for row, image in enumerate(images)
    ]


def check_rows():
    """Compare each row of batches of several sizes with the same row of the largest batch."""
    torch.set_num_threads(3)
    policy, observations = make_policy(), make_observations(max(SIZES))
    order = np.random.default_rng(1).permutation(len(observations))
    whole = policy.act(observations, temperature=0.7, seeds=range(len(observations)))
    for size in SIZES:
        rows = [int(row) for row in order[:size]]
        part = policy.act([observations[row] for row in rows], temperature=0.7, seeds=rows)
        np.testing.assert_array_equal(part.tokens, whole.tokens[rows])
        np.testing.assert_array_equal(part.logps, whole.logps[rows])
        np.testing.assert_array_equal(part.actions, whole.actions[rows])
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(("onednn", "mkl"), [("AVX2", "AVX2"), ("AVX512_CORE", "AVX512")])
def test_rows_are_equal_under_every_set_of_instructions(onednn, mkl):
    """Libraries read these variables once, so each set has a process of its own."""
    chosen = {"ONEDNN_MAX_CPU_ISA": onednn, "MKL_ENABLE_INSTRUCTIONS": mkl, "OMP_NUM_THREADS": "3"}
    command = [sys.executable, "-m", "tests.policies.test_equal_rows"]
    done = subprocess.run(command, env=os.environ | chosen, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [f"{len(SIZES)}", "sizes", "agree"]


@pytest.mark.parametrize(("small", "rows"), [(10**8, decoding.ROWS), (0, 1)])
@pytest.mark.parametrize("count", [1, 16, 33])
def test_the_network_is_called_with_one_number_of_rows_only(monkeypatch, count, small, rows):
    called = []
    true_decode = decoding.decode_actions

    def decode_actions(model, inputs, *rest):
        called.append(len(inputs))
        return true_decode(model, inputs, *rest)

    monkeypatch.setattr(decoding, "decode_actions", decode_actions)
    monkeypatch.setattr(decoding, "SMALL", small)
    make_policy().act(make_observations(count), temperature=0.7, seeds=range(count))
    assert set(called) == {rows}


if __name__ == "__main__":
    check_rows()
    print(f"{len(SIZES)} sizes agree")
