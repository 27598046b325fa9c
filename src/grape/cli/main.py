"""Entry point: pick the verb, run it, turn errors into sentences and exit codes.

Exit codes: 0 done, 1 the work failed, 2 the call can be mended by the user, 130 interrupted.
"""

import errno
import importlib
import json
import sys
from collections.abc import Sequence

from rich.console import Console

from grape import __version__
from grape.core.errors import GrapeError, SettingsError, did_you_mean

__all__ = ["VERBS", "main"]

VERBS = {
    "demo": "The whole way on Meta-World with a nano policy: demonstrations to report, in minutes on a CPU",
    "collect": "Roll a policy or an expert out in a simulator and record every step",
    "predict": "Ask a policy for the action to one picture and instruction",
    "sft": "Train a policy from demonstrations (supervised fine-tuning)",
    "score": "Score recorded trajectories: R_self, R_ext, I_success, R_GCPG",
    "pair": "Make preference pairs from scores",
    "train": "Align a policy with preference pairs: trajectory-wise preference optimisation",
    "evaluate": "Measure a policy on fixed, held-out initial states",
    "compare": "Compare two evaluations, paired by initial state",
    "loop": "Iterate collect, score, pair, train, evaluate; resumable, with a gate",
    "report": "Write one HTML page about a run",
    "costs": "Cost specifications: list, show, check, validate, generate and import them",
    "keypoints": "Propose keypoints on a recording's picture and number them",
    "import": "Read data of other projects",
    "lint": "Look for known defects in data of other projects",
    "export": "Write data and checkpoints for other projects",
    "doctor": "Check this machine and say how to mend what is missing",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        _print_overview()
        return 0
    if words[0] in ("-V", "--version"):
        sys.stdout.write(f"grape {__version__}\n")
        return 0
    try:
        return _dispatch(words[0], words[1:])
    except GrapeError as error:
        if "--json" in words:
            sys.stdout.write(json.dumps({"error": error.message, "hint": error.hint}) + "\n")
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("Interrupted. What was finished is kept: run the same command again to go on.", 130)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return _fail(f"The disk is full: {error}.\n  -> Free space and run the same command again: it resumes.", 1)
        if isinstance(error, BrokenPipeError):
            return 1
        what = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        return _fail(
            f"The system refused a file or connection: {what}.\n"
            "  -> Check the path and its permissions. What was finished is kept: run the same command again.",
            1,
        )


def _dispatch(name: str, arguments: list[str]) -> int:
    if name not in VERBS:
        raise SettingsError(f"Unknown verb {name!r}.", did_you_mean(name, VERBS))
    from grape.cli.verb import run_verb

    verb = importlib.import_module(f"grape.cli.verbs.{name}").VERB
    return run_verb(verb, arguments)


def _fail(message: str, code: int) -> int:
    Console(stderr=True).print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    return code


def _print_overview() -> None:
    console = Console()
    console.print(f"[bold]grape[/bold] {__version__}: align vision-language-action policies with preferences\n")
    console.print("usage: grape VERB [options]        grape VERB --help explains a verb\n", markup=False)
    width = max(map(len, VERBS)) + 2
    for name, summary in VERBS.items():
        console.print(f"  [bold]{name:<{width}}[/bold]{summary}", highlight=False)
    console.print(
        "\nThe way of the data: collect -> score -> pair -> train -> evaluate -> report; loop repeats it."
        "\nStart with:  grape doctor   then   grape demo",
        markup=False,
        highlight=False,
    )


if __name__ == "__main__":
    sys.exit(main())
