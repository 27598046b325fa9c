"""A real S3 server on the loopback interface, a connection to it that can be cut, and caches of several machines."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from grape.core.remote.addresses import RemoteAddress
from tests.remote.memory import NUMBERS

pytest.importorskip("s3fs")
pytest.importorskip("moto")

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "not-a-real-secret", "AWS_DEFAULT_REGION": "us-east-1"}


class Connection:
    """Forwards a port to the server; while it is cut, nobody answers there."""

    def __init__(self, target: int) -> None:
        self._target = target
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self._guard = threading.Lock()
        self._sockets: list[socket.socket] = []
        self.open()

    def open(self) -> None:
        server = socket.create_server(("127.0.0.1", self.port))
        self._server, self.is_open = server, True
        threading.Thread(target=self._accept, args=(server,), daemon=True).start()

    def cut(self) -> None:
        with self._guard:
            self.is_open = False
            self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()
            for end in self._sockets:
                with contextlib.suppress(OSError):  # it had ended
                    end.shutdown(socket.SHUT_RDWR)  # closing alone does not wake who reads from it
                end.close()
            self._sockets.clear()

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                near = server.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            with self._guard:
                if server is not self._server or not self.is_open:  # it was cut meanwhile
                    near.close()
                    far.close()
                    return
                self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    @staticmethod
    def _forward(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return


@pytest.fixture(scope="session")
def s3_port():
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("s3_server.py"))],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    yield int(server.stdout.readline())
    server.kill()
    server.wait()


@pytest.fixture
def connection(s3_port):
    link = Connection(s3_port)
    yield link
    if link.is_open:
        link.cut()


@pytest.fixture
def bucket(s3_port, request):
    """Name of a new bucket, and the file system that looks into it without the connection that can be cut."""
    import s3fs

    files = s3fs.S3FileSystem(
        key=KEYS["AWS_ACCESS_KEY_ID"],
        secret=KEYS["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=f"http://127.0.0.1:{s3_port}",
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    name = f"bucket-{abs(hash(request.node.nodeid)) % 10**12}"
    files.mkdir(name)
    return name, files


@pytest.fixture
def machine(tmp_path, connection):
    """Gives the environment of a machine by its name: each has a cache of its own."""

    def environment(name: str) -> dict[str, str]:
        own = {"XDG_CACHE_HOME": str(tmp_path / name), "AWS_ENDPOINT_URL": f"http://127.0.0.1:{connection.port}"}
        return {**os.environ, **KEYS, **own}

    return environment


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A folder for mirrors of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def address(cache):
    """An address of ``memory://`` where nothing is."""
    return RemoteAddress("memory", f"bucket/{next(NUMBERS)}")
