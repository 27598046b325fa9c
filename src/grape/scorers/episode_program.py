"""A program of yours that is asked about episodes: what external scorers and external judges have in common."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from grape.scorers.episode_files import EpisodeFiles
from grape.scorers.program import ExternalProgram, program_identity

__all__ = ["EpisodeProgram"]


class EpisodeProgram:
    """A started program, and the files of the episodes that it is asked about.

    Args:
        arguments: Its argument vector.
        kind: ``"scorer"`` or ``"judge"``, for messages.
        timeout: Seconds within which it must start, and answer.
        warn: Hears of every replacement of the program.

    Raises:
        ProgramError: It does not start.
    """

    needs_images = True

    def __init__(self, arguments: Sequence[str], kind: str, timeout: float, warn: Callable[[str], None]) -> None:
        self._program = ExternalProgram(arguments, kind, timeout, warn)
        self._folder = tempfile.TemporaryDirectory(prefix=f"grape-{kind}-")
        self._files = EpisodeFiles(Path(self._folder.name))
        try:
            self._about = self._program.hello()
            self._read_greeting(self._about)
        except BaseException:
            self.close()
            raise

    def _read_greeting(self, about: Mapping[str, Any]) -> None:
        """Take over what the program says of itself."""
        self.needs_images = about.get("needs_images") is not False

    def provenance(self) -> Mapping[str, Any]:
        """Argument vector, hashes of the files in it, and what the program says of itself."""
        return {**program_identity(self._program.arguments), "about": dict(self._about)}

    def close(self) -> None:
        """End the program and remove the files made for it."""
        self._program.close()
        self._folder.cleanup()
