"""Kills verbs before and after each rename of a file or folder, runs them again and compares all that they left.

Called as ``python -m tests.loop.killing_at_renames FOLDER``; prints one JSON line: by verb the number of kills and
what differed (hidden files count). The children are forked from a process that has imported everything and computed
nothing.
"""

import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from grape.cli.main import main
from tests.loop.killing import MODULES
from tests.training.recordings import record, write_policy

VERBS: dict[str, tuple[int, str]] = {
    "collect": (
        5,
        "collect --suite toy --policy policy --tasks 0 --initial-states 0,1 --samples 2 --temperature 1 --max-steps 9",
    ),
    "merge": (3, "merge collect/out"),
    "score": (3, "score --store collect/out/store"),
    "pair": (1, "pair --scores score/out --no-require-mixed-outcomes"),
    "sft": (5, "sft --data store --epochs 2 --batch-size 32 --checkpoint-every 1 --keep-checkpoints 1 --policy policy"),
    "train": (
        5,
        "train --pairs pair/out --policy policy --epochs 3 --checkpoint-every 1 --keep-checkpoints 1 --result best",
    ),
    "evaluate": (5, "evaluate --policy policy --suite toy --tasks 0 --initial-states 0 --workers 1 --max-steps 6"),
    "export rlds": (5, "export rlds --pairs pair/out"),
    "export merged": (5, "export merged --policy policy"),
    "report": (1, "report --run pair/out"),
}
"""Every how many moments a verb is killed (odd numbers alternate between before and after a rename), and its words."""


def in_child(work: Callable[[], object]) -> int:
    """Status of a forked child that did some work; 0 where all went well."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    status = 1
    try:
        with Path("messages.txt").open("a") as messages:
            os.dup2(messages.fileno(), 1)
            os.dup2(messages.fileno(), 2)
        status = int(bool(work()))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def killed_at(moment: int, words: list[str]) -> Callable[[], object]:
    """The verb in a process that ends itself: before rename ``moment // 2``, or right after it if that is odd."""

    def work() -> object:
        done = 0

        def counting(original: Callable[..., None]) -> Callable[..., None]:
            def rename(*arguments: object, **options: object) -> None:
                nonlocal done
                if done == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                original(*arguments, **options)
                done += 1
                if done == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                done += 1

            return rename

        os.rename, os.replace = counting(os.rename), counting(os.replace)
        return main(words)

    return work


def everything(folder: Path) -> dict[str, str]:
    """Hash of each file that a verb left in a folder, hidden ones and folders included, but for logs with times."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
        if path.name != "log.jsonl"
    }


def disturb(verb: str) -> tuple[int, list[str]]:
    """Number of kills of a verb, and where the results of a killed run differ from those of one never killed."""
    step, command = VERBS[verb]
    place = Path(verb.replace(" ", "-"))
    out = place / "report.html" if verb == "report" else place / "out"
    words = [*command.split(), "--out", str(out)]
    place.mkdir()
    if in_child(lambda: main(words)):
        raise SystemExit(f"{verb} failed: {Path('messages.txt').read_text()}")
    due = everything(place)
    kills, differing, moment = 0, set(), 0

    while True:
        shutil.rmtree(place)
        place.mkdir()
        if not os.WIFSIGNALED(in_child(killed_at(moment, words))):
            break
        kills += 1
        if in_child(lambda: main(words)):
            differing.add(f"moment {moment}: failed")
        files = everything(place)
        wrong = {name for name in files.keys() | due.keys() if files.get(name) != due.get(name)}
        differing |= {f"moment {moment}: {name}" for name in wrong}
        moment += step
    return kills, sorted(differing)


def prepare() -> None:
    record(Path("store"), write_policy(Path("policy")), lengths=(3, 2, 4, 3))


if __name__ == "__main__":
    for module in MODULES:
        importlib.import_module(module)
    os.chdir(sys.argv[1])
    assert in_child(prepare) == 0, Path("messages.txt").read_text()
    print(json.dumps({verb: disturb(verb) for verb in VERBS}))
