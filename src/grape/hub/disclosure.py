"""What leaves this machine in a pushed folder: no token, and no path or command line in records."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from grape.core.errors import DataError, SettingsError
from grape.core.reading import open_file
from grape.core.repositories import read_hub_name

__all__ = ["check_tokens", "public_value", "with_local_paths", "without_token"]

_PLAIN = re.compile(r"[\w.,:+@%()-]*( [\w.,:+@%()-]+)*", re.UNICODE)
"""Words, numbers and names; no path, no assignment, no quoted word."""
_COMMAND = re.compile(r"(^| )-{1,2}[A-Za-z]")
_LEFT_OUT = "(left out)"
_VARIABLE = re.compile(r"(?i)(token|api_key|secret|password)$")
_TOKEN = re.compile(rb"\b(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[A-Z0-9]{16})\b")
_SHORTEST = 8
_BLOCK = 2**20
_OVERLAP = 512
_TEXTS = (".json", ".jsonl", ".md", ".html", ".py", ".csv", ".model")


def public_value(value: Any) -> Any:
    """A JSON value in which texts that may be paths or command lines are left out; names on the hub stay."""
    if isinstance(value, Mapping):
        return {str(key): public_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [public_value(item) for item in value]
    if not isinstance(value, str):
        return value
    named = value.startswith("hf:/") and read_hub_name(value) is not None
    return value if named or (_PLAIN.fullmatch(value) and not _COMMAND.search(value)) else _LEFT_OUT


def _secrets() -> list[bytes]:
    """Values of the environment that are secrets by their names, and the token that the hub's library finds."""
    values = [value for name, value in os.environ.items() if _VARIABLE.search(name)]
    return [value.encode() for value in values if len(value) >= _SHORTEST]


def without_token(text: str) -> str:
    """A text, e.g. of an error, without anything that is or looks like a token."""
    for secret in _secrets():
        text = text.replace(secret.decode(), "[secret]")
    return _TOKEN.sub(b"[secret]", text.encode()).decode()


def check_tokens(files: Mapping[str, Path | str]) -> None:
    """Refuse files of text that hold a token.

    Args:
        files: By name in the repository: the file here, or its text.

    Raises:
        SettingsError: A file holds one; the file is named, the token is not.
        DataError: A file cannot be read.
    """
    secrets = _secrets()
    for name, source in files.items():
        if not name.endswith(_TEXTS):
            continue
        for block in _blocks(source):
            if _TOKEN.search(block) or any(secret in block for secret in secrets):
                raise SettingsError(
                    f"{name} holds what looks like a token or a key; nothing was written or pushed.",
                    "Take it out of that file, and make a new one where it is issued: it may have been seen.",
                )


def with_local_paths(files: Mapping[str, Path | str]) -> list[str]:
    """Names of the files of text in which this user's home or the current folder is named."""
    places = {str(path).encode() for path in (Path.home(), Path.cwd()) if len(path.parts) > 1}
    return [
        name
        for name, source in files.items()
        if name.endswith(_TEXTS) and any(place in block for block in _blocks(source) for place in places)
    ]


def _blocks(source: Path | str) -> Iterable[bytes]:
    """The bytes of a file, block by block, each with the end of the one before."""
    if isinstance(source, str):
        yield source.encode()
        return
    tail = b""
    try:
        with open_file(source) as handle:
            while block := handle.read(_BLOCK):
                yield tail + block
                tail = block[-_OVERLAP:]
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror or error}.", "Check the file.") from error
