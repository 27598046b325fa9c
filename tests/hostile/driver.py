"""Runs grape on hostile input and says what was wrong with how it ended."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HANG_SECONDS = 900.0  # of waiting; of computing, see MOST_SECONDS in the server
MOST_MEMORY = 10**9
"""Bytes by which a command may outgrow a process that has only imported grape, PyTorch and Transformers."""

CONTROL_CHARACTER = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Ending:
    """How a command ended: exit code (None: hung and was killed), bytes it grew by, and what it printed."""

    code: int | None
    grown: int
    stdout: str
    stderr: str


class Driver:
    """The process that forks a child for each command."""

    def __init__(self, log: Path) -> None:
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "HF_", "OPENAI_"))
        }
        settings = {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "COLUMNS": "200",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("forking_server.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=clean | settings,
            )
        assert self._answer() == "ready", log.read_text()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def run(self, words: Sequence[str], folder: Path, seconds: float | None = None) -> Ending:
        """Run ``grape WORDS`` in ``folder/work``; see ``run_child`` and ``take_variables`` in the server."""
        assert self._process.stdin is not None
        request = {"words": list(words), "folder": str(folder), "seconds": seconds or HANG_SECONDS}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._answer())
        texts = [
            (folder.parent / f"{folder.name}.{name}").read_bytes().decode(errors="surrogateescape")
            for name in ("stdout", "stderr")
        ]
        return Ending(answer["code"], answer["grown"], *texts)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def snapshot(folder: Path) -> dict[str, Any]:
    """Kind, size and time of change of everything below ``folder`` except its ``out``; links are not followed."""
    states: dict[str, Any] = {}
    for place, folders, files in os.walk(folder):
        if Path(place).name == ".cache":  # what a store remembers of its files; remade at any time
            continue
        if Path(place) == folder:
            folders.remove("out")
        for name in (*folders, *files):
            path = Path(place, name)
            state = path.lstat()
            changed = 0 if name in folders else state.st_mtime_ns
            states[str(path.relative_to(folder))] = (state.st_mode, 0 if name in folders else state.st_size, changed)
    return states


def problems(ending: Ending, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What must not happen and did, each in a line; empty where all is well."""
    text = ending.stdout + ending.stderr
    texts = []
    if ending.code is None:
        texts.append(f"hung: killed after {HANG_SECONDS:.0f} s")
    elif ending.code not in (0, 1, 2):
        texts.append(f"exit code {ending.code}")
    if (
        "Traceback (most recent call last)" in text
        or "panicked at" in text
        or "A defect of" in text
        or "Exception ignored" in text
    ):
        texts.append("traceback: " + text.strip().rsplit("\n", 1)[-1][:200])
    if ending.grown > MOST_MEMORY:
        texts.append(f"memory grew by {ending.grown / 1e9:.1f} GB")
    if ending.code and not ending.stderr.strip():
        texts.append("no message")
    control = CONTROL_CHARACTER.search(text)
    if control:
        start = max(control.start() - 30, 0)
        texts.append(f"control characters reach the terminal: {text[start : control.end() + 10]!r}")
    if len(text) > 20_000:
        texts.append(f"a message of {len(text):,} characters")
    touched = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    if touched:
        texts.append(f"written outside of --out: {', '.join(touched[:5])}")
    return texts
