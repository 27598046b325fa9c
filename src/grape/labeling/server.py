"""The page's server: loopback alone, a token in the address, bounded requests, no other origin.

The token keeps other users of this machine out, the check of the ``Host`` header pages of other names that resolve to
this machine (DNS rebinding), the check of the ``Origin`` header pages of others that send requests here.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import secrets
import socket
import socketserver
import sys
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from importlib import resources
from typing import Any

from grape.core.errors import DataError, GrapeError, SettingsError
from grape.core.reading import decode, parse_json
from grape.labeling.session import AnsweredError, Cast, Labeling, Rater, Undone

__all__ = ["LabelServer"]

_HOST = "127.0.0.1"
_HOST_HEADER = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?", re.ASCII | re.IGNORECASE)
_MOST_BODY_BYTES = 16 * 2**10
_SILENCE_SECONDS = 60.0
_REQUEST_SECONDS = 120.0
"""Within which a request must have arrived whole, the wait for it included, however slowly it comes."""
_MOST_CONNECTIONS = 128
"""A browser opens up to six."""
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


class LabelServer(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Serves the page, questions, votes and videos at :attr:`address`.

    Args:
        labeling: What raters are asked.
        port: Port on loopback; 0 takes a free one.
        token: Part of the address, which only its reader knows.
        warn: Hears of requests that failed.

    Raises:
        SettingsError: The port is taken, or may not be used.
    """

    daemon_threads = True  # a connection that a browser keeps open must not keep the process

    def __init__(
        self, labeling: Labeling, port: int, token: str, warn: Callable[[str], None] = lambda message: None
    ) -> None:
        self.labeling, self.token, self._warn = labeling, token, warn
        self.page = (resources.files("grape.labeling") / "label.html").read_bytes()
        self.policy = _content_policy(self.page.decode("utf-8"))
        self._deadlines: dict[socket.socket, float] = {}
        try:
            super().__init__((_HOST, port), _Handler)
        except OSError as error:
            raise SettingsError(
                f"--port {port} cannot be used: {error.strerror or error}.", "Choose another one; 0 takes a free one."
            ) from error

    def server_bind(self) -> None:
        """Bind the socket; the base class would look this machine's name up, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = _HOST, self.server_address[1]

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        request, address = super().get_request()
        self.expect(request)
        return request, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether a connection gets a thread: not where there are too many."""
        return len(self._deadlines) <= _MOST_CONNECTIONS

    def expect(self, request: socket.socket) -> None:
        """Wait for a request on a connection, which must have arrived in time."""
        self._deadlines[request] = time.monotonic() + _REQUEST_SECONDS

    def arrived(self, request: socket.socket) -> None:
        """Wait no more: the request is there, and its answer may take as long as it takes."""
        self._deadlines[request] = float("inf")

    def service_actions(self) -> None:
        """End connections on which nothing whole arrives."""
        now = time.monotonic()
        self._disconnect([request for request, deadline in tuple(self._deadlines.items()) if deadline < now])

    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        self._deadlines.pop(request, None)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Stop listening, and end the connections that browsers keep open: they would still be answered."""
        super().server_close()
        self._disconnect(tuple(self._deadlines))

    def _disconnect(self, connections: Iterable[socket.socket]) -> None:
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def address(self) -> str:
        """Address of the page."""
        return f"http://{_HOST}:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of a request that failed, unless its browser has gone."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            self._warn(f"A request failed: {type(error).__name__}: {error}")


def _content_policy(page: str) -> str:
    """What the page may load: its own script and style, this server's answers, and videos from memory."""
    hashes: dict[str, str] = {}
    for kind, text in _INLINE.findall(page):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
        hashes[kind] = f"{hashes.get(kind, '')} 'sha256-{digest}'"
    return (
        f"default-src 'none'; script-src{hashes['script']}; style-src{hashes['style']}; connect-src 'self'; "
        "media-src blob:; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


class _RefusedError(Exception):
    """A request that is not answered.

    Args:
        status: The response's status.
        problem: Why, for people.
    """

    def __init__(self, status: HTTPStatus, problem: str) -> None:
        super().__init__(problem)
        self.status, self.problem = status, problem


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    server: LabelServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "grape", ""
    timeout = _SILENCE_SECONDS

    def handle_one_request(self) -> None:
        """Read a request and answer it."""
        self.server.expect(self.connection)
        super().handle_one_request()

    def do_GET(self) -> None:
        """The page and videos."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Questions and votes."""
        self._answer(self._post)

    def log_message(self, format: str, *parts: Any) -> None:
        """Log nothing: addresses hold the token."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that the base class refuses."""
        self.close_connection = True
        self._send(HTTPStatus(code), {"problem": HTTPStatus(code).phrase})

    def _answer(self, answer: Callable[[str], None]) -> None:
        """Check where a request comes from and answer it; what is wrong with it is told as JSON."""
        try:
            answer(self._checked_path())
        except _RefusedError as error:
            self._refuse(error.status, error.problem)
        except AnsweredError as error:
            self._refuse(HTTPStatus.CONFLICT, error.message)
        except DataError as error:
            self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY, f"{error.message} {error.hint}".strip())
        except GrapeError as error:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"{error.message} {error.hint}".strip())

    def _checked_path(self) -> str:
        """What is asked for, below the token."""
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not _HOST_HEADER.fullmatch(hosts[0]):
            raise _RefusedError(HTTPStatus.FORBIDDEN, "This page is for this machine alone.")
        empty, token, path = (*self.path.split("/", 2), "", "")[:3]
        if empty or not secrets.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode()):
            raise _RefusedError(HTTPStatus.NOT_FOUND, "Open the address that 'grape label' shows.")
        origins = self.headers.get_all("Origin") or []
        # Browsers name the origin with every POST; a GET of this page's own has none.
        if origins != [f"http://{hosts[0]}"] and (origins or self.command == "POST"):
            raise _RefusedError(HTTPStatus.FORBIDDEN, "Requests of other pages are not answered.")
        return path

    def _get(self, path: str) -> None:
        self.server.arrived(self.connection)
        if not path and not self.path.endswith("/"):
            # Below an address without the slash the page's own requests would go astray.
            self._send(HTTPStatus.PERMANENT_REDIRECT, b"", location=f"/{self.server.token}/")
        elif not path:
            self._send(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")
        elif path.startswith("video/"):
            self._send(HTTPStatus.OK, self.server.labeling.video(path.removeprefix("video/")), "video/mp4")
        else:
            raise _RefusedError(HTTPStatus.NOT_FOUND, "There is no such page.")

    def _post(self, path: str) -> None:
        labeling = self.server.labeling
        body = parse_json(self._body(), "The request")
        match path:
            case "question":
                answer = labeling.question(decode(Rater, body, "The request").rater)
            case "vote":
                answer = labeling.cast(decode(Cast, body, "The request"))
            case "undo":
                answer = labeling.undo(decode(Undone, body, "The request"))
            case _:
                raise _RefusedError(HTTPStatus.NOT_FOUND, "There is no such page.")
        self._send(HTTPStatus.OK, answer)

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if self.headers.get("Transfer-Encoding") or not re.fullmatch("[0-9]{1,9}", length, re.ASCII):
            raise _RefusedError(HTTPStatus.LENGTH_REQUIRED, "The request does not tell its length.")
        if int(length) > _MOST_BODY_BYTES:
            raise _RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is too long.")
        if self.headers.get_content_type() != "application/json":
            raise _RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The request is no JSON.")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise _RefusedError(HTTPStatus.BAD_REQUEST, "The request ended early.")
        self.server.arrived(self.connection)
        return body

    def _refuse(self, status: HTTPStatus, problem: str) -> None:
        # A body may be unread: what follows on this connection would be taken for a request.
        self.close_connection = True
        self._send(status, {"problem": problem})

    def _send(self, status: HTTPStatus, content: Any, kind: str = "application/json", location: str = "") -> None:
        data = content if isinstance(content, bytes) else json.dumps(content, allow_nan=False).encode()
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(data))),
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", self.server.policy),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            *([("Connection", "close")] if self.close_connection else []),
            *([("Location", location)] if location else []),
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
