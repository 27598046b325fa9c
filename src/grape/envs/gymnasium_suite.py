"""Gymnasium environments as a suite: ``--suite gym:ID``, or a suite of one's own in a few lines of Python.

    GymnasiumSuite("my-suite", {"reach": GymnasiumTask("my_package:Reach-v0", instruction="reach the red cube")})

What a suite promises before the first episode (actions, images, length) is read off the environment's spaces; nothing
is imported before it is asked for.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from grape.core.errors import CompatibilityError
from grape.core.tasks import ActionSpace, Task
from grape.envs.base import Environment, Snapshot, SuiteBase
from grape.envs.gymnasium_environment import GymnasiumEnvironment
from grape.envs.gymnasium_opening import Description, check_gymnasium, describe, open_environment, registration_of
from grape.envs.gymnasium_options import GymnasiumTask, read_reference, task_name

__all__ = ["GymnasiumSuite", "GymnasiumTask", "open_gymnasium"]


def open_gymnasium(name: str) -> GymnasiumSuite:
    """The suite with one task that ``gym:...`` names; see :func:`~grape.envs.gymnasium_options.read_reference`."""
    task = read_reference(name)
    return GymnasiumSuite(name, {task_name(task.id): task})


class GymnasiumSuite(SuiteBase):
    """Gymnasium environments with images as tasks; see :class:`~grape.envs.base.SuiteBase`.

    Initial state ``n`` of a task is ``reset(seed=n)``. Scripted experts are a subclass's to make; they find the
    environment's ``info`` in ``snapshot.privileged``.

    Args:
        name: The suite's name, under which workers make it again.
        tasks: Environments by the task's name; all of one robot.
        costs: Folder of the suite's cost specifications, ``TASK.yaml`` for each task that has one.
    """

    def __init__(self, name: str, tasks: Mapping[str, GymnasiumTask], costs: Path | None = None) -> None:
        self._name = name
        self._costs = costs
        self._tasks = dict(tasks)

    @property
    def name(self) -> str:
        return self._name

    @property
    def tasks(self) -> tuple[Task, ...]:
        return tuple(
            Task(self._name, index, name, described.instruction, described.max_steps)
            for index, (name, described) in enumerate((name, describe(task)) for name, task in self._tasks.items())
        )

    @property
    def action_space(self) -> ActionSpace:
        return self._first.action_space

    @property
    def proprio_dim(self) -> int:
        return self._first.proprio_dim

    @property
    def cameras(self) -> tuple[str, ...]:
        return tuple(self._first.layout.cameras)

    @property
    def cost_specifications(self) -> Path | None:
        return self._costs

    def n_initial_states(self, task: Task) -> int:
        return self._tasks[task.name].initial_states

    def versions(self) -> Mapping[str, str]:
        """Gymnasium, what registers the environments, and the options, of which another value gives other episodes."""
        check_gymnasium()
        versions = {"gymnasium": metadata.version("gymnasium")}
        for name, task in self._tasks.items():
            versions.update(_source_version(task))
            if task != GymnasiumTask(task.id):
                versions[f"options of {name}"] = task.digest
        return versions

    def cautions(self) -> tuple[str, ...]:
        """What is found wrong with a look at each environment: starts that differ, success that nobody tells."""
        return tuple(sentence for task in self._tasks.values() for sentence in _cautions(task))

    def check(self) -> None:
        """Look at all environments and compare their actions and cameras.

        Raises:
            CompatibilityError: They are not of one robot.
        """
        super().check()
        for name, task in self._tasks.items():
            other = describe(task)
            if _robot(other) != _robot(self._first):
                raise CompatibilityError(
                    f"Task {name} of suite {self._name} has other actions, robot state or cameras than its first task.",
                    "Make a suite of each.",
                )

    def make_environment(self, task: Task) -> Environment:
        return open_environment(self._tasks[task.name])

    @property
    def _first(self) -> Description:
        return describe(next(iter(self._tasks.values())))


def _robot(described: Description) -> tuple[Any, ...]:
    """What all tasks of a suite have in common."""
    return described.action_space, described.proprio_dim, tuple(described.layout.cameras)


def _source_version(task: GymnasiumTask) -> dict[str, str]:
    """Version of the distribution that an environment comes from; of a single module, a digest of its file."""
    entry_point = registration_of(task).entry_point
    module = entry_point.partition(":")[0] if isinstance(entry_point, str) else getattr(entry_point, "__module__", "")
    package = module.partition(".")[0]
    for distribution in _distributions_by_package().get(package, ()):
        return {distribution: metadata.version(distribution)}
    path = getattr(importlib.import_module(package), "__file__", None) if package else None
    return {package: hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]} if path else {}


@functools.cache
def _distributions_by_package() -> Mapping[str, Sequence[str]]:
    """Read once, since it takes a second."""
    table: Mapping[str, Sequence[str]] = getattr(metadata, "packages_distributions", dict)()  # since Python 3.10
    return table


def _cautions(task: GymnasiumTask) -> list[str]:
    environment = open_environment(task)
    try:
        looks = [_look(environment, task) for _ in range(2)]
    finally:
        environment.close()
    sentences = []
    for what, one, other in zip(("reset with one seed", "the first step after it"), *looks):  # noqa: B905
        if not _same(one, other):
            sentences.append(
                f"{task.id} is not deterministic: {what} gave two different states. Rollouts from one initial state do "
                "not start alike, so pairs compare what the environment drew as well, and a resumed run differs."
            )
            break
    if looks[0][1].success is None and not looks[0][1].terminated:
        keys = " or ".join(map(repr, task.success_keys))
        sentences.append(
            f"{task.id} did not tell success in info ({keys}) after its first step. Where it never does, the outcome "
            "is unknown: nothing is scored by success. Name its key by 'success' in gym:FILE.yaml."
        )
    return sentences


def _look(environment: GymnasiumEnvironment, task: GymnasiumTask) -> tuple[Snapshot, Snapshot]:
    layout = describe(task).layout
    middle = (np.asarray(layout.low) + np.asarray(layout.high)) / 2
    return environment.reset(0), environment.step(middle.astype(np.float32))


def _same(one: Snapshot, other: Snapshot) -> bool:
    return (
        np.array_equal(one.image, other.image)
        and np.array_equal(one.proprio, other.proprio)
        and {name: point.tolist() for name, point in one.keypoints.items()}
        == {name: point.tolist() for name, point in other.keypoints.items()}
        and one.signals == other.signals
    )
