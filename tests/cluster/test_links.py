"""Who may connect to a process of a run."""

import socket
import time
from dataclasses import replace
from multiprocessing.connection import wait as wait_readable

import pytest

from grape.cluster import Door, connect, links


def test_who_was_invited_is_let_in_by_number() -> None:
    door = Door("127.0.0.1")
    ends = {number: connect(door.invite(number)) for number in (3, 2**40)}
    arrived: dict[int, socket.socket] = {}
    while len(arrived) < 2:
        wait_readable([door.listener])
        arrived |= door.admit()
    for number, end in ends.items():
        end.sendall(b"hello")
        assert arrived[number].recv(5) == b"hello"
        assert arrived[number].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        end.close()
        arrived[number].close()
    assert door.admit() == {}
    invitation = door.invite(1)
    door.close()
    with pytest.raises(ConnectionRefusedError):
        connect(invitation)


@pytest.mark.parametrize("greeting", ["another key", "half of it", "nothing"])
def test_others_are_turned_away_without_a_word(greeting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_GREETING_SECONDS", 0.05)
    door = Door("127.0.0.1")
    invitation = door.invite(1)
    assert invitation.key != Door("127.0.0.1").invite(1).key
    if greeting == "another key":
        outsider = connect(replace(invitation, key=bytes(32)))
    else:
        outsider = socket.create_connection((invitation.host, invitation.port))
        outsider.sendall(invitation.key[:16] if greeting == "half of it" else b"")
    while not wait_readable([outsider], 0.01):
        assert door.admit() == {}
    assert outsider.recv(1) == b""
    assert list(door.sockets) == [door.listener]
    outsider.close()
    door.close()


def test_who_says_nothing_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_MOST_PENDING", 3)
    door = Door("127.0.0.1")
    invitation = door.invite(7)
    silent = [socket.create_connection((invitation.host, invitation.port)) for _ in range(5)]
    start = time.monotonic()
    end = connect(invitation)
    arrived: dict[int, socket.socket] = {}
    while not arrived:
        wait_readable(door.sockets)
        arrived = door.admit()
    assert set(arrived) == {7}
    assert time.monotonic() - start < links._GREETING_SECONDS / 2
    assert len(door.sockets) <= 4
    door.close()
    for link in (*silent, end, *arrived.values()):
        link.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no such timeout")
def test_a_machine_that_is_gone_is_noticed_before_its_process_counts_as_hung() -> None:
    door = Door("127.0.0.1")
    with connect(door.invite(1)) as end:
        milliseconds = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    door.close()
    assert 0 < milliseconds < 1000 * links.LEAST_TIMEOUT
