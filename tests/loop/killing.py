"""Runs the loop or another verb in child processes, kills them at places spread over its writes, runs them again.

Called as ``python -m tests.loop.killing CONFIG FOLDER KILLS [VERB]``; ``FOLDER/whole/run`` is an undisturbed run and
``FOLDER/killed/run`` one that was killed. Prints one JSON line: before which new file each kill came. The children are
forked from a process that has imported everything and computed nothing, and a kill comes at a counted rename or fsync,
not after a time: neither the start of the interpreter nor the load of the machine has a part in it.
"""

import importlib
import itertools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

MODULES: tuple[str, ...] = (
    "torch",
    "scipy.stats",
    "jinja2",
    "pyarrow.compute",
    "grape.policies.openvla",
    "grape.training.sft",
    "grape.training.tpo",
)
MODULES += ("grape.cli.main", "grape.cli.verb", "grape.cli.verbs.loop", "grape.cli.verbs.study", "grape.study.page")


class FileOperations:
    """Counts the renames that make something new, in this process, and kills it at a chosen operation.

    Args:
        due: At which new name; 0 never.
        late: How many fsyncs later: 0 before the rename, 1 before the folder is synced, 2 with the next file written
            and not yet synced.
        pipe: File descriptor that gets the name first.
    """

    def __init__(self, due: int, late: int, pipe: int) -> None:
        self.count = 0
        self._due, self._late, self._pipe = due, late, pipe
        self._name = ""
        self._fsync = os.fsync
        os.fsync = self._at_fsync  # type: ignore[assignment]
        sys.addaudithook(self._at_event)

    def _at_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and not os.path.lexists(arguments[1]):
            self.count += 1
            if self.count == self._due:
                self._name = os.fspath(arguments[1])
                if self._late == 0:
                    self._die()

    def _at_fsync(self, descriptor: Any) -> None:
        if self._name:
            self._late -= 1
            if self._late == 0:
                self._die()
        self._fsync(descriptor)

    def _die(self) -> None:
        os.write(self._pipe, self._name.encode())
        os.kill(os.getpid(), signal.SIGKILL)


def run(config: Path, folder: Path, verb: str, due: int = 0, late: int = 0) -> tuple[int, str]:
    """One start of the loop, under a name that is the same in every run: some files hold paths.

    Returns:
        The number of new names it made, and the name it was killed at (empty if it ended).
    """
    folder.mkdir(parents=True, exist_ok=True)
    report, pipe = os.pipe()
    child = os.fork()
    if child == 0:
        _be_the_child(config, folder, verb, due, late, pipe)
    os.close(pipe)
    with os.fdopen(report) as lines:
        answer = lines.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return due, answer
    if status != 0:
        raise SystemExit(f"grape {verb} failed with status {status}")
    return int(answer), ""


def _be_the_child(config: Path, folder: Path, verb: str, due: int, late: int, pipe: int) -> None:
    from grape.cli.main import main

    code = 1
    try:
        os.chdir(folder)
        with open("stdout", "w") as output:
            os.dup2(output.fileno(), 1)
        operations = FileOperations(due, late, pipe)
        code = main([verb, "--config", str(config), "--out", "run", "--json"])
        sys.stdout.flush()
        os.write(pipe, str(operations.count).encode())
    finally:
        os._exit(code)


def disturb(config: Path, folder: Path, kills: int, verb: str) -> list[str]:
    """A whole run and a killed one; the names at which the kills came."""
    names, _ = run(config, folder / "whole", verb)
    apart = names // (kills + 1)  # a start passes by what is there already, so each one goes on where the last ended
    assert apart > 3, f"{names} files are too few for {kills} kills"
    places: list[str] = []
    for number in itertools.count():
        _, name = run(config, folder / "killed", verb, apart if number < kills else 0, number % 3)
        if not name:
            return places
        places.append(name)
    raise AssertionError


if __name__ == "__main__":
    for module in MODULES:
        importlib.import_module(module)
    print(json.dumps(disturb(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), (*sys.argv[4:], "loop")[0])))
