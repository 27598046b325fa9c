"""What a check gives, and probes: programs in processes of their own, whose crash is only an answer here."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from grape.core.errors import DataError
from grape.core.reading import parse_json

__all__ = ["Finding", "Level", "ProbeReply", "probe"]

Level = Literal["ok", "warn", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

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
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
        text=True,
        errors="replace",
        start_new_session=True,  # so that children of the probe can be killed with it
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return ProbeReply(failure=f"no answer within {timeout:g} s")
    if process.returncode != 0:
        return ProbeReply(failure=_ending(process.returncode, errors))
    for line in reversed(output.splitlines()):  # libraries may print before and after
        if line.startswith("{"):
            try:
                return ProbeReply(data=parse_json(line, "the answer", allow_nonfinite=True))
            except DataError:
                continue
    return ProbeReply(failure="the probe ended without an answer")


def _ending(code: int, errors: str) -> str:
    """A process's end in words: the signal's name or the exit code, and the last line it complained with."""
    if code < 0:
        try:
            ending = f"crashed with {signal.Signals(-code).name}"
        except ValueError:
            ending = f"crashed with signal {-code}"
    else:
        ending = f"exit code {code}"
    complaints = [line.strip() for line in errors.splitlines() if line.strip()]
    return f"{ending}: {complaints[-1]}" if complaints else ending
