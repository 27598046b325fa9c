"""Reading flags of other projects: mistakes are errors of ours, not the end of the process."""

import argparse
from collections.abc import Sequence

from grape.core.errors import SettingsError, did_you_mean

__all__ = ["FlagParser", "meanings_of", "word_to_bool"]


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
        found, rest = self.parse_known_args(list(words))
        if rest:
            raise SettingsError(f"Unknown flag {rest[0]!r}.", did_you_mean(rest[0].split("=")[0].lstrip("-"), known))
        return found


def word_to_bool(word: str) -> bool:
    """``True`` or ``False`` from a word.

    Raises:
        ArgumentTypeError: It is neither.
    """
    truth = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if word.lower() not in truth:
        raise argparse.ArgumentTypeError(f"it must be True or False, not {word!r}")
    return truth[word.lower()]


def meanings_of(flags: type) -> dict[str, str]:
    """The texts under ``Attributes:`` of a class of flags, by name."""
    lines = (flags.__doc__ or "").partition("Attributes:")[2].splitlines()
    pairs = (line.strip().partition(": ") for line in lines if ": " in line)
    return {name: text for name, _, text in pairs}
