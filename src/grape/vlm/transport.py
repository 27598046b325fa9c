"""A JSON POST over HTTP with a total deadline.

Connections, TLS and proxies are httpx2's. Redirects are not followed: they would send the key to another host. Two
things no HTTP client has are added here: a bound on the bytes of a reply, and a deadline for the whole of it, because
timeouts of single socket operations are no limit for a server that keeps sending single bytes.
"""

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grape.core.errors import SettingsError
from grape.vlm.credentials import Endpoint

if TYPE_CHECKING:
    import httpx2

__all__ = ["Reply", "TransportError", "post_json"]

MAX_REPLY = 16 * 1024 * 1024
_BAD_PROXY = "the address of the proxy in the environment cannot be read"


class TransportError(Exception):
    """No complete reply came; the message says why, without a full stop."""


@dataclass(frozen=True)
class Reply:
    """A server's reply.

    Attributes:
        status: HTTP status.
        headers: By lower-case name.
        body: The bytes.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


def post_json(endpoint: Endpoint, payload: Mapping[str, Any], *, connect_seconds: float, total_seconds: float) -> Reply:
    """Send ``payload`` and read the reply.

    Args:
        endpoint: Where to; its key goes into the header ``Authorization``.
        payload: JSON values.
        connect_seconds: Longest wait for a connection.
        total_seconds: Longest wait for the whole reply, however slowly it comes.

    Raises:
        SettingsError: httpx2 is not installed.
        TransportError: No connection, a deadline passed, or the reply broke off or is too large.
    """
    try:
        import httpx2
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"Asking an endpoint needs {error.name}, which is not installed.", "pip install 'grape-vla[endpoint]'"
        ) from error
    body = json.dumps(payload, allow_nan=False).encode()
    # A reply that is not compressed cannot unpack to more than was bounded.
    headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
    headers["User-Agent"] = "grape-vla"
    if endpoint.key:
        headers["Authorization"] = f"Bearer {endpoint.key.reveal()}"
    deadline = _Deadline(total_seconds)
    late = TransportError(f"no complete reply within {total_seconds:g} s")
    try:
        with _client(endpoint, connect_seconds, total_seconds) as client, deadline.kept():
            extensions = {"trace": deadline.watch}
            with client.stream("POST", endpoint.url, content=body, headers=headers, extensions=extensions) as response:
                data = _bounded(response)
    except UnicodeError as error:  # of a host's name; the endpoint's own was checked when it was read
        raise TransportError(_BAD_PROXY) from error
    except httpx2.ConnectTimeout as error:
        raise TransportError(f"no connection within {connect_seconds:g} s") from error
    except httpx2.HTTPError as error:
        # A silent server's socket may time out a moment before the deadline's own timer.
        if deadline.is_over or isinstance(error, httpx2.TimeoutException):
            raise late from error
        raise TransportError(_reason(error)) from error
    if deadline.is_over:
        raise late
    return Reply(response.status_code, {name.lower(): value for name, value in response.headers.items()}, data)


def _client(endpoint: Endpoint, connect_seconds: float, total_seconds: float) -> "httpx2.Client":
    """A client that uses the environment's proxy where it names one, but never on the way to this machine."""
    import httpx2

    try:
        return httpx2.Client(
            trust_env=not endpoint.local, timeout=httpx2.Timeout(total_seconds, connect=connect_seconds)
        )
    except (httpx2.InvalidURL, ValueError) as error:
        raise TransportError(_BAD_PROXY) from error
    except ImportError as error:  # of a SOCKS proxy
        raise TransportError(f"the proxy in the environment needs a further package ({error})") from error
    except OSError as error:  # SSL_CERT_FILE
        raise TransportError(
            f"the certificates that the environment names cannot be read ({error.strerror})"
        ) from error


def _bounded(response: "httpx2.Response") -> bytes:
    data = bytearray()
    for part in response.iter_raw():
        data += part
        if len(data) > MAX_REPLY:
            raise TransportError(f"the reply is larger than {MAX_REPLY // 1024 // 1024} MB")
    return bytes(data)


def _reason(error: BaseException) -> str:
    """Why a connection failed, from the first operating system's error behind ``error``."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {cause.verify_message}"
    if isinstance(cause, socket.gaierror):
        return "the host's name is not known"
    if isinstance(cause, ConnectionRefusedError):
        return "the connection was refused; is the server running?"
    text = str(error) if cause is None else cause.strerror or str(cause)
    if not text or "peer closed" in text or "disconnected" in text:
        return f"the reply broke off ({type(error).__name__})"
    return text[0].lower() + text[1:]


class _Deadline:
    """Shuts a request's socket down when the time is over.

    Args:
        seconds: From the moment when the connection is made.
    """

    def __init__(self, seconds: float) -> None:
        self.is_over = False
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._stop)
        self._timer.daemon = True

    def watch(self, event: str, info: Mapping[str, Any]) -> None:
        """What httpx2 calls at each step of a request: take the socket that was opened, or wrapped in TLS."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            if self._socket is None:
                self._timer.start()
            self._socket = info["return_value"].get_extra_info("socket")

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """While the request runs."""
        try:
            yield
        finally:
            self._timer.cancel()

    def _stop(self) -> None:
        self.is_over = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
