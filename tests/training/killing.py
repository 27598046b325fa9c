"""Runs a verb in child processes, kills them at counted file operations and runs them again.

Called as ``python -m tests.training.killing TRIALS FOLDER ...`` where each folder holds ``sft.yaml`` or ``train.yaml``;
prints one JSON line: how many kills hit a process at work, and which files differ from those of an undisturbed run, a
folder. The children are forked from a process that has
imported everything and computed nothing; no kill depends on the time.
"""

import json
import os
import signal
import sys
import traceback
from dataclasses import replace
from pathlib import Path

import peft  # noqa: F401 - once for all children

from grape.core.settings import load_settings
from grape.training.settings import SftSettings, TrainSettings
from grape.training.sft import run_sft
from grape.training.tpo import run_train
from tests.loop.killing import FileOperations
from tests.training.recordings import snapshot

VERBS = {"sft": (SftSettings, run_sft), "train": (TrainSettings, run_train)}


KILLS = 3


def start(verb, settings, out, due=0, late=0):
    """How many new names a run made, or None if it was killed at the one that was due."""
    report, pipe = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            operations = FileOperations(due, late, pipe)
            VERBS[verb][1](replace(settings, out=out))
            os.write(pipe, str(operations.count).encode())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(pipe)
    with os.fdopen(report) as answer:
        names = answer.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return None
    if status != 0:
        raise SystemExit(f"a run failed with status {status}")
    return int(names)


def disturb(folder, trials):
    verb = next(name for name in VERBS if (folder / f"{name}.yaml").exists())
    settings = load_settings(VERBS[verb][0], folder / f"{verb}.yaml")
    names = start(verb, settings, folder / "undisturbed")
    expected = snapshot(folder / "undisturbed")
    hits, differing = 0, set()
    for trial in range(trials):
        out = folder / f"killed-{trial}"
        for attempt in range(KILLS):
            due = max(1, names // (KILLS + 1) - trial)
            hits += start(verb, settings, out, due, (trial + attempt) % 3) is None
        start(verb, settings, out)
        files = snapshot(out)
        differing |= {name for name in files.keys() | expected.keys() if files.get(name) != expected.get(name)}
    return {"hits": hits, "differing": sorted(differing), "files": len(expected)}


if __name__ == "__main__":
    print(json.dumps({folder: disturb(Path(folder), int(sys.argv[1])) for folder in sys.argv[2:]}))
