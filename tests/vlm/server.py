"""A chat-completions server on this machine that behaves as it is told, reply by reply: real sockets, no network."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from grape.vlm import Endpoint, Secret

KEY = "sk-test-4f1d9c77aa20b3e6"

Behavior = Callable[["Handler"], None]


@dataclass
class Seen:
    """What the server was asked.

    Attributes:
        bodies: JSON of each request.
        headers: Its headers, by lower-case name.
        paths: Its path.
        stalls: Called when the server has begun to keep a client waiting.
    """

    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    stalls: Callable[[], object] = lambda: None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    body: dict[str, Any]

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        server.seen.bodies.append(self.body)
        server.seen.headers.append({name.lower(): value for name, value in self.headers.items()})
        server.seen.paths.append(self.path)
        behavior = server.script.pop(0) if len(server.script) > 1 else server.script[0]
        with contextlib.suppress(OSError):
            behavior(self)

    def do_CONNECT(self) -> None:
        server: Any = self.server
        server.seen.headers.append({name.lower(): value for name, value in self.headers.items()})
        server.seen.paths.append(f"CONNECT {self.path}")
        self.send(502, b"no")

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def completion(text: str | None, finish: str = "stop", usage: tuple[int, int] | None = (100, 20), **more: Any) -> bytes:
    body: dict[str, Any] = {
        "id": "x",
        "object": "chat.completion",
        "model": "tiny-vlm-2026",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text, **more}, "finish_reason": finish}],
    }
    if usage is not None:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return json.dumps(body).encode()


def says(text: str | None, **options: Any) -> Behavior:
    return lambda handler: handler.send(200, completion(text, **options))


def fails(status: int, message: str = "no", code: str = "", **headers: str) -> Behavior:
    body = json.dumps({"error": {"message": message, "code": code or None}}).encode()
    return lambda handler: handler.send(
        status, body, {name.replace("_", "-"): value for name, value in headers.items()}
    )


def raw(data: bytes, status: int = 200, length: int | None = None) -> Behavior:
    return lambda handler: handler.send(status, data, length=length)


def breaks_off(handler: Handler) -> None:
    handler.close_connection = True
    handler.send(200, completion("half")[:40], {"Connection": "close"}, length=5000)


def hangs_up(handler: Handler) -> None:
    handler.close_connection = True
    handler.connection.close()


def hangs(handler: Handler) -> None:
    server: Any = handler.server
    server.seen.stalls()
    server.over.wait()


def drips(handler: Handler) -> None:
    """One byte at a time, each well within any timeout of a single read."""
    server: Any = handler.server
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while not server.over.wait(0.05):
        handler.wfile.write(b" ")
        handler.wfile.flush()


@contextlib.contextmanager
def serving(*script: Behavior, key: str = KEY, port: int = 0) -> Iterator[tuple[Endpoint, Seen]]:
    """A server for the block, at any free port if none is given; the last behavior repeats."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.script, server.seen, server.over = list(script), Seen(), threading.Event()
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield Endpoint(f"http://127.0.0.1:{server.server_address[1]}/v1/chat/completions", Secret(key)), server.seen
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
