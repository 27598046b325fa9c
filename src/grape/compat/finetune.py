"""``python -m grape.compat.finetune``: the first public implementation's training command, on this trainer.

Prints the equivalent commands and what becomes of each flag, then runs them: ``grape import grape-rlds`` brings the two
RLDS folders into the form that ``grape train`` reads. Works under ``torchrun``, too, where process 0 alone speaks.
"""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence

from rich.console import Console

from grape.cli.console import ConsoleReporter
from grape.compat.finetune_flags import parse_flags
from grape.compat.rlds_pairs import provide_pairs
from grape.compat.translation import Translation, translate
from grape.core.errors import GrapeError
from grape.core.events import SILENT
from grape.core.launcher import launched_process

__all__ = ["command_line", "main"]


def command_line(translation: Translation) -> str:
    """The equivalent commands, quoted for a POSIX shell, on lines of a flag each."""
    words = [f"{name}={shlex.quote(value)}" for name, value in translation.environment.items()]
    commands = (
        (["grape import grape-rlds"], translation.import_arguments),
        ([" ".join([*words, "grape train"])], translation.arguments),
    )
    for lines, arguments in commands:
        for word in arguments:
            if word.startswith("--"):
                lines.append(f"    {word}")
            else:
                lines[-1] += f" {shlex.quote(word)}"
    return "\n".join(" \\\n".join(lines) for lines, _ in commands)


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Translate, explain, run; returns the exit status.

    Args:
        arguments: The flags; those of the process by default. What follows a ``--`` goes to ``grape train`` as it is
            and wins.
        environment: Where torchrun's variables are looked up; the process's own by default.
    """
    process = launched_process(environment)
    first = process.is_main
    words = list(sys.argv[1:] if arguments is None else arguments)
    cut = words.index("--") if "--" in words else len(words)
    console = Console(stderr=True)
    try:
        translation = translate(parse_flags(words[:cut]), process.count, words[cut + 1 :])
        if first:
            console.print("The equivalent commands:", highlight=False)
            sys.stdout.write(command_line(translation) + "\n")
            sys.stdout.flush()
            for note in translation.notes:
                console.print(f"- {note}", markup=False, highlight=False, soft_wrap=True)
            for warning in translation.warnings:
                console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)
        provide_pairs(translation.pairs, translation.device, ConsoleReporter(console) if first else SILENT)
    except GrapeError as error:
        if first:
            console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return error.exit_code
    from grape.cli.main import main as run_grape

    os.environ.update(translation.environment)
    return run_grape(["train", *translation.arguments])


if __name__ == "__main__":
    sys.exit(main())
