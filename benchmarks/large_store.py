"""Peak memory and minutes of each verb on a synthetic store, by the number of its episodes.

    python benchmarks/large_store.py --episodes 1000 4000 --work /tmp/large --out docs/results/large-store.json
    python benchmarks/large_store.py --episodes 500 100000 --steps 100 --work /tmp/large

A store of Meta-World's drawer-open is written without simulator: the gripper walks to the handle and pulls it, more or
less far, with noise; eight samples of each initial state. The images are all one, so that a tiny policy gives the
log-probabilities of all decisions from a pool. Each verb then runs as a command in a process of its own, whose peak
resident memory and seconds are those that the kernel reports. Finished measurements of the same settings are kept, so
the command can be called again with more episodes. Two numbers of episodes give the growth of memory an episode.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from measured_on import commit, processor

from grape.core.files import read_json, write_json, write_text
from grape.core.trajectories import EpisodeMeta, Observation, Trajectory, rollout_id
from grape.store import EpisodeFile, EpisodeStore

SAMPLES = 8
POOL = 256
VERBS = ("score", "pair", "report", "costs validate", "train")
NAMES = ("dx", "dy", "dz", "gripper")
INSTRUCTION = "open the drawer"
SIDE = 16
UPDATES = 20
"""Updates of a training: its start reads every episode, an update those of its pairs."""
LIMIT_KB = 4.0
"""What memory may grow by an episode."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, nargs="+", default=[1000, 4000])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--verbs", nargs="+", default=list(VERBS), choices=VERBS)
    parser.add_argument("--work", type=Path, required=True, help="folder for stores and runs")
    parser.add_argument("--out", type=Path, help="record to write, with a table beside it (.md)")
    values = parser.parse_args()
    policy = values.work / "policy"
    for episodes in values.episodes:
        folder = values.work / f"{episodes}-episodes-{values.steps}-steps"
        # In a process of its own: the kernel counts what a parent holds when a child begins as the child's.
        writer = multiprocessing.get_context("spawn").Process(
            target=write_store, args=(folder, policy, episodes, values.steps)
        )
        writer.start()
        writer.join()
        if writer.exitcode:
            raise SystemExit("The store could not be written.")
        for verb in values.verbs:
            measure(folder, policy, verb)
    rows = [
        {"episodes": int(path.parent.name.split("-")[0]), "steps": int(path.parent.name.split("-")[2])}
        | read_json(path)
        for path in values.work.glob("*-episodes-*/measured.json")
    ]
    rows.sort(key=lambda row: (row["steps"], row["episodes"]))
    record = {"commit": commit(), "processor": processor(), "stores": rows, "growth": growth(rows)}
    print(json.dumps(record, indent=1))
    if values.out is not None:
        write_json(values.out, record)
        write_text(values.out.with_suffix(".md"), table(record))


def write_policy(path: Path) -> None:
    """A policy of a few thousand weights."""
    from grape.policies.openvla import compute_norm_stats, create_nano, save_policy
    from grape.policies.presets import NanoShape, TowerConfig

    tower = TowerConfig(
        width=16,
        depth=2,
        heads=2,
        mlp_width=32,
        patch=8,
        image_size=SIDE,
        feature_block=0,
        final_norm=False,
        stem="patch",
    )
    statistics = compute_norm_stats(np.random.default_rng(0).uniform(-1, 1, (200, len(NAMES))), NAMES)
    shape = NanoShape(tower=tower, hidden=16, layers=1, heads=2, mlp=24, action_bins=8)
    save_policy(
        create_nano(seed=0, norm_stats=statistics, gripper="+1 closes", instructions=(INSTRUCTION,), shape=shape), path
    )


def write_store(folder: Path, policy: Path, episodes: int, steps: int) -> None:
    """The store, unless it is there; episodes that are there already are kept."""
    store = EpisodeStore.create(
        folder / "store", "metaworld", {"action_space": {"names": list(NAMES), "gripper": "+1 closes"}}
    )
    if len(store) >= episodes:
        return
    from grape.policies.openvla import load_policy

    if not policy.exists():
        write_policy(policy)
    player = load_policy(policy)
    image = np.full((SIDE, SIDE, 3), 127, np.uint8)
    seen = [Observation(image, np.zeros(1, np.float32), INSTRUCTION)] * POOL
    pool = player.act(seen, temperature=1.0, seeds=list(range(POOL)))
    assert pool.tokens is not None
    assert pool.logps is not None
    facts = {
        "policy_hash": player.spec.policy_hash,
        "preprocessing_hash": player.spec.preprocessing_hash,
        "prompt": player.prompt(INSTRUCTION),
        "temperature": 1.0,
        "versions": {"numpy": np.__version__},
    }
    frames = np.repeat(image[None], steps + 1, axis=0)
    for number in range(len(store), episodes):
        drawn = np.random.default_rng(number).integers(0, POOL, steps)
        trajectory = rollout(number, steps, facts, frames, pool.actions[drawn, 0].astype(np.float32))
        trajectory = replace(trajectory, action_tokens=pool.tokens[drawn, 0], token_logps=pool.logps[drawn, 0])
        file = EpisodeFile.encode(trajectory)
        # As the store writes it, but without waiting for the disk.
        (folder / "store" / "episodes").mkdir(exist_ok=True)
        (folder / "store" / "episodes" / f"{file.meta.episode_id}.parquet").write_bytes(file.data)


def rollout(
    number: int,
    steps: int,
    facts: dict[str, Any],
    frames: npt.NDArray[np.uint8],
    actions: npt.NDArray[np.float32],
) -> Trajectory:
    """The gripper walks to the handle and pulls the drawer; every other sample fails half way."""
    rng = np.random.default_rng([1, number])
    state, sample = divmod(number, SAMPLES)
    success = sample % 2 == 0
    way = np.linspace(0, 1, steps + 1)
    reach = np.clip(way * 2, 0, 1)[:, None]
    pull = np.clip(way * 2 - 1, 0, 1) * (1.0 if success else rng.uniform(0.0, 0.7))
    start, goal = np.array([rng.uniform(-0.1, 0.1), 0.6, 0.1]), np.array([0.0, 0.4, 0.1])
    handle = start + pull[:, None] * (goal - start)
    gripper = np.array([0.1, 0.5, 0.3]) * (1 - reach) + handle * reach + rng.normal(0, 0.004, (steps + 1, 3))
    points = {
        "gripper": gripper,
        "finger_left": gripper,
        "finger_right": gripper,
        "object": handle,
        "object_start": np.broadcast_to(start, handle.shape),
        "goal": np.broadcast_to(goal, handle.shape),
    }
    at_handle = (reach[:, 0] == 1).astype(np.float64)
    signals = {
        "gripper_opening": 1 - reach[:, 0],
        "grasped": at_handle,
        "touching": at_handle,
        "opened": pull,
        "object_to_goal": np.linalg.norm(handle - goal, axis=1),
        "success": np.where(np.arange(steps + 1) == steps, float(success), 0.0),
    }
    meta = EpisodeMeta(
        episode_id=rollout_id("drawer-open", state, sample),
        suite="metaworld",
        task="drawer-open",
        task_index=0,
        instruction=INSTRUCTION,
        initial_state=state,
        sample=sample,
        seed=number,
        success=success,
        steps=steps,
        actor="policy",
        **facts,
    )
    return Trajectory(
        meta=meta,
        frames=frames,
        proprio=np.zeros((steps + 1, 1), np.float32),
        actions=actions,
        labels=actions,
        action_tokens=np.zeros(actions.shape, np.int32),
        token_logps=np.zeros(actions.shape, np.float32),
        keypoints={name: np.ascontiguousarray(value, np.float32) for name, value in points.items()},
        signals={name: np.ascontiguousarray(value, np.float32) for name, value in signals.items()},
    )


def measure(folder: Path, policy: Path, verb: str) -> None:
    """Run a verb, unless it was measured, and keep its peak memory and seconds."""
    record = folder / "measured.json"
    if verb in (read_json(record) if record.exists() else {}):
        return
    out = folder / verb.replace(" ", "-")
    if verb != "report":
        shutil.rmtree(out, ignore_errors=True)
    words = {
        "score": ["--store", folder / "store", "--out", out],
        "pair": ["--scores", folder / "score", "--out", out],
        "report": [folder, "--out", folder / "report.html"],
        "costs validate": ["metaworld/drawer-open", "--store", folder / "store"],
        "train": [
            "--pairs",
            folder / "pair",
            "--policy",
            policy,
            "--max-updates",
            str(UPDATES),
            "--device",
            "cpu",
            "--out",
            out,
        ],
    }[verb]
    command = [sys.executable, "-m", "grape", *verb.split(), *map(str, words)]
    began = time.perf_counter()
    log = (folder / f"{verb.replace(' ', '-')}.log").open("wb")
    with log:
        child = os.posix_spawn(command[0], command, os.environ, file_actions=[
            (os.POSIX_SPAWN_DUP2, log.fileno(), 1), (os.POSIX_SPAWN_DUP2, log.fileno(), 2)
        ])  # fmt: skip
        _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - began
    # A trial that rejects the synthetic motion ends with 1, and has run to its end.
    if os.waitstatus_to_exitcode(status) not in ((0, 1) if verb == "costs validate" else (0,)):
        raise SystemExit(f"grape {verb} failed, see {log.name}:\n{Path(log.name).read_text()[-2000:]}")
    measured = read_json(record) if record.exists() else {}  # another call may measure another verb meanwhile
    measured[verb] = {
        "peak_mb": round(usage.ru_maxrss / 1024, 1),
        "seconds": round(seconds, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
    }
    write_json(record, measured)
    print(folder.name, verb, measured[verb], flush=True)


def growth(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Kilobytes an episode between the smallest and the largest store of equal steps, by steps and verb."""
    slopes: dict[str, dict[str, float]] = {}
    for steps in sorted({row["steps"] for row in rows}):
        for verb in VERBS:
            points = [(row["episodes"], row[verb]["peak_mb"]) for row in rows if row["steps"] == steps and verb in row]
            if len(points) > 1:
                (few, low), (many, high) = points[0], points[-1]
                slopes.setdefault(str(steps), {})[verb] = round((high - low) * 1024 / (many - few), 2)
    return slopes


def table(record: dict[str, Any]) -> str:
    """The record for people."""
    lines = [
        "# Large stores",
        "",
        "Peak resident memory, minutes and processor minutes of each verb on synthetic stores of one Meta-World task,",
        "eight samples of each initial state, made and measured by [large_store.py](../../benchmarks/large_store.py).",
        "Memory includes the interpreter and its packages. The machine was shared with other work: minutes are upper",
        "bounds.",
        "",
        "| control steps | episodes | verb | peak MB | minutes | processor minutes |",
        "|---|---|---|---|---|---|",
    ]
    for row in record["stores"]:
        for verb in VERBS:
            if verb in row:
                item = row[verb]
                lines.append(
                    f"| {row['steps']} | {row['episodes']:,} | `{verb}` | {item['peak_mb']:,.0f} "
                    f"| {item['seconds'] / 60:.1f} | {item['processor_seconds'] / 60:.1f} |"
                )
    lines += [
        "",
        "Growth of peak memory, kB an episode, between the smallest and the largest store of equal length (the limit",
        f"is {LIMIT_KB:g}):",
        "",
        "| control steps | " + " | ".join(f"`{verb}`" for verb in VERBS) + " |",
        "|---" * (len(VERBS) + 1) + "|",
    ]
    for steps, slopes in record["growth"].items():
        cells = [f"{slopes[verb]:.1f}" if verb in slopes else "not measured" for verb in VERBS]
        lines.append(f"| {steps} | {' | '.join(cells)} |")
    lines += [
        "",
        f"`train` takes {UPDATES} updates: its start reads every episode, an update those of its pairs. Of decisions",
        "and images as much stays in memory as their caches hold, which is the same for every store.",
    ]
    return "\n".join([*lines, "", f"Commit {record['commit']}; {record['processor']}.", ""])


if __name__ == "__main__":
    main()
