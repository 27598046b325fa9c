"""Parsing of other projects' flags: mistakes raise GRAPE's errors instead of leaving the process."""

import argparse
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from grape.core.errors import SettingsError, did_you_mean, shortened
from grape.core.reading import MAX_INTEGER

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["FlagParser", "finite_number", "meanings_of", "read_flags", "whole_number", "word_to_bool"]

_MOST_DIGITS = 40

Flags = TypeVar("Flags", bound="DataclassInstance")


class FlagParser(argparse.ArgumentParser):
    """A parser that raises and that suggests the nearest known flag."""

    def error(self, message: str) -> None:  # type: ignore[override]  # argparse leaves the process here
        """Raise instead of leaving the process."""
        raise SettingsError(f"{message[:1].upper()}{message[1:]}.", f"{self.prog} --help lists all flags.")

    def read(self, words: Sequence[str], known: Sequence[str]) -> argparse.Namespace:
        """Values of the flags that were given.

        Args:
            words: The command line.
            known: Names of all flags, for the suggestion.

        Raises:
            SettingsError: A flag is unknown, has no value, or one of the wrong kind.
        """
        flags, rest = self.parse_known_args(list(words))
        if rest:
            raise SettingsError(f"Unknown flag {rest[0]!r}.", did_you_mean(rest[0].split("=")[0].lstrip("-"), known))
        return flags


def read_flags(kind: type[Flags], words: Sequence[str], prog: str, description: str, epilog: str) -> Flags:
    """Read a command line into a dataclass whose fields are the flags; booleans are words, as ``--image_aug False``.

    Args:
        kind: The dataclass: defaults say of which type a flag is, ``Attributes:`` what it means, and field ``given``
            gets the names of the flags that stood on the command line.
        words: The command line.
        prog: The command, for the help.
        description: What it does.
        epilog: What else is to be known.

    Raises:
        SettingsError: A flag is unknown, has no value, or one of the wrong kind.
    """
    parser = FlagParser(prog=prog, description=description, epilog=epilog, allow_abbrev=False)
    flag_fields = [item for item in fields(kind) if item.name != "given"]
    meanings = meanings_of(kind)
    for item in flag_fields:
        of: Any = type(item.default)
        parser.add_argument(
            f"--{item.name}",
            type={bool: word_to_bool, int: whole_number, float: finite_number}.get(of, of),
            default=argparse.SUPPRESS,
            metavar={bool: "True|False", int: "N", float: "X"}.get(of, "TEXT"),
            help=f"{meanings[item.name]} Default: {item.default!s}.".replace("%", "%%"),
        )
    values = vars(parser.read(words, [item.name for item in flag_fields]))
    make_flags: Callable[..., Flags] = kind
    return make_flags(**values, given=frozenset(values))


def word_to_bool(word: str) -> bool:
    """``True`` or ``False`` from a word.

    Raises:
        ArgumentTypeError: It is neither.
    """
    truth = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if word.lower() not in truth:
        raise argparse.ArgumentTypeError(f"it must be True or False, not {word!r}")
    return truth[word.lower()]


def whole_number(word: str) -> int:
    """An integer of at most 64 bits.

    Raises:
        ArgumentTypeError: It is none.
    """
    match = re.fullmatch(rf"[+-]?[0-9]{{1,{_MOST_DIGITS}}}", word.strip())
    if match is None or abs(int(match[0])) > MAX_INTEGER:
        raise argparse.ArgumentTypeError(f"invalid int value: {shortened(repr(word))}")
    return int(word)


def finite_number(word: str) -> float:
    """A finite floating-point number.

    Raises:
        ArgumentTypeError: It is none.
    """
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"invalid float value: {shortened(repr(word))}")
    return number


def meanings_of(flags: type) -> dict[str, str]:
    """The texts under ``Attributes:`` of a class of flags, by name."""
    lines = (flags.__doc__ or "").partition("Attributes:")[2].splitlines()
    pairs = (line.strip().partition(": ") for line in lines if ": " in line)
    return {name: text for name, _, text in pairs}
