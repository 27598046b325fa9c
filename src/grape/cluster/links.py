"""Connections between processes of one run: a door that listens, and a key that opens it."""

import contextlib
import hmac
import secrets
import socket
from dataclasses import dataclass

__all__ = ["Door", "Invitation", "connect"]

_KEY_BYTES = 32
_NUMBER_BYTES = 8
_CONNECT_SECONDS = 60.0
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
        self._host, self._key = host, secrets.token_bytes(_KEY_BYTES)

    def invite(self, number: int) -> Invitation:
        """What a process that is to connect is given."""
        return Invitation(self._host, self.listener.getsockname()[1], self._key, number)

    def admit(self) -> dict[int, socket.socket]:
        """Connections that arrived, by the number of who was invited; others are turned away."""
        arrived: dict[int, socket.socket] = {}
        while True:
            try:
                link, _ = self.listener.accept()
            except OSError:
                return arrived
            link.settimeout(_GREETING_SECONDS)
            greeting = b""
            with contextlib.suppress(OSError):
                greeting = link.recv(_KEY_BYTES + _NUMBER_BYTES, socket.MSG_WAITALL)
            if not hmac.compare_digest(greeting[:_KEY_BYTES], self._key):
                link.close()
                continue
            link.settimeout(None)
            _prepare(link)
            arrived[int.from_bytes(greeting[_KEY_BYTES:], "little")] = link

    def close(self) -> None:
        """Listen no more."""
        self.listener.close()


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
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
