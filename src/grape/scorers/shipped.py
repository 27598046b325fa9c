"""Programs that come with GRAPE and run learned rewards of other projects, in the interpreter where these live."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.files import content_hash, file_hash
from grape.scorers.program import argument_vector, program_identity

__all__ = ["SHIPPED", "ShippedProgram", "shipped_command", "shipped_identity"]

_FOLDER = Path(__file__).with_name("programs")
_SHARED = "reward_protocol.py"


@dataclass(frozen=True)
class ShippedProgram:
    """A program by which a learned reward answers.

    Attributes:
        script: Its file in ``programs``.
        summary: What it answers, in a few words.
        needs: What the interpreter that runs it needs.
    """

    script: str
    summary: str
    needs: str


SHIPPED: Mapping[str, Mapping[str, ShippedProgram]] = {
    "scorer": {
        "robometer": ShippedProgram(
            "score_robometer.py", "progress by Robometer, at the end of the episode", "lerobot[robometer] 0.6"
        ),
        "sarm": ShippedProgram(
            "score_sarm.py", "progress by a SARM model of yours, at the end of the episode", "lerobot[sarm,dataset] 0.6"
        ),
        "topreward": ShippedProgram(
            "score_topreward.py",
            "TOPReward: log-probability by a vision-language model that the task was done",
            "lerobot[topreward] 0.6",
        ),
    },
    "judge": {
        "robometer": ShippedProgram(
            "judge_robometer.py", "Robometer's preference between the two", "robometer (Python 3.10)"
        )
    },
}
"""By kind, ``"scorer"`` or ``"judge"``, and name."""


def shipped_command(kind: str, name: str, argument: str) -> tuple[str, ...]:
    """Argument vector of ``NAME[:[INTERPRETER] [OPTION...]]``.

    Args:
        kind: ``"scorer"`` or ``"judge"``.
        name: A program of :data:`SHIPPED`.
        argument: What stands behind the colon; without an interpreter this one is taken.

    Raises:
        SettingsError: Quotes do not match, or there is no such interpreter.
    """
    words = _words(kind, name, argument)
    return (words[0] or sys.executable, str(_FOLDER / SHIPPED[kind][name].script), *words[1:])


def shipped_identity(kind: str, name: str, argument: str) -> dict[str, Any]:
    """What the program's answers depend on: its sources and options, wherever GRAPE is installed."""
    sources = [file_hash(_FOLDER / file) for file in (SHIPPED[kind][name].script, _SHARED)]
    return {"program": name, "sources": content_hash(sources), **program_identity(_words(kind, name, argument))}


def _words(kind: str, name: str, argument: str) -> tuple[str, ...]:
    """The interpreter, empty where none is named, and the options."""
    if not argument.strip():
        return ("",)
    if argument.lstrip().startswith("-"):
        return ("", *argument_vector(shlex.join([sys.executable]) + f" {argument}", f"--{kind} {name}:")[1:])
    return argument_vector(argument, f"--{kind} {name}:")
