"""Who may connect to a process of a run."""

import socket
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
    wait_readable([door.listener])
    assert door.admit() == {}
    assert outsider.recv(1) == b""
    outsider.close()
    door.close()
