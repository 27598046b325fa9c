"""A simulator that waits: the suite toy, whose every control step and reset takes a fixed time without a processor.

It stands for a simulator on hardware that this machine lacks (cores, a GPU, a robot), so that what is measured is how
episodes are shared out, not how fast they are computed. `scaling.py` registers it; part of that script.
"""

import dataclasses
import time
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from grape.core.tasks import Task
from grape.envs.base import Environment, Expert, Snapshot
from grape.envs.toy import ToyEnvironment, ToySuite

SECONDS = 0.05
"""Of a control step or a reset."""


class SleepingEnvironment(ToyEnvironment):
    """The toy environment, later."""

    def reset(self, initial_state: int) -> Snapshot:
        time.sleep(SECONDS)
        return super().reset(initial_state)

    def step(self, action: npt.NDArray[np.float32]) -> Snapshot:
        time.sleep(SECONDS)
        return super().step(action)


class SleepingSuite(ToySuite):
    """The toy suite, later; under a name of its own."""

    @property
    def name(self) -> str:
        return "sleeping"

    @property
    def tasks(self) -> tuple[Task, ...]:
        return tuple(dataclasses.replace(task, suite=self.name) for task in super().tasks)

    def versions(self) -> Mapping[str, str]:
        return {"sleeping": f"{SECONDS:g} s"}

    def make_environment(self, task: Task) -> Environment:
        return SleepingEnvironment(dataclasses.replace(task, suite="toy"))

    def make_expert(self, task: Task, operator: str, seed: int) -> Expert:
        return super().make_expert(dataclasses.replace(task, suite="toy"), operator, seed)
