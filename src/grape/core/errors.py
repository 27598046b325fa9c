"""The project's exceptions: each message says what happened, where, and what to do.

The command line prints ``str(error)`` without a traceback and leaves with ``error.exit_code``:
2 where the user can fix the call, 1 where the work itself failed.
"""

import difflib
import re
from collections.abc import Iterable

__all__ = [
    "BudgetError",
    "CompatibilityError",
    "DataError",
    "GrapeError",
    "ModelError",
    "NoPairsError",
    "PolicyError",
    "ProgramError",
    "SettingsError",
    "SimulatorError",
    "TrainingError",
    "did_you_mean",
    "printable",
    "require_known",
    "shortened",
]


class GrapeError(Exception):
    """Base of all errors that the project raises on purpose.

    Args:
        message: What happened and where.
        hint: What the reader can do about it; printed on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  -> {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[type["GrapeError"], tuple[str, str]]:
        return type(self), (self.message, self.hint)


class SettingsError(GrapeError):
    """A setting, name, flag or path given by the user cannot be used."""

    exit_code = 2


class CompatibilityError(GrapeError):
    """Two things that would be combined do not fit: found before any work starts."""

    exit_code = 2


class DataError(GrapeError):
    """A file is missing, truncated, foreign, or holds what it should not."""

    exit_code = 2


class NoPairsError(DataError):
    """Sound scores give nothing to prefer: no initial state has a better and a worse trajectory."""


class SimulatorError(GrapeError):
    """A simulator could not start, crashed or hung, also after its retry."""


class PolicyError(GrapeError):
    """A policy could not be loaded or gave unusable output."""


class ProgramError(GrapeError):
    """An external scorer or judge could not start, crashed, hung or answered nonsense, also after its retries."""


class ModelError(GrapeError):
    """A vision-language model could not be reached, kept failing, or gave nothing usable."""


class BudgetError(ModelError):
    """Another request to a vision-language model could exceed the budget; answers so far are kept."""


class TrainingError(GrapeError):
    """Training had to stop, e.g. for a loss that is not finite; the last good state is kept."""


_MOST_OPTIONS = 200
_OPTIONS_A_LINE = 8


def did_you_mean(name: str, known: Iterable[str], *, between: str = " ") -> str:
    """Sentence that suggests the closest known names, or lists all of them.

    Args:
        name: What the user wrote.
        known: What would have been accepted.
        between: What parts the suggestion from the list.

    Returns:
        For example ``"Did you mean 'drawer-open'? Known: button-press, drawer-open."``
    """
    options = sorted(set(known))
    close = difflib.get_close_matches(name, options, n=3, cutoff=0.5)
    suggestion = f"Did you mean {' or '.join(repr(option) for option in close)}?{between}" if close else ""
    names_listed = ", ".join(options[:_MOST_OPTIONS])
    more = f" and {len(options) - _MOST_OPTIONS:,} more" if len(options) > _MOST_OPTIONS else ""
    return f"{suggestion}Known: {names_listed}{more}."


def require_known(kind: str, name: str, known: Iterable[str]) -> None:
    """Raise unless ``name`` is one of ``known``.

    Args:
        kind: What the name stands for, e.g. ``"task"``; used in the message.
        name: The name to check.
        known: The accepted names.

    Raises:
        SettingsError: The name is unknown; the hint suggests close ones, and lists many names on a line of their own.
    """
    options = list(known)
    if name not in options:
        between = " " if len(options) <= _OPTIONS_A_LINE else "\n     "
        raise SettingsError(f"Unknown {kind} {name!r}.", did_you_mean(name, options, between=between))


_ACTIVE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline, DEL, C1
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # direction, separators, invisible marks
    "\ud800-\udfff\U000e0000-\U000e007f]"  # lone surrogates, tags
)


def printable(text: str) -> str:
    r"""The text with everything escaped that would move the cursor, change colors, or hide or reorder characters.

    Tabs and newlines stay. An escape character becomes ``\x1b``, a right-to-left override ``\u202e``; what a terminal
    would execute is thus shown.
    """
    return text if text.isprintable() else _ACTIVE.sub(_escaped, text)


def shortened(text: str, most: int = 8000) -> str:
    """The text; of a longer one its beginning and its end, and how much is missing between them."""
    if len(text) <= most:
        return text
    head, tail = most * 3 // 4, most // 4
    return f"{text[:head]} [... {len(text) - head - tail:,} characters left out ...] {text[-tail:]}"


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
