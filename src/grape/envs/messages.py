"""Messages between a pool and its workers: JSON for what is small, raw bytes for arrays.

Nothing is pickled, so the two sides need neither the same Python nor the same numpy. A message is a length (8 bytes,
little-endian), then that many bytes: the header's length (8 bytes), the header as JSON, the arrays one after another.
"""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.envs.base import Snapshot

__all__ = ["receive", "send", "snapshot_from_wire", "snapshot_to_wire"]

_LENGTH = 8
_MAX_BYTES = 4 * 2**30  # 16 lanes with two images of 4096 x 4096 each take 1.6 GB
_CAMERA = "camera:"
_UNSEEN = np.zeros((0, 0, 3), np.uint8)
Arrays = Mapping[str, npt.NDArray[Any]]


def send(link: socket.socket, header: Mapping[str, Any], arrays: Arrays | None = None) -> None:
    """Send one message.

    Args:
        link: A connected stream socket.
        header: JSON values.
        arrays: Arrays of plain numbers by name.
    """
    packed = {name: np.ascontiguousarray(array) for name, array in (arrays or {}).items()}
    described = {name: [array.dtype.str, array.shape] for name, array in packed.items()}
    head = json.dumps({"header": header, "arrays": described}).encode()
    blocks = [len(head).to_bytes(_LENGTH, "little"), head, *(array.tobytes() for array in packed.values())]
    body = b"".join(blocks)
    link.sendall(len(body).to_bytes(_LENGTH, "little") + body)


def receive(link: socket.socket) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Wait for one message.

    Returns:
        Header and arrays; the arrays can be written to.

    Raises:
        EOFError: The connection is closed, or the other side sends something else.
        TimeoutError: The socket has a timeout and it passed.
    """
    size = int.from_bytes(_read(link, _LENGTH), "little")
    if not _LENGTH <= size <= _MAX_BYTES:
        raise EOFError(f"a message of {size:,} bytes was announced: the other side does not speak this protocol")
    body = _read(link, size)
    start = _LENGTH + int.from_bytes(body[:_LENGTH], "little")
    head = json.loads(body[_LENGTH:start])
    arrays = {}
    for name, (kind, shape) in head["arrays"].items():
        count = math.prod(shape)
        arrays[name] = np.frombuffer(body, kind, count, start).reshape(shape)
        start += arrays[name].nbytes
    return head["header"], arrays


def _read(link: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        try:
            count = link.recv_into(view)
        except OSError as error:
            if error.errno is None:  # the socket's own timeout passed
                raise
            raise EOFError("the connection is closed") from error
        if count == 0:
            raise EOFError("the connection is closed")
        view = view[count:]
    return data


def snapshot_to_wire(snapshot: Snapshot) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Header and arrays of a snapshot, without what is privileged."""
    header = {
        "proprio": snapshot.proprio.tolist(),
        "keypoints": {name: point.tolist() for name, point in snapshot.keypoints.items()},
        "signals": {name: float(value) for name, value in snapshot.signals.items()},
        "success": None if snapshot.success is None else bool(snapshot.success),
        "terminated": bool(snapshot.terminated),
        "extra": dict(snapshot.extra),
    }
    arrays = {"image": snapshot.image}
    if snapshot.display is not None:
        arrays["display"] = snapshot.display
    arrays |= {_CAMERA + name: image for name, image in snapshot.cameras.items()}
    return header, arrays


def snapshot_from_wire(header: Mapping[str, Any], arrays: Arrays) -> Snapshot:
    """Inverse of :func:`snapshot_to_wire`; exact, since float32 survives the decimal form of float64."""
    return Snapshot(
        image=arrays.get("image", _UNSEEN),
        proprio=np.array(header["proprio"], dtype=np.float32),
        keypoints={name: np.array(point, dtype=np.float32) for name, point in header["keypoints"].items()},
        signals=dict(header["signals"]),
        success=header["success"],
        terminated=header["terminated"],
        display=arrays.get("display"),
        extra=header["extra"],
        cameras={key[len(_CAMERA) :]: image for key, image in arrays.items() if key.startswith(_CAMERA)},
    )
