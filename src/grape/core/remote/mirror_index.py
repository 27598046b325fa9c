"""What a mirror knows of its files: what both sides were when they last agreed, and what was sent since.

``index.json`` holds all files; each change goes to a journal beside it at once, so that a killed process loses none.
"""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.errors import DataError
from grape.core.files import read_json, write_json

__all__ = ["Agreed", "MirrorIndex"]

_FILE, _JOURNAL = "index.json", "index.journal"


@dataclass(frozen=True)
class Agreed:
    """What the two sides of a file were when they last agreed.

    Attributes:
        remote: Its fingerprint there.
        local: Size and time here.
    """

    remote: str
    local: tuple[int, int]


class MirrorIndex:
    """The index of one mirror.

    Args:
        folder: The mirror's folder.

    Raises:
        DataError: It is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._guard = threading.Lock()
        self._files: dict[str, Agreed] = {}
        self._sent: dict[str, str] = {}
        self.load()

    def load(self) -> None:
        """Read what is recorded, also by other processes.

        Raises:
            DataError: It is damaged.
        """
        path = self._folder / _FILE
        self._files, self._sent = {}, {}
        if path.exists():
            recorded = read_json(path, hint=f"Delete {self._folder}.")
            files = recorded.get("files") if isinstance(recorded, dict) else None
            try:
                for name, facts in files.items():  # type: ignore[union-attr]
                    self._apply([name, *facts])
            except (AttributeError, TypeError, ValueError) as error:
                raise DataError(f"{path} is no index of a mirror.", f"Delete {self._folder}.") from error
        journal = self._folder / _JOURNAL
        lines = journal.read_bytes().split(b"\n") if journal.exists() else []
        for line in lines[:-1]:  # what follows the last end of a line was being written when its process was killed
            try:
                self._apply(json.loads(line))
            except (TypeError, ValueError) as error:
                raise DataError(f"{journal} is no journal of a mirror.", f"Delete {self._folder}.") from error

    def _apply(self, entry: list[Any]) -> None:
        match entry:
            case [str(name)]:
                self._files.pop(name, None)
                self._sent.pop(name, None)
            case [str(name), str(digest)]:
                self._sent[name] = digest
            case [str(name), str(mark), int(size), int(at)]:
                self._files[name] = Agreed(mark, (size, at))
                self._sent.pop(name, None)
            case _:
                raise ValueError("no entry of an index")

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._files))

    def get(self, name: str) -> Agreed | None:
        """What both sides of a file were; None for one that they never agreed on."""
        return self._files.get(name)

    def sent(self, name: str) -> str:
        """Hash of what was sent of a file since both sides agreed; empty for nothing."""
        return self._sent.get(name, "")

    def send(self, name: str, digest: str) -> None:
        """Note that a file is about to be uploaded."""
        self._note([name, digest])

    def agree(self, name: str, agreed: Agreed) -> None:
        """Note that both sides of a file are equal."""
        self._note([name, agreed.remote, *agreed.local])

    def forget(self, name: str) -> None:
        """Note that a file is gone on both sides."""
        self._note([name])

    def _note(self, entry: list[Any]) -> None:
        with self._guard:
            self._apply(entry)
            with (self._folder / _JOURNAL).open("ab") as journal:
                journal.write(json.dumps(entry).encode() + b"\n")

    def compact(self) -> None:
        """Write the index whole and begin a new journal."""
        with self._guard:
            files = {name: [agreed.remote, *agreed.local] for name, agreed in sorted(self._files.items())}
            write_json(self._folder / _FILE, {"files": files})
            journal = b"".join(json.dumps([name, digest]).encode() + b"\n" for name, digest in self._sent.items())
            (self._folder / _JOURNAL).write_bytes(journal)
