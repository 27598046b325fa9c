"""A translated evaluation: the equivalent ``grape evaluate``, printed, explained, and run."""

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from grape.cli.console import SafeConsole
from grape.cli.main import guarded
from grape.collect import read_checkpoint_info
from grape.core.errors import GrapeError, printable

__all__ = ["EvaluateCall", "command_line", "explain_and_run", "keys_of"]


@dataclass(frozen=True)
class EvaluateCall:
    """The equivalent of one call.

    Attributes:
        arguments: What follows ``grape evaluate``.
        notes: What differs from the original, a sentence or two each.
    """

    arguments: tuple[str, ...]
    notes: tuple[str, ...]


def command_line(call: EvaluateCall) -> str:
    """The equivalent command, quoted for a POSIX shell."""
    return shlex.join(["grape", "evaluate", *call.arguments])


def keys_of(policy: str) -> Sequence[str]:
    """Names of a checkpoint's statistics; none where it cannot be read, which 'grape evaluate' then explains."""
    try:
        return read_checkpoint_info(policy).norm_keys
    except GrapeError:
        return ()


def explain_and_run(
    arguments: Sequence[str] | None, translate: Callable[[Sequence[str], Sequence[str]], EvaluateCall]
) -> int:
    """Translate, explain, run; returns the exit status.

    Args:
        arguments: The flags; those of the process for None. What follows a ``--`` goes to ``grape evaluate`` as it is.
        translate: Makes the call from the flags and from what follows the ``--``.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    cut = words.index("--") if "--" in words else len(words)

    def run() -> int:
        call = translate(words[:cut], words[cut + 1 :])
        console = SafeConsole(stderr=True)
        console.print("The equivalent command:")
        sys.stdout.write(printable(command_line(call)) + "\n")
        sys.stdout.flush()
        for note in call.notes:
            console.print(f"- {note}", soft_wrap=True)
        from grape.cli.main import main as run_grape

        return run_grape(["evaluate", *call.arguments])

    return guarded(words, run, whole_process=arguments is None)
