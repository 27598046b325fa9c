"""Reading flags of other projects: mistakes are errors of ours, not the end of the process."""

import argparse
from collections.abc import Sequence

from grape.core.errors import SettingsError, did_you_mean

__all__ = ["FlagParser"]


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
