import socket
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from grape.envs.base import Snapshot
from grape.envs.messages import receive, send, snapshot_from_wire, snapshot_to_wire
from tests.envs.snapshots import assert_same


@given(
    image=arrays.arrays(np.uint8, st.tuples(st.integers(0, 5), st.integers(0, 5), st.just(3))),
    point=arrays.arrays(np.float32, 3, elements=st.floats(width=32, allow_nan=False)),
    signal=st.floats(allow_nan=False),
)
def test_message_arrives_bit_by_bit(image: np.ndarray, point: np.ndarray, signal: float) -> None:
    snapshot = Snapshot(
        image=image, proprio=point, keypoints={"a": point}, signals={"s": signal}, success=True, display=image[::-1]
    )
    near, far = socket.socketpair()
    with near, far:
        send(near, *snapshot_to_wire(snapshot))
        assert_same(snapshot_from_wire(*receive(far)), snapshot)


def test_large_message_and_end_of_connection() -> None:
    near, far = socket.socketpair()
    data = np.arange(3_000_000, dtype=np.float32).reshape(2, -1)
    with far:
        sender = threading.Thread(target=lambda: (send(near, {"n": 1}, {"data": data}), near.close()))
        sender.start()
        header, received = receive(far)
        sender.join()
        assert header == {"n": 1}
        np.testing.assert_array_equal(received["data"], data)
        with pytest.raises(EOFError):
            receive(far)


def test_silence_is_a_timeout() -> None:
    near, far = socket.socketpair()
    with near, far:
        far.settimeout(0.01)
        with pytest.raises(TimeoutError):
            receive(far)


@pytest.mark.parametrize("size", [0, 7, 2**33, 2**64 - 1])
def test_an_announced_size_that_no_message_has_ends_the_connection(size):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(size.to_bytes(8, "little") + b"HTTP/1.1 200 OK")
        with pytest.raises(EOFError, match="does not speak this protocol"):
            receive(ours)
