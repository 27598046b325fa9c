"""``python -m grape.compat.main_inference``: SimplerEnv's evaluation command, as the first public GRAPE gives it.

Prints the equivalent ``grape evaluate`` and what becomes of each flag, then runs it.
"""

import shlex
import sys
from collections.abc import Sequence

from rich.console import Console

from grape.collect import read_statement
from grape.compat.inference_flags import parse_flags
from grape.compat.inference_translation import InferenceTranslation, translate
from grape.core.errors import GrapeError

__all__ = ["command_line", "main"]


def command_line(translation: InferenceTranslation) -> str:
    """The equivalent command, quoted for a POSIX shell."""
    return shlex.join(["grape", "evaluate", *translation.arguments])


def main(arguments: Sequence[str] | None = None) -> int:
    """Translate, explain, run; returns the exit status.

    Args:
        arguments: The flags; those of the process by default. What follows a ``--`` goes to ``grape evaluate`` as it is
            and wins.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    cut = words.index("--") if "--" in words else len(words)
    console = Console(stderr=True)
    try:
        translation = translate(parse_flags(words[:cut]), words[cut + 1 :], _keys_of)
    except GrapeError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return error.exit_code
    console.print("The equivalent command:", highlight=False)
    sys.stdout.write(command_line(translation) + "\n")
    sys.stdout.flush()
    for note in translation.notes:
        console.print(f"- {note}", markup=False, highlight=False, soft_wrap=True)
    from grape.cli.main import main as run_grape

    return run_grape(["evaluate", *translation.arguments])


def _keys_of(policy: str) -> Sequence[str]:
    """Names of a checkpoint's statistics; none where it cannot be read, which 'grape evaluate' then explains."""
    try:
        return read_statement(policy).norm_keys
    except GrapeError:
        return ()


if __name__ == "__main__":
    sys.exit(main())
