"""The server as other programs meet it: whom it answers, and what it refuses."""

import contextlib
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from grape.core.errors import SettingsError
from grape.labeling.server import LabelServer
from tests.labeling.episodes import TOKEN, make_labeling, make_store
from tests.reporters import Hearing


@pytest.fixture(scope="module")
def listener() -> Hearing:
    return Hearing()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, listener: Hearing) -> Iterator[LabelServer]:
    folder = tmp_path_factory.mktemp("served")
    labeling = make_labeling(make_store(folder / "store"), folder / "votes", warn=listener.warn)
    with LabelServer(labeling, 0, TOKEN, listener.warn) as opened:
        thread = threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield opened
        opened.shutdown()
        thread.join()


def request(
    server: LabelServer, path: str, body: Any = None, method: str = "POST", **headers: str | None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Answer to a request that a browser could send; headers replace its own, None leaves one out."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent: dict[str, str | None] = {"Host": f"127.0.0.1:{server.server_port}"}
    if method == "POST":
        sent |= {"Origin": f"http://{sent['Host']}", "Content-Type": "application/json"}
        sent["Content-Length"] = str(len(data))
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=600)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in sent.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(data if method == "POST" else None)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, content


def test_the_page_may_load_nothing_but_itself(server: LabelServer) -> None:
    status, headers, page = request(server, f"/{TOKEN}/", method="GET")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert (headers["Referrer-Policy"], headers["Cache-Control"]) == ("no-referrer", "no-store")
    assert not re.search(rb"""\bsrc=|href="(?!data:)|https?:|innerHTML|\son\w+=|style=""", page)


def test_it_listens_on_loopback_alone(server: LabelServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(SettingsError, match=rf"--port {server.server_port} cannot be used"):
        LabelServer(server.labeling, server.server_port, TOKEN)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8000", 200),  # as an SSH tunnel has it
        ("[::1]:8000", 200),
        ("attacker.example", 403),
        ("attacker.example:8000", 403),
        ("127.0.0.1.attacker.example", 403),
        ("localhost.attacker.example", 403),
        ("127.0.0.1@attacker.example", 403),
        ("192.168.0.1", 403),
        ("", 403),
        (None, 403),
    ],
)
def test_a_page_of_another_name_is_not_answered(server: LabelServer, host: str | None, status: int) -> None:
    assert request(server, f"/{TOKEN}/", method="GET", Host=host)[0] == status
    origin = f"http://{host}"
    assert request(server, f"/{TOKEN}/question", {"rater": "anna"}, Host=host, Origin=origin)[0] == status


@pytest.mark.parametrize(
    "origin", [None, "null", "", "http://attacker.example", "http://127.0.0.1:1", "https://{host}", "http://{host}/"]
)
def test_requests_of_other_origins_are_not_answered(server: LabelServer, origin: str | None) -> None:
    value = None if origin is None else origin.format(host=f"127.0.0.1:{server.server_port}")
    assert request(server, f"/{TOKEN}/question", {"rater": "anna"}, Origin=value)[0] == 403
    if origin is not None:
        assert request(server, f"/{TOKEN}/", method="GET", Origin=value)[0] == 403


@pytest.mark.parametrize(
    "path", ["/", "", "*", "//", "/wrong/", f"/{TOKEN}", f"/{TOKEN}x/", f"/{TOKEN[:-1]}/", f"/x/{TOKEN}/", "/\xe9/"]
)
def test_without_the_token_nothing_is_told(server: LabelServer, path: str) -> None:
    sent = path.encode("latin-1").decode("latin-1") if path else "/?"
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=600) as raw:
        raw.sendall(f"GET {sent} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode("latin-1"))
        answer = b"".join(iter(lambda: raw.recv(2**16), b""))
    if path == f"/{TOKEN}":
        assert answer.startswith(b"HTTP/1.1 308 ")
    else:
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert b"script" not in answer.split(b"\r\n\r\n")[1]


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("question", b"nonsense", {}, 422),
        ("question", b"[" * 9000, {}, 422),
        ("question", b'"\\ud800"', {}, 422),
        ("question", {"rater": 1}, {}, 422),
        ("question", {"rater": "anna", "admin": True}, {}, 422),
        ("question", {"rater": "<script>alert(1)</script>"}, {}, 422),
        ("question", {"rater": "anna"}, {"Content_Type": "text/plain"}, 415),
        ("question", {"rater": "anna"}, {"Content_Type": None}, 415),
        ("question", {"rater": "anna"}, {"Content_Length": "99999999"}, 413),
        ("question", {"rater": "anna"}, {"Content_Length": None}, 411),
        ("question", {"rater": "anna"}, {"Content_Length": "-1"}, 411),
        ("question", {"rater": "anna"}, {"Transfer_Encoding": "chunked"}, 411),
        ("vote", {"rater": "anna", "vote": 1, "left": "a", "right": "b", "choice": "left"}, {}, 422),
        ("vote", {"rater": "anna", "vote": 1, "left": "a", "right": "b", "choice": "undo"}, {}, 422),
        ("undo", {"rater": "anna", "vote": 3}, {}, 409),
        ("undo", {"rater": "anna", "vote": 2**70}, {}, 422),
        ("nothing", {"rater": "anna"}, {}, 404),
    ],
)
def test_bad_requests_are_refused_with_words(
    server: LabelServer, listener: Hearing, path: str, body: Any, headers: dict[str, str | None], status: int
) -> None:
    answered, _, content = request(server, f"/{TOKEN}/{path}", body, **headers)
    assert answered == status
    assert json.loads(content)["problem"]
    assert listener.warnings == []
    assert not list(server.labeling._folder.glob("*"))


def test_other_methods_and_videos(server: LabelServer) -> None:
    assert request(server, f"/{TOKEN}/", method="DELETE")[0] == 501
    assert request(server, f"/{TOKEN}/video/../../etc/passwd", method="GET")[0] == 422
    assert request(server, f"/{TOKEN}/video/{'0' * 24}", method="GET")[0] == 422
    assert request(server, f"/{TOKEN}/label.html", method="GET")[0] == 404
    state = json.loads(request(server, f"/{TOKEN}/question", {"rater": "anna"})[2])
    name = state["question"]["left"]["name"]
    status, headers, video = request(server, f"/{TOKEN}/video/{name}", method="GET")
    assert (status, headers["Content-Type"], video[4:8]) == (200, "video/mp4", b"ftyp")
    assert request(server, f"/{TOKEN}/video/{name}", method="GET")[2] == video


def test_a_browser_that_leaves_in_the_middle_costs_nothing(server: LabelServer, listener: Hearing) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port)) as raw:
        raw.sendall(b"POST /token/vote HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    assert request(server, f"/{TOKEN}/question", {"rater": "anna"})[0] == 200
    assert listener.warnings == []


def test_a_closed_server_answers_on_no_connection_that_is_kept_open(server: LabelServer) -> None:
    with LabelServer(server.labeling, 0, TOKEN) as other:
        thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        connection = http.client.HTTPConnection("127.0.0.1", other.server_port, timeout=600)
        for _ in range(2):  # one connection
            connection.request("GET", f"/{TOKEN}/")
            assert connection.getresponse().read().startswith(b"<!doctype html>")
        kept = connection.sock
        assert kept is not None
        other.shutdown()
        thread.join()
    with pytest.raises((ConnectionError, http.client.HTTPException)):  # noqa: PT012 - either call may see it first
        connection.request("GET", f"/{TOKEN}/")
        assert connection.sock is kept
        connection.getresponse()


def test_a_request_that_never_ends_is_cut_off(server: LabelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grape.labeling.server._REQUEST_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=600) as raw:
        raw.sendall(b"GET /token/ HTTP/1.1\r\n")
        ended = threading.Event()

        def trickle() -> None:
            with contextlib.suppress(OSError):
                while not ended.wait(0.05):
                    raw.sendall(b"X: 1\r\n")

        thread = threading.Thread(target=trickle)
        thread.start()
        with contextlib.suppress(ConnectionError):
            assert raw.recv(1) == b""
        ended.set()
        thread.join()
    assert request(server, f"/{TOKEN}/", method="GET")[0] == 200


def test_too_many_connections_are_turned_away(server: LabelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with LabelServer(server.labeling, 0, TOKEN) as other, contextlib.ExitStack() as opened:
        monkeypatch.setattr("grape.labeling.server._MOST_CONNECTIONS", 3)
        thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        held = [opened.enter_context(socket.create_connection(("127.0.0.1", other.server_port))) for _ in range(4)]
        with contextlib.suppress(ConnectionError):
            assert held[3].recv(1) == b""
        held[0].close()
        deadline = time.monotonic() + 600
        status = None
        while status != 200 and time.monotonic() < deadline:
            with contextlib.suppress(ConnectionError, http.client.HTTPException):
                status = request(other, f"/{TOKEN}/", method="GET")[0]
        assert status == 200
        other.shutdown()
        thread.join()
