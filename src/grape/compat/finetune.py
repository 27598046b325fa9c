"""``python -m grape.compat.finetune``: the first public implementation's training command, on this trainer.

Prints the equivalent commands and what becomes of each flag, then runs them: ``grape import grape-rlds`` brings the two
RLDS folders into the form that ``grape train`` reads. Works under ``torchrun``, too, where only rank 0 prints.
"""

import datetime
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from grape.cli.console import ConsoleReporter, SafeConsole
from grape.cli.main import guarded
from grape.compat.finetune_flags import parse_flags
from grape.compat.translation import Translation, translate
from grape.core.errors import GrapeError, printable
from grape.core.events import SILENT, Reporter
from grape.core.launched import launched_process
from grape.exchange import ImportGrapeRldsSettings, run_import_grape_rlds
from grape.training.distributed import join_process_group

__all__ = ["command_line", "main", "provide_pairs"]

_PATIENCE = datetime.timedelta(days=1)


def provide_pairs(settings: ImportGrapeRldsSettings, device: str, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Make sure that ``settings.out`` holds the preference pairs of two RLDS data sets, with a policy's tokens.

    An import that is complete is not repeated; one that was killed is finished. Of several processes the first one
    works, the others wait.

    Args:
        settings: What to import; names the policy.
        device: Where the training will compute, as for ``grape train``.
        reporter: Progress and warnings.

    Returns:
        The import's summary.

    Raises:
        SettingsError: There is no such policy.
        DataError: A data set is missing or damaged, or the sides cannot be joined.
        CompatibilityError: The folder holds pairs of other data.
    """
    processes = join_process_group(device, _PATIENCE)
    return processes.run_on_main(lambda: run_import_grape_rlds(settings, reporter if processes.is_main else SILENT))


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

    def run() -> int:
        try:
            return translate_and_run()
        except GrapeError as error:
            if first:
                raise
            return error.exit_code

    def translate_and_run() -> int:
        translation = translate(parse_flags(words[:cut]), process.count, words[cut + 1 :])
        console = SafeConsole(stderr=True)
        if first:
            console.print("The equivalent commands:")
            sys.stdout.write(printable(command_line(translation)) + "\n")
            sys.stdout.flush()
            for note in translation.notes:
                console.print(f"- {note}", soft_wrap=True)
            for warning in translation.warnings:
                console.print(f"warning: {warning}", style="yellow", soft_wrap=True)
        provide_pairs(translation.pairs, translation.device, ConsoleReporter(console) if first else SILENT)
        os.environ.update(translation.environment)
        from grape.cli.main import main as run_grape

        return run_grape(["train", *translation.arguments])

    return guarded(words, run, whole_process=arguments is None)


if __name__ == "__main__":
    sys.exit(main())
