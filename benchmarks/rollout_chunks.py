"""Processor seconds of control steps with recording: a policy that looks at every step, against chunks of actions.

    python benchmarks/rollout.py --suites libero-chunks simpler-chunks --out docs/results/rollout-chunks.json

Each comparison plays the same number of simulator steps in several ways, the same episodes in each in turn, and several
times over, so that other work on the machine hits all ways alike. Episodes are played as by ``grape collect``: a worker
process with eight of them in lock-step, one batched decision in this process, everything recorded and written. What
counts is the processor time of both processes from the first decision to the written files; resets, which are the same
for all, stand apart. Policies are untrained nano ones with small actions, and episodes go on after a success: all have
all their steps.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from grape.collect import CollectSettings
from grape.collect.plan import Group, make_plan
from grape.collect.recorder import EpisodeRecorder
from grape.collect.rollout import PlannedGroups, PolicyActor, RolloutLog, play_groups
from grape.core.trajectories import Trajectory
from grape.envs.base import SuiteBase
from grape.envs.pool import WorkerPool
from grape.envs.registry import get_suite
from grape.policies.openvla import compute_norm_stats, create_nano
from grape.policies.openvla_oft.conventions import Layout
from grape.policies.openvla_oft.nano import create_nano_oft
from grape.store import EpisodeStore

LANES = 8


@dataclass(frozen=True)
class Way:
    """One way of playing.

    Attributes:
        suite: The suite.
        held: Simulator steps of one of its control steps.
        chunk: Actions a decision; 1 for the nano policy that decides on one action.
    """

    suite: str
    held: int = 1
    chunk: int = 1


COMPARISONS: dict[str, dict[str, Any]] = {
    "libero-chunks": {
        "task": "turn_on_the_stove",
        "steps": 80,
        "ways": {
            "20 Hz, one action a decision": Way("libero_goal"),
            "2 Hz, each action held for 10 steps": Way("libero_goal_2hz", held=10),
            "20 Hz, small images, one action a decision": Way("libero_goal_nano"),
            "20 Hz, published images, chunks of 8": Way("libero_goal", chunk=8),
            "20 Hz, small images, chunks of 8": Way("libero_goal_nano", chunk=8),
            "20 Hz, small images of two cameras, chunks of 8": Way("libero_goal_nano_wrist", chunk=8),
        },
    },
    "simpler-chunks": {
        "task": "carrot-on-plate",
        "steps": 40,
        "ways": {
            "5 Hz, one action a decision": Way("simpler_widowx"),
            "5 Hz, chunks of 8": Way("simpler_widowx", chunk=8),
        },
    },
}
"""What is compared; the first way is what the others are divided into."""


def compare(name: str, rounds: int) -> dict[str, Any]:
    """Play a comparison.

    Args:
        name: One of :data:`COMPARISONS`.
        rounds: How often each way plays its :data:`LANES` episodes.
    """
    chosen = COMPARISONS[name]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    players = {label: _Player(way, chosen["task"], chosen["steps"]) for label, way in chosen["ways"].items()}
    try:
        for player in players.values():
            player.play(1)  # worlds are made, everything has run once
            player.figures.clear()
        for _ in range(rounds):
            for player in players.values():
                player.play()
        versions = dict(get_suite(next(iter(chosen["ways"].values())).suite).versions())
    finally:
        torch.set_num_threads(threads)
        for player in players.values():
            player.pool.close()
    first = next(iter(players.values())).median("processor_seconds")
    return {
        "task": chosen["task"],
        "versions": versions,
        "simulator_steps": chosen["steps"],
        "episodes": rounds * LANES,
        "lanes": LANES,
        "ways": {label: player.summary(first) for label, player in players.items()},
    }


class _Player:
    """A way of playing with its policy and its worker process."""

    def __init__(self, way: Way, task: str, steps: int) -> None:
        self.way = way
        self.figures: list[dict[str, float]] = []
        suite = get_suite(way.suite)
        settings = CollectSettings(
            out=Path(),
            suite=way.suite,
            tasks=task,
            policy="nano",
            initial_states=f"0-{LANES - 1}",
            temperature=0.0,
            until="last-step",
            max_steps=steps // way.held,
            lanes=LANES,
        )
        self._suite, (self._group,) = suite, make_plan(settings, suite)
        self._policy = nano_of(suite, way.chunk)
        self.pool = WorkerPool(way.suite, 1, LANES, 600.0)

    def play(self, steps: int = 0) -> None:
        """Play the group for so many control steps; 0 for all."""
        log = RolloutLog()
        actor = _Clock(self._policy, log, self._suite, self.pool)
        task = self._group.task
        group = replace(self._group, task=replace(task, max_steps=steps or task.max_steps))
        with tempfile.TemporaryDirectory() as folder:
            store = EpisodeStore.create(Path(folder) / "store", self._suite.name, {})

            def finished(group: Group, trajectories: list[Trajectory]) -> None:
                for trajectory in trajectories:
                    assert trajectory.meta.steps == group.task.max_steps
                    store.write(trajectory)

            play_groups(
                PlannedGroups([group]),
                self.pool,
                actor,
                versions=self._suite.versions(),
                display=True,
                log=log,
                until="last-step",
                finished=finished,
            )
            end = actor.now()
        if log.failures or log.retries:
            raise SystemExit(f"the measurement is void: {log.failures or log.retries}")
        (worker, main), (worker_began, main_began) = end, actor.began
        figures = {
            "processor_seconds": worker - worker_began + main - main_began,
            "simulator_process": worker - worker_began,
            "policy": actor.policy_seconds,
            "reset": worker_began - actor.started[0],
            "decisions": log.decisions,
        }
        self.figures.append({name: value / LANES for name, value in figures.items()})  # an episode's

    def median(self, name: str) -> float:
        """Median over the groups, of one episode."""
        return statistics.median(figures[name] for figures in self.figures)

    def summary(self, first: float) -> dict[str, Any]:
        """Medians, and how many times less processor time than the first way."""
        seconds = self.median("processor_seconds")
        return {
            "suite": self.way.suite,
            "chunk": self.way.chunk,
            "decisions": int(self.median("decisions")),
            "processor_seconds": round(seconds, 3),
            "of_which": {
                "simulator process": round(self.median("simulator_process"), 3),
                "policy": round(self.median("policy"), 3),
            },
            "reset_processor_seconds": round(self.median("reset"), 3),
            "least_and_most": [
                round(pick(figures["processor_seconds"] for figures in self.figures), 3) for pick in (min, max)
            ],
            "times_less": round(first / seconds, 2),
        }


class _Clock(PolicyActor):
    """Notes the processor time at the first decision, and that of deciding."""

    def __init__(self, policy: Any, log: RolloutLog, suite: SuiteBase, pool: WorkerPool) -> None:
        super().__init__(_Timed(policy), 0.0, log, suite.action_space)
        self._process = pool._workers[0].process.program.pid
        self.started = self.now()
        self.began: tuple[float, float] = (0.0, 0.0)

    def now(self) -> tuple[float, float]:
        """Processor seconds of the worker and of this process so far."""
        return worker_seconds(self._process), time.process_time()

    def decide(self, pool: WorkerPool, group: Group, recorders: list[EpisodeRecorder]) -> None:
        if not recorders[0].steps:
            self.began = self.now()
        super().decide(pool, group, recorders)

    @property
    def policy_seconds(self) -> float:
        """Processor seconds of the policy."""
        timed: Any = self._policy
        return float(timed.seconds)


class _Timed:
    """A policy whose processor time is counted."""

    def __init__(self, policy: Any) -> None:
        self._policy, self.seconds = policy, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def act(self, *arguments: Any, **named: Any) -> Any:
        began = time.process_time()
        try:
            return self._policy.act(*arguments, **named)
        finally:
            self.seconds += time.process_time() - began


def worker_seconds(process: int) -> float:
    """Processor time that a living process has used, all its threads, from the kernel's scheduler."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def nano_of(suite: SuiteBase, chunk: int) -> Any:
    """An untrained nano policy that fits the suite; of one camera more where the suite has one."""
    space = suite.action_space
    low, high = np.array(space.low) * 0.05, np.array(space.high) * 0.05
    low[-1], high[-1] = space.low[-1], space.high[-1]
    actions = np.random.default_rng(0).uniform(low, high, (256, space.dim))
    instructions = sorted({task.instruction for task in suite.tasks})
    statistics_of_actions = compute_norm_stats(actions, space.names)
    if chunk == 1:
        policy = create_nano(seed=0, norm_stats=statistics_of_actions, gripper=space.gripper, instructions=instructions)
        return policy.freeze()
    assert suite.proprio_dim is not None
    state = np.random.default_rng(1).uniform(-1, 1, (256, suite.proprio_dim))
    names = tuple(map(str, range(suite.proprio_dim)))
    layout = Layout(
        chunk=chunk,
        action_dim=space.dim,
        cameras=("agentview", *suite.cameras),
        proprio_dim=suite.proprio_dim,
        placeholders="per-action",
    )
    norm_stats = {suite.name: {**statistics_of_actions, "proprio": compute_norm_stats(state, names)["action"]}}
    policy = create_nano_oft(
        seed=0, norm_stats=norm_stats, gripper=space.gripper, layout=layout, instructions=instructions
    )
    return policy.freeze()
