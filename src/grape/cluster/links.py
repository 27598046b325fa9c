"""Connections between processes of one run: a door that listens, and a key that opens it."""

import hmac
import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["LEAST_TIMEOUT", "Door", "Invitation", "connect"]

_KEY_BYTES = 32
_NUMBER_BYTES = 8
_CONNECT_SECONDS = 60.0
_GONE_SECONDS = 60  # without a sign of life from the other machine
LEAST_TIMEOUT = 90.0
"""Seconds until a process on another machine counts as hung, at least: one whose machine is gone is lost before."""
_MOST_PENDING = 256
_GREETING_SECONDS = 10.0  # who connects greets at once; who does not is none of ours


@dataclass(frozen=True)
class Invitation:
    """What a process needs to connect.

    Attributes:
        host: Address of the door.
        port: Its port.
        key: Secret of this door.
        number: Whom the door expects.
    """

    host: str
    port: int
    key: bytes
    number: int


class Door:
    """Listens on one address of this machine, and lets in who knows the key.

    Args:
        host: The address; that of the node within its cluster, so that nothing else can reach it.
    """

    def __init__(self, host: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.create_server((host, 0), family=family, backlog=256)
        self.listener.setblocking(False)
        self._pending: dict[socket.socket, _Pending] = {}
        self._host, self._key = host, secrets.token_bytes(_KEY_BYTES)

    def invite(self, number: int) -> Invitation:
        """What a process that is to connect is given."""
        return Invitation(self._host, self.listener.getsockname()[1], self._key, number)

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """One of them is readable when :meth:`admit` has something to do."""
        return (self.listener, *self._pending)

    def admit(self) -> dict[int, socket.socket]:
        """Connections that were greeted on, by the number of who was invited; others are turned away. Never waits."""
        while True:
            try:
                link, _ = self.listener.accept()
            except OSError:
                break
            link.setblocking(False)
            self._pending[link] = _Pending(time.monotonic() + _GREETING_SECONDS)
            if len(self._pending) > _MOST_PENDING:  # the one that has been silent for longest
                self._turn_away(next(iter(self._pending)))
        arrived: dict[int, socket.socket] = {}
        for link, pending in list(self._pending.items()):
            try:
                data = link.recv(_KEY_BYTES + _NUMBER_BYTES - len(pending.greeting))
            except BlockingIOError:
                if time.monotonic() > pending.deadline:
                    self._turn_away(link)
                continue
            except OSError:
                data = b""
            pending.greeting += data
            if not data:
                self._turn_away(link)
            elif len(pending.greeting) == _KEY_BYTES + _NUMBER_BYTES:
                if not hmac.compare_digest(pending.greeting[:_KEY_BYTES], self._key):
                    self._turn_away(link)
                    continue
                del self._pending[link]
                link.setblocking(True)
                _prepare(link)
                arrived[int.from_bytes(pending.greeting[_KEY_BYTES:], "little")] = link
        return arrived

    def close(self) -> None:
        """Listen no more."""
        self.listener.close()
        for link in list(self._pending):
            self._turn_away(link)

    def _turn_away(self, link: socket.socket) -> None:
        del self._pending[link]
        link.close()


@dataclass
class _Pending:
    """A connection whose greeting is not complete."""

    deadline: float
    greeting: bytes = b""


def connect(invitation: Invitation) -> socket.socket:
    """Connect to the door of an invitation.

    Raises:
        OSError: It cannot be reached.
    """
    link = socket.create_connection((invitation.host, invitation.port), timeout=_CONNECT_SECONDS)
    link.settimeout(None)
    _prepare(link)
    link.sendall(invitation.key + invitation.number.to_bytes(_NUMBER_BYTES, "little"))
    return link


def _prepare(link: socket.socket) -> None:
    """Send small messages at once, and notice a machine that is gone without a word."""
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Keepalive sees a machine that is gone while nothing is sent, the user timeout what was sent and never received.
    options = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": _GONE_SECONDS * 1000}
    for name, value in options.items():
        if hasattr(socket, name):
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
