"""Entry point: select the verb, run it, turn errors into messages and exit codes.

Exit codes: 0 done, 1 the work failed, 2 the call can be fixed by the user, 130 interrupted (Ctrl-C), 143 terminated.
Nothing heavy is imported before signals are handled.

The first signal (Ctrl-C or SIGTERM) raises an exception, so that workers end and temporary files are removed. A
second one prints a line; a third one ends the process at once.
"""

import contextlib
import errno
import importlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

from grape.cli import leave_early
from grape.core.errors import GrapeError, SettingsError, did_you_mean, printable, shortened

__all__ = ["SPECIAL", "VERBS", "Interrupted", "guarded", "interruptible", "main"]

VERBS = {
    "doctor": "Check this machine and say how to repair what is missing",
    "demo": "Everything on Meta-World with a nano policy: demonstrations to report, in minutes on a CPU",
    "collect": "Roll a policy or an expert out in a simulator and record every decision",
    "merge": "Join episode stores: shards of one collection, or collections that were played alike",
    "sft": "Train a policy from demonstrations (supervised fine-tuning)",
    "score": "Score recorded trajectories: R_self, R_ext, I_success, R_GCPG",
    "pair": "Make preference pairs from scores",
    "train": "Align a policy with preference pairs: trajectory-wise preference optimization",
    "evaluate": "Measure a policy on fixed, held-out initial states",
    "compare": "Compare two evaluations, paired by initial state",
    "report": "Write one HTML page about a run",
    "loop": "Iterate collect, score, pair, train, evaluate; resumable, with a gate",
    "study": "Compare ways to use the same rollouts: arms, seeds, paired tests; resumable",
    "agree": "Measure how scorers, judges, people and success agree on which of two episodes is better",
    "costs": "Cost specifications: list, show, check, validate, generate and import them",
    "label": "Let people vote on which of two episodes is better, on a page of this machine",
    "judges": "Scorers and judges: list them, and try one before it is trusted",
    "serve": "Serve a policy to robots and to rollouts on other machines",
    "predict": "Ask a policy for the action to one image and instruction",
    "probe": "Measure with which conventions an OpenVLA-OFT checkpoint was trained, from demonstrations",
    "keypoints": "Propose keypoints on a recording's first image and number them",
    "import": "Read data of other projects",
    "lint": "Look for known defects in data of other projects",
    "export": "Write data and checkpoints for other projects",
    "push": "Push policies, adapters, stores, pairs and reports to the Hugging Face hub, with a card",
}

# Words accepted in place of a verb.
SPECIAL = {
    "help": "The help page of a verb, or of a verb's kind: grape help VERB [KIND]",
    "completion": "Completion of verbs and flags for a shell: grape completion bash|zsh|fish",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    Args:
        arguments: The words behind ``grape``; None for those of the process, which ends afterwards.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    return guarded(words, lambda: _run(words), whole_process=arguments is None)


def guarded(words: Sequence[str], work: Callable[[], int], whole_process: bool) -> int:
    """Run a command; an exception that ends it becomes a message and an exit status.

    Args:
        words: The command line, for errors as JSON (``--json``).
        work: Returns the exit status.
        whole_process: Whether the process ends afterwards.
    """
    try:
        with interruptible(whole_process), _escaped_messages():
            _check_words(words)
            return work()
    except KeyboardInterrupt as error:
        ended = error if isinstance(error, Interrupted) else Interrupted(signal.SIGINT)
        message = f"{ended.word}. What was finished is kept: run the same command again to go on."
        return _fail(words, message, "", ended.exit_code)
    except GrapeError as error:
        return _fail(words, error.message, error.hint, error.exit_code, getattr(error, "shown", ""))
    except OSError as error:
        return _fail_of_system(words, error)
    except (MemoryError, RecursionError, OverflowError, UnicodeError) as error:
        if os.environ.get("GRAPE_TRACEBACK"):
            raise
        return _fail(words, _defect(error), "GRAPE_TRACEBACK=1 in the environment shows more; please report it.", 1)
    except Exception as error:
        if "--json" in words:
            _write_json(_defect(error), "")
        raise


@contextlib.contextmanager
def _escaped_messages() -> Iterator[None]:
    """Warnings and log records of other packages with control characters escaped; they quote names and paths, too."""
    import logging
    import warnings

    plain_warning, plain_record = warnings.formatwarning, logging.getLogRecordFactory()

    def record_of(*parts: Any, **more: Any) -> "logging.LogRecord":
        record = plain_record(*parts, **more)
        with contextlib.suppress(TypeError, ValueError, KeyError):  # arguments that do not fit: logging's own business
            message = record.getMessage()
            if message != printable(message):
                record.msg, record.args = printable(message), ()
        return record

    warnings.formatwarning = lambda *parts, **more: printable(plain_warning(*parts, **more))
    logging.setLogRecordFactory(record_of)
    try:
        yield
    finally:
        warnings.formatwarning = plain_warning
        logging.setLogRecordFactory(plain_record)


def _run(words: list[str]) -> int:
    if not words or words in (["-h"], ["--help"], ["help"]):
        _print_overview()
        return 0
    first, *rest = words
    if first in ("-V", "--version"):
        from grape import __version__

        sys.stdout.write(f"grape {__version__}\n")
        return 0
    if first in ("-h", "--help", "help"):
        return _dispatch(rest[0], [*rest[1:], "--help"])
    if first == "completion":
        from grape.cli.pages import print_completion

        if not rest:
            raise SettingsError("'grape completion' needs a shell.", "Known: bash, zsh, fish.")
        print_completion(rest[0], list(VERBS))
        return 0
    return _dispatch(first, rest)


def _check_words(words: Sequence[str]) -> None:
    """Refuse arguments that cannot be a file name or a setting, such as those with NUL characters.

    Raises:
        SettingsError: A word is not text in this locale's encoding, or holds a NUL character.
    """
    for number, word in enumerate(words, 1):
        if any("\ud800" <= character <= "\udfff" for character in word):
            raise SettingsError(
                f"Argument {number} ('{printable(word)}') holds bytes that are no text in UTF-8.",
                "Rename the file or folder; its name is written into records.",
            )
        if "\0" in word:
            raise SettingsError(f"Argument {number} ('{printable(word)}') holds a NUL character.", "Leave it out.")


def _defect(error: Exception) -> str:
    """Message of an unexpected exception, with file and line."""
    frames = traceback.extract_tb(error.__traceback__)
    grape_frame = next((frame for frame in reversed(frames) if "grape" in frame.filename), None)
    place = "" if grape_frame is None else f" in {os.path.basename(grape_frame.filename)}, line {grape_frame.lineno}"
    message = " ".join(str(error).split())
    return f"A defect of GRAPE{place}: {type(error).__name__}{f': {message[:300]}' if message else ''}."


def _fail_of_system(words: Sequence[str], error: OSError) -> int:
    if error.errno == errno.ENOSPC:
        return _fail(words, f"The disk is full: {error}.", "Free space and run the same command again: it resumes.", 1)
    if isinstance(error, BrokenPipeError):
        return 1
    what = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
    return _fail(
        words,
        f"The system refused a file or connection: {what}.",
        "Check the path and its permissions. What was finished is kept: run the same command again.",
        1,
    )


def _dispatch(name: str, arguments: list[str]) -> int:
    from grape.cli.parsing import EVERY_VERB, GLOBAL_FLAGS

    if name.partition("=")[0] in EVERY_VERB:
        raise SettingsError(f"{name} comes before the verb.", f"Write it after the verb: grape VERB {name}")
    if name.startswith("-"):
        raise SettingsError(f"Unknown flag '{name}'.", did_you_mean(name, GLOBAL_FLAGS))
    if name not in VERBS:
        raise SettingsError(f"Unknown verb {name!r}.", did_you_mean(name, [*VERBS, *SPECIAL]))
    from grape.cli.verb import run_verb

    verb = importlib.import_module(f"grape.cli.verbs.{name}").VERB
    return run_verb(verb, arguments)


def _fail(words: Sequence[str], message: str, hint: str, code: int, shown: str = "") -> int:
    """Print an error, with ``--json`` as JSON, too; returns the exit status.

    Args:
        words: The command line.
        message: What happened.
        hint: What to do; may be empty.
        code: The exit status.
        shown: What people are shown instead of the message.
    """
    if "--json" in words:
        _write_json(message, hint)
    message, hint = shortened(message), shortened(hint)
    text = printable(shown.rstrip() or f"error: {message}" + (f"\n  -> {hint}" if hint else ""))
    colored = not shown and sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    sys.stderr.write(f"\x1b[31m{text}\x1b[0m\n" if colored else f"{text}\n")
    return code


def _write_json(message: str, hint: str) -> None:
    sys.stdout.write(json.dumps({"error": message, "hint": hint}) + "\n")
    sys.stdout.flush()


def _print_overview() -> None:
    from grape import __version__
    from grape.cli.pages import entries

    lines = [
        f"grape {__version__}: align vision-language-action policies with preferences",
        "",
        "usage: grape VERB [options]        grape help VERB explains a verb",
        "",
        *entries(VERBS),
        "",
        *entries(SPECIAL),
        "",
        "Data flow: collect -> score -> pair -> train -> evaluate -> report; loop repeats it.",
        "Start with:  grape doctor   then   grape demo",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())


_WORDS = {signal.SIGINT: "Interrupted", signal.SIGTERM: "Terminated"}

_DELIVERED_AGAIN_SECONDS = 0.05


class Interrupted(KeyboardInterrupt):
    """Raised when SIGINT or SIGTERM asks the process to end.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells count it."""
        return 128 + self.number

    @property
    def word(self) -> str:
        """What happened, as a sentence begins."""
        return _WORDS[signal.Signals(self.number)]


class _Handler:
    """Counts signals; see the module."""

    def __init__(self) -> None:
        self.count = 0
        self.over = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.over or self.count > 2:
            os._exit(128 + number)
        if self.count == 2:
            os.write(2, b"Stopping what runs. Once more ends at once, and may leave temporary files.\n")
            return
        raise Interrupted(number)

    def deliver_again(self, number: int) -> None:
        """Send the signal once more, shortly: its exception was raised where Python drops exceptions (a destructor)."""
        self.count = 0
        timer = threading.Timer(_DELIVERED_AGAIN_SECONDS, self._send, [number])
        timer.daemon = True
        timer.start()

    def _send(self, number: int) -> None:
        if self.count == 0 and not self.over:
            os.kill(os.getpid(), number)


@contextlib.contextmanager
def interruptible(whole_process: bool) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into :class:`Interrupted` within the block.

    Signals that are ignored, or handled by someone else, stay as they are.

    Args:
        whole_process: The process ends after the block: signals that come until then end it without a traceback.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = _Handler()
    before = {}
    for number in _WORDS:
        current = signal.getsignal(number)
        if current in (signal.SIG_DFL, signal.default_int_handler, leave_early):
            before[number] = current
            signal.signal(number, handler)
    hook = sys.unraisablehook
    sys.unraisablehook = lambda raised: None if _delivered_again(raised, handler) else hook(raised)
    try:
        yield
    finally:
        if whole_process:
            handler.over = True
        else:
            sys.unraisablehook = hook
            for number, current in before.items():
                signal.signal(number, current)


def _delivered_again(raised: "sys.UnraisableHookArgs", handler: _Handler) -> bool:
    """Whether the exception that Python dropped was a signal's; if so, it comes again."""
    if isinstance(raised.exc_value, Interrupted):
        handler.deliver_again(raised.exc_value.number)
        return True
    return False
