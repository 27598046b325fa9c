"""A policy without PyTorch whose decisions follow from image, state, instruction, place and seed: quick to start."""

import hashlib
import os
import time
from pathlib import Path

import numpy as np

from grape.policies import ActionBatch, PolicySpec, PolicyType

CHUNK, DIM, BINS = 2, 7, 16
STOP_AT = 5
"""At which decision a policy goes on computing until the file NUMPY_POLICY_STOP is there."""
VALUES = np.linspace(-1, 1, BINS, dtype=np.float32)


class NumpyPolicy:
    """A place named ``two`` reads a wrist camera and a state of three numbers, one named ``none`` has no tokens."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.batches: list[int] = []
        reads = {"cameras": ("agentview", "wrist"), "proprio_dim": 3} if "two" in place else {}
        support = {"support": "", "logp_temperature": 0.0} if "none" in place else {"support": "window"}
        self.spec = PolicySpec(
            DIM, 8, "+1 closes", "", f"weights of {place}", "pixels", chunk=CHUNK, **reads, **support
        )

    def prompt(self, instruction):
        if instruction == "raise":
            raise RuntimeError("the key is gone")
        return f"In {self.place}: {instruction}"

    def act(self, observations, *, temperature=0.0, seeds=None):
        self.batches.append(len(observations))
        if os.environ.get("NUMPY_POLICY_STOP") and len(self.batches) == STOP_AT:
            wait_for(Path(os.environ["NUMPY_POLICY_STOP"]))
        if any(observation.instruction == "raise" for observation in observations):
            raise RuntimeError("the key is gone")
        for observation in observations:
            if observation.instruction.startswith("until "):
                wait_for(Path(observation.instruction.removeprefix("until ")))
        tokens = np.zeros((len(observations), CHUNK, DIM), np.int32)
        for row, observation in enumerate(observations):
            parts = [self.place.encode(), observation.instruction.encode(), observation.image.tobytes()]
            parts += [image.tobytes() for image in observation.cameras.values()]
            parts += [str(seeds[row]).encode()] if temperature else []
            digest = hashlib.blake2b(b"".join(parts), digest_size=CHUNK * DIM).digest()
            tokens[row] = (np.frombuffer(digest, np.uint8) % BINS).reshape(CHUNK, DIM)
        if not self.spec.support:
            return ActionBatch(VALUES[tokens])
        return ActionBatch(VALUES[tokens], tokens, (-1 - tokens / BINS).astype(np.float32), "window")


def wait_for(go: Path) -> None:
    """Tell that the policy computes, and go on computing until a file is there."""
    go.with_name(f"{go.name}.begun").touch()
    while not go.exists():
        time.sleep(0.01)


class NumpyPolicyType(PolicyType):
    def recognizes(self, config, names):
        return False

    def open(self, path, options):
        return NumpyPolicy(path)
