"""Address of a policy server and the token that it asks for."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from grape.core.errors import SettingsError
from grape.core.hosts import is_loopback
from grape.core.reading import read_file
from grape.core.secrets import Secret

__all__ = ["TOKEN", "TOKEN_FILE", "ServerAddress", "is_server_address", "parse_address", "read_token"]

TOKEN, TOKEN_FILE = "GRAPE_SERVE_TOKEN", "GRAPE_SERVE_TOKEN_FILE"
_MOST_TOKEN_BYTES = 4096
_LONGEST_WAIT = 7 * 24 * 3600.0
_ADDRESS = re.compile(r"wss?:/")  # one slash is left where a path was made of it
_EXAMPLE = "Write ws://HOST:PORT, e.g. ws://127.0.0.1:8000, or wss:// for a server behind TLS."


@dataclass(frozen=True)
class ServerAddress:
    """Where a policy server is, and how long to wait for it.

    Attributes:
        url: Address without query, e.g. ``ws://127.0.0.1:8000``.
        open_seconds: How long to try the first connection.
        wait_seconds: How long to try to reach a server again that was lost.
        answer_seconds: How long an answer may take before the connection counts as lost.
    """

    url: str
    open_seconds: float = 10.0
    wait_seconds: float = 120.0
    answer_seconds: float = 600.0

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        return is_loopback(urlsplit(self.url).hostname or "")

    @property
    def is_encrypted(self) -> bool:
        """Whether nobody on the way can read along."""
        return self.url.startswith("wss:")


def is_server_address(policy: Path | str) -> bool:
    """Whether what the user wrote as a policy is the address of a server."""
    return _ADDRESS.match(str(policy)) is not None


def parse_address(text: str) -> ServerAddress:
    """The address that a user wrote.

    Args:
        text: ``ws://HOST:PORT``, with ``?wait=SECONDS`` and ``answer=SECONDS`` where the waiting times are others.

    Raises:
        SettingsError: It is no such address, or holds a password.
    """
    try:
        parts = urlsplit(text)
        has_port = parts.port is not None
    except ValueError:
        raise SettingsError(f"--policy {text} is no address of a server.", _EXAMPLE) from None
    sound = parts.scheme in ("ws", "wss") and parts.hostname and text.isascii() and text.isprintable()
    if not sound or " " in text or parts.fragment:
        raise SettingsError(f"--policy {text} is no address of a server.", _EXAMPLE)
    if parts.username is not None or parts.password is not None:
        raise SettingsError("The address of a policy server holds a password.", f"Put the token into {TOKEN} instead.")
    if not has_port and parts.scheme == "ws":
        raise SettingsError(f"--policy {text} names no port.", _EXAMPLE)
    seconds: dict[str, float] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in ("wait", "answer"):
            raise SettingsError(
                f"--policy {text}: {name!r} is nothing that an address of a server can say.",
                "Known: wait and answer, both in seconds, e.g. ws://127.0.0.1:8000?wait=600.",
            )
        try:
            seconds[name] = float(value)
        except ValueError:
            seconds[name] = -1.0
        if not 0 < seconds[name] <= _LONGEST_WAIT:
            raise SettingsError(f"--policy {text}: {name} is {value!r}.", "Give seconds, e.g. wait=600.")
    changes = {f"{name}_seconds": value for name, value in seconds.items()}
    if "wait" in seconds:
        changes["open_seconds"] = seconds["wait"]
    return ServerAddress(urlunsplit((parts.scheme, parts.netloc, parts.path, "", "")), **changes)


def read_token(environment: Mapping[str, str] | None = None) -> Secret:
    """The token in ``GRAPE_SERVE_TOKEN``, or in the file that ``GRAPE_SERVE_TOKEN_FILE`` names; empty without both.

    Args:
        environment: Where to look; None for the process's own.

    Raises:
        SettingsError: Both are set, or the token holds what no token has.
        DataError: The file cannot be read.
    """
    variables = os.environ if environment is None else environment
    token, file = variables.get(TOKEN, ""), variables.get(TOKEN_FILE, "")
    if token and file:
        raise SettingsError(f"Both {TOKEN} and {TOKEN_FILE} are set.", "Keep one of them.")
    if file:
        token = read_file(Path(file), max_bytes=_MOST_TOKEN_BYTES).decode("utf-8", "replace")
    token = token.strip()
    if file and not token:
        raise SettingsError(f"{file}, which {TOKEN_FILE} names, is empty.", "Write the token into it.")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise SettingsError(
            f"The token in {TOKEN_FILE if file else TOKEN} holds characters that no token has.",
            "Take letters, digits, - and _.",
        )
    return Secret(token)
