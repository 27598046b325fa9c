"""What the stand-ins share: a tensor that is no array, and misbehavior."""

import os

import numpy as np

BEHAVIOR = os.environ.get("REWARD_STANDIN", "")


class Tensor:
    """As much of a tensor as any of the programs may use."""

    def __init__(self, values):
        self._values = np.asarray(values)
        self.shape = self._values.shape

    def tolist(self):
        return self._values.tolist()


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


def load(path):
    print("Loading weights from local directory")  # LeRobot does so, on standard output
    if BEHAVIOR == "weights":
        raise FileNotFoundError(f"model.safetensors not found on the HuggingFace Hub in {path}")
    if BEHAVIOR == "memory-at-load":
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 8.00 GiB.")


def answer(value, task):
    """One number a sample, ``(1,)``, unless the stand-in misbehaves at this task."""
    if task == os.environ.get("REWARD_STANDIN_TASK", task):
        mark = os.environ.get("REWARD_STANDIN_MARK", "")
        if BEHAVIOR == "memory" or (BEHAVIOR == "memory-once" and not os.path.exists(mark)):
            if mark:
                with open(mark, "w"):
                    pass
            raise OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB.")
        if BEHAVIOR == "nan":
            value = float("nan")
        if BEHAVIOR == "shape":
            return Tensor([[value, value]])
    return Tensor([value])
