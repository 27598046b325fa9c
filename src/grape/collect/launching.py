"""Launchers: where groups of episodes are played. The local one is worker processes of this machine and this policy."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from grape.cluster.session import refuse_unused_address
from grape.collect.opening import open_policy
from grape.collect.plan import Group
from grape.collect.rollout import Actor, ExpertActor, PlannedGroups, PolicyActor, RolloutLog, play_groups
from grape.collect.settings import CollectSettings
from grape.core.errors import SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.trajectories import Trajectory
from grape.envs.base import SuiteBase
from grape.envs.external_python import suite_of
from grape.envs.pool import WorkerPool
from grape.policies.base import Policy, PolicySpec
from grape.store import EpisodeFile

__all__ = ["Commit", "Launcher", "LocalLauncher", "make_actor", "open_launcher"]

Commit = Callable[[Group, EpisodeFile], None]
"""Receives each episode of a group that came to its end."""


class Launcher(Protocol):
    """Plays groups of episodes somewhere. What an episode's file holds does not depend on where."""

    @property
    def spec(self) -> PolicySpec | None:
        """Contract of the policy that decides; None for scripted experts."""

    def play(self, groups: Sequence[Group], settings: CollectSettings, log: RolloutLog, commit: Commit) -> None:
        """Play every group to its end.

        Args:
            groups: What to play.
            settings: The collection's settings, resolved; suite, policy, lanes and workers are those that the launcher
                was opened with.
            log: Receives costs, retries, losses and failures.
            commit: Called with each episode of a group that came to its end, once, in order of completion.

        Raises:
            SimulatorError: The simulator does not work at all.
            PolicyError: The policy cannot decide.
        """

    def finished(self, out: Path) -> None:
        """Hear that a run is finished, or was found so.

        Args:
            out: Its folder.
        """


@dataclass
class LocalLauncher:
    """Worker processes of this machine; the policy decides in this process.

    Attributes:
        suite: The suite.
        policy: The policy, or None for scripted experts.
    """

    suite: SuiteBase
    policy: Policy | None

    def __post_init__(self) -> None:
        self._pool: WorkerPool | None = None

    @property
    def spec(self) -> PolicySpec | None:
        """Contract of the policy."""
        return None if self.policy is None else self.policy.spec

    def play(self, groups: Sequence[Group], settings: CollectSettings, log: RolloutLog, commit: Commit) -> None:
        """Play every group to its end; the workers stay for the next call."""
        workers = min(settings.workers or os.cpu_count() or 1, len(groups))
        if self._pool is None:
            self.suite.check()
            self._pool = WorkerPool(self.suite.name, workers, settings.lanes, settings.timeout, settings.env_python)
        self._pool.grow(workers)  # an earlier call may have had fewer groups

        def finished(group: Group, trajectories: list[Trajectory]) -> None:
            for trajectory in trajectories:
                commit(group, EpisodeFile.encode(trajectory))

        play_groups(
            PlannedGroups(groups),
            self._pool,
            make_actor(self.policy, settings, log, self.suite),
            versions=self.suite.versions(),
            display=settings.display,
            log=log,
            until=settings.until,
            finished=finished,
        )

    def finished(self, out: Path) -> None:
        """Nothing: the policy is open whenever its run is looked at."""

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.close()


def make_actor(policy: Policy | None, settings: CollectSettings, log: RolloutLog, suite: SuiteBase) -> Actor:
    """The policy, or scripted experts, as who acts in a collection."""
    if policy is None:
        return ExpertActor(settings.execute or 1)
    return PolicyActor(policy, settings.temperature, log, suite.action_space, settings.execute)


@contextlib.contextmanager
def open_launcher(
    settings: CollectSettings,
    reporter: Reporter = SILENT,
    policy: Policy | None = None,
    out: Path | None = None,
) -> Iterator[Launcher]:
    """Open the launcher that the settings name, and the policy in it, checked against the suite.

    Args:
        settings: Which launcher, policy and suite.
        reporter: Hears of warnings.
        policy: What :func:`~grape.collect.open_policy` gave for these settings; opened where absent.
        out: Folder of a run that may be finished; with Ray nothing is started then.

    Raises:
        SettingsError: The launcher, the policy or the suite cannot be used.
        CompatibilityError: The policy does not fit the suite.
    """
    if settings.launcher == "ray":
        from grape.collect.ray_launcher import open_ray_launcher

        if policy is not None:
            raise SettingsError(
                "A policy that is open in this process cannot be sent to replicas.",
                "Give its checkpoint, or leave --launcher ray out.",
            )
        with open_ray_launcher(settings, reporter, out) as ray_launcher:
            yield ray_launcher
        return
    refuse_unused_address(settings.ray_address)
    if policy is None:
        policy = open_policy(settings, reporter)
    launcher = LocalLauncher(suite_of(settings.suite, settings.env_python), policy)
    try:
        yield launcher
    finally:
        launcher.close()
