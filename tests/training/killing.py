"""Runs a verb in child processes, kills them at random moments and runs them again.

Called as ``python -m tests.training.killing TRIALS FOLDER ...`` where each folder holds ``sft.yaml`` or ``train.yaml``;
prints one JSON line: how many kills hit a process at work, and which files differ from those of an undisturbed run, a
folder. The children are forked from a process that has
imported everything and computed nothing, so that a kill seldom falls into the start of the interpreter.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

from grape.core.settings import load_settings
from grape.training.settings import SftSettings, TrainSettings
from grape.training.sft import run_sft
from grape.training.tpo import run_train
from tests.training.recordings import snapshot

VERBS = {"sft": (SftSettings, run_sft), "train": (TrainSettings, run_train)}


def start(verb, settings, out):
    child = os.fork()
    if child:
        return child
    try:
        VERBS[verb][1](replace(settings, out=out))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def finish(child):
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise SystemExit(f"a run failed with status {status}")


def kill_until_done(verb, settings, out, duration, rng):
    """Number of kills that hit; each start lives a little longer on average, so that the run ends."""
    hits = 0
    for attempt in range(1, 4):
        child = start(verb, settings, out)
        time.sleep(rng.uniform(0.1, 0.35 * attempt) * duration)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        hits += os.WIFSIGNALED(status)
    finish(start(verb, settings, out))
    return hits


def disturb(folder, trials):
    verb = next(name for name in VERBS if (folder / f"{name}.yaml").exists())
    settings = load_settings(VERBS[verb][0], folder / f"{verb}.yaml")
    began = time.perf_counter()
    finish(start(verb, settings, folder / "undisturbed"))
    duration = time.perf_counter() - began
    expected = snapshot(folder / "undisturbed")
    rng = random.Random(0)
    hits, differing = 0, set()
    for trial in range(trials):
        out = folder / f"killed-{trial}"
        hits += kill_until_done(verb, settings, out, duration, rng)
        found = snapshot(out)
        differing |= {name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)}
    return {"hits": hits, "differing": sorted(differing), "files": len(expected)}


if __name__ == "__main__":
    print(json.dumps({folder: disturb(Path(folder), int(sys.argv[1])) for folder in sys.argv[2:]}))
