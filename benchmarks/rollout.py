"""Decisions a second of rollouts: one environment with a batch of 1, against workers with a batched policy.

    python benchmarks/rollout.py --out docs/results/rollout-benchmark.json     # minutes; quiet machine
    python benchmarks/rollout.py --suites metaworld --decisions 5              # a look

Both sides play the same episodes (tasks, initial states, number of decisions) with the same untrained nano policy and
record them. Sequential is what evaluation scripts do: one process, one environment, the policy asked with one image.
Ours is `grape collect`'s way: two worker processes, lanes in lock-step, one batched decision for whoever waits. Worlds
are made and drawn once before the clock starts; how long that takes stands apart (`seconds_to_start`), since a study
pays it once. Seconds of the sequential side are divided by what they went to; ours by what this process did and waited
for. Both also tell their processor time, all processes together, which does not count waiting for a busy machine.
`same` says whether both sides recorded the same states and actions. Suites that are not measured stay in the file.

`libero-chunks` and `simpler-chunks` compare a policy that looks at every control step with one that acts in chunks; see
rollout_chunks.py. Their record is docs/results/rollout-chunks.json.
"""

import argparse
import contextlib
import functools
import importlib
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from measured_on import commit, processor
from rollout_chunks import COMPARISONS, compare

from grape.collect import CollectSettings
from grape.collect.plan import Group, make_plan
from grape.collect.recorder import EpisodeRecorder
from grape.collect.rollout import PlannedGroups, PolicyActor, RolloutLog, play_groups
from grape.core.errors import GrapeError
from grape.core.files import read_json, write_bytes, write_json
from grape.core.trajectories import Trajectory
from grape.envs.base import SuiteBase
from grape.envs.pool import WorkerPool
from grape.envs.registry import get_suite
from grape.policies.openvla import compute_norm_stats, create_nano
from grape.store import EpisodeStore
from grape.store.episode_encoding import encode_episode

# Per suite: its task, decisions an episode, and which functions draw and which turn an image into the policy's.
SUITES: dict[str, dict[str, Any]] = {
    "metaworld": {
        "task": "drawer-open",
        "decisions": 40,
        "draws": ("grape.envs.metaworld.camera", "SceneCamera", "image"),
        "road": ("grape.envs.metaworld.world", None, "box_downsample"),
    },
    "libero_object": {
        "task": "0",
        "decisions": 20,
        "draws": ("grape.envs.libero.world", "TaskWorld", "image"),
        "road": ("grape.envs.libero.environment", None, "libero_openvla_v1"),
    },
    "simpler_widowx": {
        "task": "0",
        "decisions": 20,
        "draws": ("grape.envs.simpler.world", "World", "image"),
        "road": ("grape.envs.simpler.environment", None, "simpler_openvla_v1"),
    },
}


class Stopwatch:
    """Seconds by what they went to."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def call(self, name: str, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


@contextlib.contextmanager
def timed(watch: Stopwatch, name: str, where: tuple[str, str | None, str]) -> Iterator[None]:
    """Count the seconds within a function of the package under ``name``."""
    module, owner, attribute = where
    place = importlib.import_module(module)
    place = getattr(place, owner) if owner else place
    function = getattr(place, attribute)

    @functools.wraps(function)
    def measured(*arguments: Any, **named: Any) -> Any:
        return watch.call(name, function, *arguments, **named)

    setattr(place, attribute, measured)
    try:
        yield
    finally:
        setattr(place, attribute, function)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to keep the JSON, printed anyway")
    names = [*SUITES, *COMPARISONS]
    parser.add_argument("--suites", nargs="+", default=names, choices=names)
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--decisions", type=int, help="of an episode; default: 40 in metaworld, else 20")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="episodes of each way of a comparison of chunks")
    options = parser.parse_args()
    record = options.out is not None and options.out.exists()
    result = read_json(options.out) if record else {"suites": {}}
    for name in options.suites:
        before = os.getloadavg()
        try:
            if name in COMPARISONS:
                figures = compare(name, options.rounds)
            else:
                decisions = options.decisions or SUITES[name]["decisions"]
                figures = measure(name, options.episodes, decisions, options.workers)
        except GrapeError as error:  # a simulator that this machine lacks is no reason to lose the others
            print(f"{name} was not measured. {error}", file=sys.stderr)
            continue
        result["suites"][name] = {
            **figures,
            "commit": commit(),
            "command": f"python benchmarks/rollout.py {' '.join(sys.argv[1:])}".strip(),
            "python": platform.python_version(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "load_average": {"before": list(before), "after": list(os.getloadavg())},
        }
        if options.out is not None:
            write_json(options.out, result)
    print(json.dumps(result, indent=1))


def measure(name: str, episodes: int, decisions: int, workers: int) -> dict[str, Any]:
    suite = get_suite(name)
    lanes = max(1, episodes // workers)
    settings = CollectSettings(
        out=Path(),
        suite=name,
        tasks=SUITES[name]["task"],
        policy="nano",
        initial_states=f"0-{episodes - 1}",
        temperature=0.0,
        until="last-step",
        max_steps=decisions,
        lanes=lanes,
    )
    groups = make_plan(settings, suite)
    policy = nano(suite)
    with tempfile.TemporaryDirectory() as folder:
        stores = [EpisodeStore.create(Path(folder) / side, name, {}) for side in ("one", "many")]
        ours = batched(suite, groups, policy, stores[1], workers, lanes)
        alone = sequential(suite, groups, policy, stores[0])
        same = all(equal(stores[0].read(one), stores[1].read(one)) for one in stores[0].ids())
    total = episodes * decisions
    for side in (alone, ours):
        side["decisions_per_s"] = round(total / side["seconds"], 2)
    return {
        "task": groups[0].task.name,
        "versions": dict(suite.versions()),
        "episodes": episodes,
        "decisions": total,
        "workers": workers,
        "lanes": lanes,
        "ratio": round(alone["seconds"] / ours["seconds"], 3),
        "same": same,
        "sequential": alone,
        "ours": ours,
    }


def nano(suite: SuiteBase) -> Any:
    """An untrained nano policy that fits the suite."""
    space = suite.action_space
    low, high = np.array(space.low) * 0.05, np.array(space.high) * 0.05
    low[-1], high[-1] = space.low[-1], space.high[-1]
    actions = np.random.default_rng(0).uniform(low, high, (256, space.dim))
    instructions = sorted({task.instruction for task in suite.tasks})
    statistics = compute_norm_stats(actions, space.names)
    return create_nano(seed=0, norm_stats=statistics, gripper=space.gripper, instructions=instructions).freeze()


def sequential(suite: SuiteBase, groups: Sequence[Group], policy: Any, store: EpisodeStore) -> dict[str, Any]:
    """One environment, one episode after the other, the policy asked with one image."""
    watch = Stopwatch()
    facts = SUITES[suite.name]
    began = time.perf_counter()
    environment = suite.make_environment(groups[0].task)
    environment.reset(0)
    started, worked = time.perf_counter(), time.process_time()
    with timed(watch, "rendering", facts["draws"]), timed(watch, "image preprocessing", facts["road"]):
        for group in groups:
            for planned in group.episodes:
                recorder = EpisodeRecorder(group.task, planned, True, "last-step")
                recorder.record_state(watch.call("reset", environment.reset, planned.initial_state))
                while not recorder.over:
                    batch = watch.call("policy", policy.act, [recorder.observation])
                    action = batch.actions[0, 0].astype(np.float32)
                    recorder.record_decision(action, action, batch.tokens[0, 0], batch.logps[0, 0])
                    recorder.record_state(watch.call("step", environment.step, action))
                write(watch, recorder.trajectory(**facts_of(policy, group, suite)), store)
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    environment.close()
    parts = watch.seconds
    drawn = parts.get("rendering", 0.0) + parts.get("image preprocessing", 0.0)
    simulated = parts.pop("step") + parts.pop("reset") - drawn
    return {
        "seconds": round(seconds, 2),
        "processor_seconds": round(worked, 2),
        "seconds_to_start": round(started - began, 1),
        "shares": shares({"simulation": simulated, **parts}, seconds),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def batched(
    suite: SuiteBase, groups: Sequence[Group], policy: Any, store: EpisodeStore, workers: int, lanes: int
) -> dict[str, Any]:
    """Worker processes and one batched policy, as ``grape collect``."""
    watch, log, quiet = Stopwatch(), RolloutLog(), RolloutLog()
    began = time.perf_counter()
    with WorkerPool(suite.name, workers, lanes, 600.0) as pool:
        # Worlds of both workers are made, and every lane has drawn once.
        short = [replace(group, task=replace(group.task, max_steps=1)) for group in groups[:workers]]
        play(short, pool, policy, suite, quiet, lambda group, trajectories: None)
        processes = [worker.process.program.pid for worker in pool._workers]
        started, worked = time.perf_counter(), time.process_time() + processor_seconds(processes)

        def finished(group: Group, trajectories: list[Trajectory]) -> None:
            for trajectory in trajectories:
                write(watch, trajectory, store)

        play(groups, pool, policy, suite, log, finished)
        seconds = time.perf_counter() - started
        worked = time.process_time() + processor_seconds(processes) - worked
    if log.failures or log.retries:
        raise SystemExit(f"the measurement is void: {log.failures or log.retries}")
    parts = {"policy": log.policy_seconds, "waiting for simulators": log.waiting_seconds, **watch.seconds}
    return {
        "seconds": round(seconds, 2),
        "processor_seconds": round(worked, 2),
        "seconds_to_start": round(started - began, 1),
        "shares": shares(parts, seconds),
    }


def processor_seconds(processes: Sequence[int]) -> float:
    """Processor time that living processes have used, from the kernel's table."""
    ticks = 0
    for process in processes:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # user and system
    return ticks / os.sysconf("SC_CLK_TCK")


def play(
    groups: Sequence[Group],
    pool: WorkerPool,
    policy: Any,
    suite: SuiteBase,
    log: RolloutLog,
    finished: Callable[[Group, list[Trajectory]], None],
) -> None:
    actor = PolicyActor(policy, 0.0, log, suite.action_space)
    play_groups(
        PlannedGroups(groups),
        pool,
        actor,
        versions=suite.versions(),
        display=True,
        log=log,
        until="last-step",
        finished=finished,
    )


def facts_of(policy: Any, group: Group, suite: SuiteBase) -> dict[str, Any]:
    return {
        "versions": suite.versions(),
        **PolicyActor(policy, 0.0, RolloutLog(), suite.action_space).facts(group.task),
    }


def write(watch: Stopwatch, trajectory: Trajectory, store: EpisodeStore) -> None:
    """As the store writes, with encoding and writing told apart."""
    data, _ = watch.call("encoding", encode_episode, trajectory)
    watch.call("writing", write_bytes, store.path / "episodes" / f"{trajectory.meta.episode_id}.parquet", data)


def shares(parts: dict[str, float], seconds: float) -> dict[str, float]:
    known = {name: round(value / seconds, 3) for name, value in parts.items()}
    return {**known, "rest": round(1.0 - sum(parts.values()) / seconds, 3)}


def equal(one: Trajectory, other: Trajectory) -> bool:
    return np.array_equal(one.frames, other.frames) and np.array_equal(one.actions, other.actions)


if __name__ == "__main__":
    main()
