"""A run's folder among several processes: one claims and writes it, the others learn what it found."""

from collections.abc import Mapping
from typing import Any

from grape.core.runs import RunFolder, open_run

__all__ = ["MainProcessRun"]


class MainProcessRun:
    """The folder of one run; every method is called in the process that writes, through ``ProcessGroup.run_on_main``.

    Args:
        verb: Name of the verb.
        settings: What it was told.
        identity: Hashes of its inputs, which must agree on resumption.
    """

    def __init__(self, verb: str, settings: Any, identity: Mapping[str, Any]) -> None:
        self._verb = verb
        self._settings = settings
        self._identity = identity
        self._run: RunFolder | None = None

    def take(self) -> Mapping[str, Any] | None:
        """Claim the folder; returns the summary if all is done.

        Raises:
            CompatibilityError: The folder belongs to another run, or another process works there.
        """
        self._run = open_run(self._settings.out, self._verb, self._settings, self._identity)
        return self._run.done

    def finish(self, summary: Mapping[str, Any]) -> Mapping[str, Any]:
        """Declare the work complete and return the summary."""
        if self._run is not None:
            self._run.finish(summary)
        return summary
