"""What training reads, decodes and computes where data exceed the memory for it: counts, and times beside them.

    python benchmarks/data_reading.py --out /tmp/now.json
    python benchmarks/data_reading.py --before /tmp/earlier.json --out docs/results/data-reading.json

The first form prints what the sources at hand do; the second keeps it beside the record of an earlier commit, made by
the same script. A store of 96 episodes of 60 steps at 64x64 pixels (71 MB decoded) is trained on with memory for a
sixth of it. Counts do not depend on what else the machine does; times do.
"""

import argparse
import collections
import functools
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measured_on import commit, processor

from grape.core.events import SILENT
from grape.core.files import read_json, write_json
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.policies.openvla import compute_norm_stats, create_nano, decoding, save_policy
from grape.policies.openvla.model import OpenVLA
from grape.policies.openvla.policy import OpenVLAPolicy
from grape.store import EpisodeStore, episode_file
from grape.training import SftSettings, batches, run_sft
from grape.training.dataset import load_steps
from grape.training.logprobs import StepLogprobs
from grape.training.loop import TrainLoop

EPISODES, STEPS, SIDE = 96, 60, 64
CACHE_GB = EPISODES / 6 * STEPS * SIDE * SIDE * 3 / 1e9
UPDATES = 90  # an epoch
NAMES = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
VOCABULARY, BINS = 32_064, 256


class Counter:
    """Counts calls, or what they work on, of a function that it stands in for."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()

    def watch(self, owner: Any, name: str, key: str, amount: Callable[..., int] = lambda *_: 1) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def counting(*values: Any, **named: Any) -> Any:
            self.counts[key] += amount(*values)
            return original(*values, **named)

        setattr(owner, name, counting)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--before", type=Path, help="record of an earlier commit")
    options = parser.parse_args()
    torch.set_num_threads(1)
    counter = Counter()
    counter.watch(episode_file, "decode_frames", "images", lambda blobs, shape: len(blobs))
    counter.watch(batches, "derive_rng", "permutations")
    counter.watch(OpenVLA, "image_features", "feature_rows", lambda model, pixels: len(pixels))
    with tempfile.TemporaryDirectory() as folder:
        store, policy = make_store(Path(folder) / "store"), make_policy()
        save_policy(policy, Path(folder) / "policy")
        result = {
            "commit": commit(),
            "processor": processor(),
            "load_average": os.getloadavg()[0],
            "fine_tuning": {
                name: fine_tune(Path(folder), name, counter, changes)
                for name, changes in (("default", {}), ("all steps shuffled", {"shuffle_episodes": 0}))
            },
            "long_episodes": long_episodes(Path(folder) / "long"),
            "feature_cache": features(store, policy, counter),
            "sampling": sampling(),
        }
    if options.before:
        result = {"before": read_json(options.before), "after": result}
    write_json(options.out, result)
    print(json.dumps(result, indent=1))


def make_store(path: Path, episodes: int = EPISODES, steps: int = STEPS, side: int = SIDE) -> EpisodeStore:
    """Episodes whose images share most pixels with the first one, as a fixed camera's do."""
    store = EpisodeStore.create(path, "toy", {"action_space": {"names": list(NAMES), "gripper": "+1 closes"}})
    for index in range(episodes):
        rng = np.random.default_rng(index)
        frames = np.repeat(rng.integers(0, 256, (1, side, side, 3), dtype=np.uint8), steps + 1, axis=0)
        for step in range(steps + 1):
            frames[step, step % 48 : step % 48 + 16, 20:36] = rng.integers(0, 256, 3)
        actions = rng.uniform(-1, 1, (steps, len(NAMES))).astype(np.float32)
        meta = EpisodeMeta(
            episode_id=f"demo-{index:03d}",
            suite="toy",
            task="task",
            task_index=0,
            instruction="open the drawer",
            initial_state=index,
            sample=0,
            seed=index,
            success=True,
            steps=steps,
            actor="expert",
        )
        signals = {"success": np.zeros(steps + 1, np.float32)}
        nothing = np.full(actions.shape, np.nan, np.float32)
        tokens = np.full(actions.shape, -1, np.int32)
        proprio = np.zeros((steps + 1, 8), np.float32)
        store.write(Trajectory(meta, frames, proprio, actions, actions, tokens, nothing, {}, signals))
    return store


def make_policy() -> OpenVLAPolicy:
    """A nano policy with random weights."""
    actions = np.random.default_rng(0).uniform(-1, 1, (200, len(NAMES)))
    statistics = compute_norm_stats(actions, NAMES)
    return create_nano(seed=0, norm_stats=statistics, gripper="+1 closes", instructions=("open the drawer",))


def fine_tune(folder: Path, name: str, counter: Counter, changes: dict[str, Any]) -> dict[str, Any]:
    """Images decoded before the first update and in each; permutations drawn; seconds, loading apart."""
    before_updates: list[tuple[dict[str, int], float]] = []
    original = TrainLoop.run

    def watched(*values: Any, **named: Any) -> Any:
        before_updates.append((dict(counter.counts), time.perf_counter()))
        return original(*values, **named)

    settings = SftSettings(
        data=(folder / "store",),
        out=folder / name,
        policy=folder / "policy",
        max_updates=UPDATES,
        epochs=1,
        picture_cache_gb=CACHE_GB,
        checkpoint_every=0,
        device="cpu",
        **changes,
    )
    counter.counts.clear()
    began = time.perf_counter()
    TrainLoop.run = watched  # type: ignore[method-assign]
    try:
        run_sft(settings)
    finally:
        TrainLoop.run = original  # type: ignore[method-assign]
    ended = time.perf_counter()
    counts, started = before_updates[0]
    images = counter.counts["images"] - counts.get("images", 0)
    return {
        "images_decoded_before_first_update": counts.get("images", 0),
        "seconds_before_first_update": round(started - began, 3),
        "images_decoded_an_update": round(images / UPDATES, 1),
        "images_used_an_update": settings.batch_size,
        "updates": UPDATES,
        "permutations": counter.counts["permutations"],
        "seconds_an_update": round((ended - started) / UPDATES, 3),
    }


def long_episodes(path: Path) -> dict[str, Any]:
    """What a start reads of episodes of 300 steps at 224x224 pixels: seconds an episode."""
    store = make_store(path, episodes=10, steps=300, side=224)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        load_steps([store], [store.ids()], SILENT)
        times.append((time.perf_counter() - began) / 10)
    return {"milliseconds_an_episode": round(1e3 * min(times), 2)}


def features(store: EpisodeStore, policy: OpenVLAPolicy, counter: Counter) -> dict[str, Any]:
    """Rows of features computed for single steps in random order, with memory for a tenth of them."""
    policy.model.requires_grad_(False)
    ids = store.ids()[:16]
    steps = load_steps([store], [ids], SILENT)
    labels_NKD = steps.chunk_labels(np.arange(len(steps)))[0]
    steps = replace(steps, tokens_NKD=np.asarray(policy.action_tokens(labels_NKD), dtype=np.int64))
    size = policy.model.image_features(policy.processor.pixels(steps.images_NHWC[np.arange(1)])).nbytes
    logps = StepLogprobs(policy, steps, 16, 0.1 * size * len(steps))
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(steps)))
    counter.counts.clear()
    began = time.perf_counter()
    with torch.no_grad():
        for rows in torch.split(order[:320], 16):
            logps(rows)
    seconds = time.perf_counter() - began
    return {"rows_used": 320, "rows_computed": counter.counts["feature_rows"], "seconds": round(seconds, 3)}


def sampling() -> dict[str, Any]:
    """Noise of one token for 16 rows over a vocabulary of 32,064 ids, 256 of them actions."""
    rows = 16
    logits = torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(0))
    restricted = decoding.choose_tokens.__code__.co_argcount > 3
    more: Any = [np.random.default_rng(row) for row in range(rows)]
    arguments = (torch.arange(rows), 0, torch.arange(31_744, 31_744 + BINS)) if restricted else (more,)
    times = []
    for _ in range(20):
        began = time.perf_counter()
        decoding.choose_tokens(logits, 1.0, *arguments)
        times.append(time.perf_counter() - began)
    return {
        "rows": rows,
        "noise_numbers_a_row_and_token": BINS if restricted else VOCABULARY,
        "milliseconds_a_token": round(1e3 * sorted(times)[len(times) // 2], 3),
    }


if __name__ == "__main__":
    main()
