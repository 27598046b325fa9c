"""Runs trainings in two processes; called by torchrun with the world's folder.

``python -m torch.distributed.run --nproc-per-node 2 -m tests.training.two_processes FOLDER``
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

from grape.core.errors import DataError, GrapeError
from grape.core.settings import load_settings
from grape.training import checkpoints, run_train
from grape.training.distributed import ProcessGroup, join_process_group
from grape.training.loop import TrainLoop
from grape.training.settings import TrainSettings

CASES = {
    "lora": {"lora_rank": 2, "gradient": "one-pass"},
    "sharded": {"sharding": "full"},
    "best": {"result": "best", "lora_rank": 2, "lr": 1e-4},
    "kto": {"method": "kto", "pairs": None, "pairs_per_update": 1, "beta": 0.5, "holdout": 0.4},
    "recomputed": {"reference": "recomputed", "holdout": 0.4, "pairs_per_update": 1},
}
CHUNK_CASES = {
    "sharded": {"sharding": "full", "activation_checkpointing": True},
    "recomputed": {"sharding": "full", "reference": "recomputed", "method": "step-dpo", "pairs_per_update": 1},
    "lora": {"lora_rank": 2, "gradient": "one-pass"},
}
"""Of a policy that decides in chunks; its folder holds a file ``chunks``."""


def settings_of(settings, folder, name):
    """Settings of a case; those without pairs learn from the scores beside them."""
    changes = CASES[name] | ({"scores": folder / "scores"} if "pairs" in CASES[name] else {})
    return replace(settings, **changes)


class KillError(Exception):
    """Stands for the end of all processes."""


def run_interrupted(settings):
    """Stop after three updates, as a kill would, then run again."""
    honest = TrainLoop._update

    def dying(self, update, *rest):
        if update == 3:
            raise KillError
        return honest(self, update, *rest)

    TrainLoop._update = dying
    try:
        run_train(settings)
    except KillError:
        pass
    finally:
        TrainLoop._update = honest
    run_train(settings)


def write_last(folder):
    """The process that writes is the later one each time, as with a large model: the other must wait for it."""
    decide, save = ProcessGroup.run_on_main, checkpoints.save_tensors
    arrivals = folder / "arrivals"
    arrivals.touch()
    calls = 0

    def arrive(self, work):
        nonlocal calls
        calls += 1
        if not self.is_main:
            with arrivals.open("a") as file:
                file.write(".")
        return decide(self, work)

    def save_after_the_other_arrived(*arguments, **options):
        while arrivals.stat().st_size < calls:
            time.sleep(0.005)
        save(*arguments, **options)

    ProcessGroup.run_on_main, checkpoints.save_tensors = arrive, save_after_the_other_arrived


def check_processes(folder):
    """What the trainer relies on, asked of real processes."""
    processes = join_process_group("cpu")
    assert processes.size == 2
    assert processes.gather(processes.rank) == [0, 1]
    assert processes.run_on_main(lambda: f"from {processes.rank}") == "from 0"

    def fail():
        raise DataError("No.", "Because.")

    try:
        processes.run_on_main(fail)
    except GrapeError as error:
        (folder / f"told-{processes.rank}").write_text(error.hint)


def main(folder):
    settings = load_settings(TrainSettings, folder / "train.yaml")
    if (folder / "chunks").exists():
        for name in CHUNK_CASES:
            run_train(replace(settings, **CHUNK_CASES[name], out=folder / "two" / name))
        return
    check_processes(folder)
    write_last(folder)
    for name in CASES:
        run_train(replace(settings_of(settings, folder, name), out=folder / "two" / name))
    run_interrupted(replace(settings, out=folder / "two" / "sharded-again", sharding="full", checkpoint_every=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
