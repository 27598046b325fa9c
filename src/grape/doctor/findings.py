"""Results of checks, and probes: programs in separate processes, so that a crash becomes a result."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from typing import Any, Literal

from grape.core.errors import DataError
from grape.core.reading import parse_json

__all__ = ["MAX_TIMEOUT", "Finding", "Level", "ProbeReply", "probe", "run_bounded"]

Level = Literal["ok", "warn", "error"]

MAX_TIMEOUT = 86_400
"""Seconds; the system cannot count much longer times."""
_MOST_OUTPUT = 2**20
_LAST_SECONDS = 5.0


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        name: What was looked at, e.g. ``"python"`` or ``"extra train"``.
        level: ``"ok"``; ``"warn"`` where something is slow or not available; ``"error"`` where the work that was asked
            about cannot be done.
        found: What was seen, with versions and sizes.
        fix: The command or step that fixes it; empty where nothing needs fixing.
    """

    name: str
    level: Level
    found: str
    fix: str = ""


@dataclass(frozen=True)
class ProbeReply:
    """How a probe ended.

    Attributes:
        data: The JSON object on the last line of standard output; empty where there was none.
        failure: Why the probe gave no answer (signal, time limit, exit code with the last line of standard error);
            empty on success.
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    failure: str = ""


def probe(arguments: Sequence[str], timeout: float, environment: Mapping[str, str] | None = None) -> ProbeReply:
    """Run ``python *arguments`` with this interpreter and read one JSON object from it.

    Args:
        arguments: What follows the interpreter, e.g. ``("-c", "...")`` or ``("-m", "module", "word")``.
        timeout: Seconds after which the probe and everything it started are killed.
        environment: Variables to set over the inherited ones.

    Returns:
        The probe's answer; never raises for what happens inside the probe.
    """
    code, output, errors = run_bounded([sys.executable, *arguments], timeout, environment)
    if code is None:
        return ProbeReply(failure=f"no answer within {timeout:g} s")
    if code != 0:
        return ProbeReply(failure=_ending(code, errors))
    for line in reversed(output.splitlines()):  # libraries may print before and after
        if line.startswith("{"):
            try:
                return ProbeReply(data=parse_json(line, "the answer", allow_nonfinite=True))
            except DataError:
                continue
    return ProbeReply(failure="the probe ended without an answer")


def run_bounded(
    command: Sequence[str], timeout: float, environment: Mapping[str, str] | None = None
) -> tuple[int | None, str, str]:
    """Run a program; exit code (None: it did not end in time), and the last part of each output, whatever its bytes.

    Args:
        command: The program and its arguments.
        timeout: Seconds after which it and everything it started are killed.
        environment: Variables to set over the inherited ones.

    Raises:
        OSError: It cannot be started.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
        start_new_session=True,  # so that children of the program can be killed with it
    )
    output_ends = (bytearray(), bytearray())
    readers = [
        threading.Thread(target=_keep_end, args=(pipe, end), daemon=True)
        for pipe, end in zip((process.stdout, process.stderr), output_ends, strict=True)
    ]
    for reader in readers:
        reader.start()
    try:
        code = process.wait(timeout=min(timeout, MAX_TIMEOUT))
    except subprocess.TimeoutExpired:
        code = None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for reader in readers:
        reader.join(_LAST_SECONDS)  # a child in a session of its own may hold the pipe open
    output, errors = (bytes(end).decode("utf-8", "replace") for end in output_ends)
    return code, output, errors


def _keep_end(pipe: BufferedReader, end: bytearray) -> None:
    """Read a pipe to its end, keeping the last part."""
    with pipe:
        while part := pipe.read1(65_536):
            end += part
            del end[:-_MOST_OUTPUT]


def _ending(code: int, errors: str) -> str:
    """How a process ended: the signal's name or the exit code, and the last line of its standard error."""
    if code < 0:
        try:
            ending = f"crashed with {signal.Signals(-code).name}"
        except ValueError:
            ending = f"crashed with signal {-code}"
    else:
        ending = f"exit code {code}"
    complaints = [line.strip() for line in errors.splitlines() if line.strip()]
    return f"{ending}: {complaints[-1]}" if complaints else ending
