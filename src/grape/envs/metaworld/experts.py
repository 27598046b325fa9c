"""Meta-World's scripted policies as operators whose actions are held for a whole decision."""

import importlib
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.envs.base import Snapshot
from grape.envs.expert_styles import Operator
from grape.envs.metaworld.tasks import TaskModel

__all__ = ["ScriptedExpert"]


class ScriptedExpert:
    """One operator of one episode; see :class:`~grape.envs.base.Expert`.

    The script reads Meta-World's observation from ``snapshot.privileged``. A sloppy operator's hand is reported to
    the script displaced, so that the script brings it to a place beside everything it aims at.

    Args:
        spec: The task.
        style: One of :data:`grape.envs.expert_styles.OPERATORS`.
        seed: Seed of the operator.
    """

    def __init__(self, spec: TaskModel, style: str, seed: int) -> None:
        self._script: Any = getattr(importlib.import_module("metaworld.policies"), spec.policy)()
        self._gain = spec.gain
        self._operator = Operator(style, seed)

    def act(self, snapshot: Snapshot) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Executed action and label, float32 ``(7,)`` each."""
        observation = np.array(snapshot.privileged["observation"])  # a copy: one of the scripts writes into it
        observation[:3] -= self._operator.aim_offset
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scripts warn whenever an action exceeds [-1, 1], which is clipped here
            scripted_action = self._script.get_action(observation)
        action = np.zeros(7)
        action[:3] = self._gain * scripted_action[:3]
        action[6] = scripted_action[3]
        return self._operator.perform(action)
