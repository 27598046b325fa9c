"""One POST of JSON over HTTP with a deadline that holds.

Written on the standard library's ``http.client``: the only thing that is ever sent is this one request, redirects must
not be followed (they would carry the key elsewhere), and the deadline must cover slow servers that keep sending single
bytes, for which timeouts of single socket operations are no limit.
"""

import base64
import contextlib
import http.client
import json
import socket
import ssl
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from grape.vlm.credentials import Endpoint

__all__ = ["Reply", "TransportError", "post_json"]

MAX_REPLY = 16 * 1024 * 1024


class TransportError(Exception):
    """No complete reply came; the message says why, without a full stop."""


@dataclass(frozen=True)
class Reply:
    """What a server said.

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
        TransportError: No connection, a deadline passed, or the reply broke off or is too large.
    """
    body = json.dumps(payload, allow_nan=False).encode()
    headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "grape-vla"}
    if endpoint.key:
        headers["Authorization"] = f"Bearer {endpoint.key.reveal()}"
    connection, target, for_proxy = _connection(endpoint, connect_seconds)
    headers |= for_proxy
    try:
        connection.connect()
        with _deadline(connection, total_seconds) as late:
            try:
                connection.request("POST", target, body, headers)
                response = connection.getresponse()
                data = response.read(MAX_REPLY + 1)
            except (OSError, ValueError, http.client.HTTPException) as error:
                # A silent server's socket may time out a moment before the deadline's own timer.
                if late.is_set() or isinstance(error, TimeoutError):
                    raise TransportError(f"no complete reply within {total_seconds:g} s") from error
                raise
        if late.is_set():
            raise TransportError(f"no complete reply within {total_seconds:g} s")
    except TimeoutError as error:
        raise TransportError(f"no connection within {connect_seconds:g} s") from error
    except ssl.SSLCertVerificationError as error:
        raise TransportError(f"its certificate is not valid: {error.verify_message}") from error
    except (OSError, http.client.HTTPException) as error:
        raise TransportError(_reason(error)) from error
    finally:
        connection.close()
    if len(data) > MAX_REPLY:
        raise TransportError(f"the reply is larger than {MAX_REPLY // 1024 // 1024} MB")
    expected = response.headers.get("Content-Length", "")
    if expected.isdigit() and len(data) < int(expected):
        raise TransportError("the reply broke off")
    return Reply(response.status, {name.lower(): value for name, value in response.headers.items()}, data)


def _reason(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return "the host's name is not known"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused; is the server running?"
    said = (error.strerror or str(error)) if isinstance(error, OSError) else ""
    if said:
        return said[0].lower() + said[1:]
    return f"the reply broke off ({type(error).__name__})"


@contextlib.contextmanager
def _deadline(connection: http.client.HTTPConnection, seconds: float) -> Iterator[threading.Event]:
    """Shut the socket down when the time is over; the event says whether that happened."""
    late = threading.Event()
    link = connection.sock
    link.settimeout(seconds)

    def stop() -> None:
        late.set()
        with contextlib.suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def _connection(endpoint: Endpoint, seconds: float) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
    """A connection that is not open yet, what to ask it for, and headers for a proxy.

    The environment's proxy is used where it names one, but never on the way to this machine.
    """
    parts = endpoint.parts
    host, port, secure = parts.hostname or "", parts.port, parts.scheme == "https"
    proxy = None if endpoint.local else urllib.request.getproxies().get(parts.scheme)
    if proxy is None or urllib.request.proxy_bypass(host):
        if secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, port, timeout=seconds, context=context), parts.path, {}
        return http.client.HTTPConnection(host, port, timeout=seconds), parts.path, {}
    through = urlsplit(proxy if "//" in proxy else f"http://{proxy}")
    try:
        proxy_port = through.port
        (through.hostname or "").encode("idna")
    except ValueError as error:
        raise TransportError("the address of the proxy in the environment cannot be read") from error
    pass_ = {}
    if through.username:
        words = f"{unquote(through.username)}:{unquote(through.password or '')}"
        pass_["Proxy-Authorization"] = f"Basic {base64.b64encode(words.encode()).decode()}"
    if secure:
        tunnel = http.client.HTTPSConnection(
            through.hostname or "", proxy_port, timeout=seconds, context=ssl.create_default_context()
        )
        tunnel.set_tunnel(host, port, pass_)
        return tunnel, parts.path, {}
    return http.client.HTTPConnection(through.hostname or "", proxy_port, timeout=seconds), endpoint.url, pass_
