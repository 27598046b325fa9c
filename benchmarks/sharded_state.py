"""What two processes of a sharded run send, hold and write: counts of an update, a save and a resumption.

    OMP_NUM_THREADS=1 python -m torch.distributed.run --nproc-per-node 2 benchmarks/sharded_state.py --out /tmp/now.json

With ``--before FILE`` the record of an earlier commit, made by the same script, is kept beside it. A nano policy, all
parameters trained, two processes on a CPU. Nothing here is a time.
"""

import argparse
import collections
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from data_reading import Counter, make_policy
from measured_on import commit
from safetensors import safe_open
from torch.distributed.tensor import DTensor

from grape.core.files import read_json, write_json, write_jsonl
from grape.core.preferences import PreferencePair
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.policies.openvla import save_policy
from grape.policies.openvla.policy import OpenVLAPolicy
from grape.preferences.records import pair_to_row
from grape.store import EpisodeStore
from grape.training import TrainSettings, run_train
from grape.training.distributed import join_process_group
from grape.training.loop import TrainLoop

PAIRS, STEPS, SIDE, UPDATES = 4, 32, 64, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--before", type=Path, help="record of an earlier commit")
    options = parser.parse_args()
    processes = join_process_group("cpu")
    folder = processes.run_on_main(lambda: Path(tempfile.mkdtemp(prefix="sharded-")))
    policy = make_policy()
    processes.run_on_main(lambda: prepare(folder, policy))
    counter = Counter()
    counter.watch(dist, "reduce_scatter_single", "reductions")
    counter.watch(DTensor, "full_tensor", "bytes gathered", lambda tensor: tensor.numel() * tensor.element_size())
    by_phase = watch_phases(counter)
    settings = TrainSettings(
        pairs=folder / "pairs",
        policy=folder / "policy",
        out=folder / "run",
        sharding="full",
        reference="recomputed",
        pairs_per_update=PAIRS,
        epochs=UPDATES,
        micro_batch=16,
        device="cpu",
    )
    run_train(settings)
    processes.run_on_main(lambda: forget_result(folder / "run"))
    by_phase["resumption"].clear()
    run_train(replace(settings, keep_checkpoints=3))
    checkpoint = folder / "run" / "checkpoints" / f"update-{UPDATES:06d}"
    result: dict[str, Any] = {
        "commit": commit(),
        "parameter_bytes": 4 * sum(parameter.numel() for parameter in policy.model.parameters()),
        "micro_batches_an_update": 2 * PAIRS * STEPS // 16 // processes.size,
        "reductions_an_update": by_phase["update"]["reductions"] / UPDATES,
        "bytes_gathered_by_each_process_in_a_save": by_phase["save"]["bytes gathered"],
        "bytes_each_process_reads_to_resume": processes.gather(by_phase["resumption"]["bytes read"]),
        "bytes_of_files_in_a_checkpoint": sorted(path.stat().st_size for path in checkpoint.rglob("*.safetensors")),
    }
    if options.before:
        result = {"before": read_json(options.before), "after": result}
    if processes.is_main:
        write_json(options.out, result)
        print(json.dumps(result, indent=1))


def watch_phases(counter: Counter) -> dict[str, "collections.Counter[str]"]:
    """Counts of updates, saves and resumptions apart."""
    from grape.training.checkpoints import CheckpointFolder

    phases: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)

    def watch(owner: type, name: str, phase: str) -> None:
        original = getattr(owner, name)

        def phased(*values: Any, **named: Any) -> Any:
            before = counter.counts.copy()
            try:
                return original(*values, **named)
            finally:
                phases[phase] += counter.counts - before

        setattr(owner, name, phased)

    watch(TrainLoop, "_update", "update")
    watch(CheckpointFolder, "save", "save")
    watch(CheckpointFolder, "restore", "resumption")
    watch_reads(counter)
    return phases


def watch_reads(counter: Counter) -> None:
    """Count the bytes of tensors, and slices of tensors, that are read from safetensors files."""
    import safetensors

    from grape.training import checkpoints

    class Slice:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def __getitem__(self, part: Any) -> torch.Tensor:
            value: torch.Tensor = self._inner[part]
            counter.counts["bytes read"] += value.nbytes
            return value

    class Opened:
        def __init__(self, *values: Any, **named: Any) -> None:
            self._inner = safe_open(*values, **named)

        def __enter__(self) -> "Opened":
            self._inner.__enter__()
            return self

        def __exit__(self, *error: Any) -> None:
            self._inner.__exit__(*error)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def get_tensor(self, name: str) -> torch.Tensor:
            value: torch.Tensor = self._inner.get_tensor(name)
            counter.counts["bytes read"] += value.nbytes
            return value

        def get_slice(self, name: str) -> Slice:
            return Slice(self._inner.get_slice(name))

    checkpoints.safe_open = Opened  # type: ignore[assignment,misc]
    safetensors.safe_open = Opened  # type: ignore[assignment,misc]


def prepare(folder: Path, policy: OpenVLAPolicy) -> None:
    """A policy, episodes that it might have sampled, and pairs of them."""
    save_policy(policy, folder / "policy")
    store = EpisodeStore.create(folder / "store", "toy", {"action_space": {}})
    generator = torch.Generator().manual_seed(0)
    for index in range(2 * PAIRS):
        frames = torch.randint(0, 256, (STEPS + 1, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator).numpy()
        actions = (2 * torch.rand(STEPS, 7, generator=generator) - 1).numpy()
        meta = EpisodeMeta(
            episode_id=f"toy-{index}",
            suite="toy",
            task="task",
            task_index=0,
            instruction="open the drawer",
            initial_state=index // 2,
            sample=index % 2,
            seed=index,
            success=index % 2 == 0,
            steps=STEPS,
            actor="policy",
            preprocessing_hash=policy.preprocessing_hash,
            prompt=policy.prompt("open the drawer"),
        )
        nothing, proprio = torch.full((STEPS, 7), torch.nan).numpy(), torch.zeros(STEPS + 1, 1).numpy()
        signals = {"success": torch.zeros(STEPS + 1).numpy()}
        tokens = policy.action_tokens(actions)
        store.write(Trajectory(meta, frames, proprio, actions, actions, tokens, nothing, {}, signals))
    rows = [
        PreferencePair(
            pair_id=f"pair-{number}",
            task="task",
            initial_state=number,
            chosen=f"toy-{2 * number}",
            rejected=f"toy-{2 * number + 1}",
            margin=1.0,
            mode="best-worst",
            reason="",
        )
        for number in range(PAIRS)
    ]
    write_json(folder / "pairs" / "run.json", {"verb": "pair"})
    write_jsonl(folder / "pairs" / "pairs.jsonl", [pair_to_row(pair) for pair in rows])
    write_json(folder / "pairs" / "done.json", {"store": str(store.path.resolve())})


def forget_result(run: Path) -> None:
    """Make a complete run one that stopped after its last checkpoint."""
    (run / "done.json").unlink()


if __name__ == "__main__":
    main()
