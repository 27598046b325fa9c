"""What a robot with openpi's client sends and reads, written from the published layout and apart from GRAPE's own."""

import contextlib

import msgpack
import numpy as np
from websockets.sync.client import connect


def pack(value):
    def array(part):
        return {
            b"__ndarray__": True,
            b"data": part.tobytes(),
            b"dtype": part.dtype.str,
            b"shape": part.shape,
        }

    return msgpack.packb(value, default=array)


def unpack(data):
    def array(entries):
        if b"__ndarray__" in entries:
            return np.ndarray(entries[b"shape"], np.dtype(entries[b"dtype"]), entries[b"data"])
        return entries

    return msgpack.unpackb(data, object_hook=array)


class Robot:
    """One connection; ``api_key`` travels as openpi's client sends it."""

    def __init__(self, url, api_key=None, **more):
        headers = {"Authorization": f"Api-Key {api_key}"} if api_key else None
        self._open = contextlib.ExitStack()
        self.socket = self._open.enter_context(
            connect(
                url, compression=None, max_size=None, additional_headers=headers, proxy=None, open_timeout=300, **more
            )
        )
        self.metadata = unpack(self.socket.recv())

    def infer(self, observation):
        self.socket.send(pack(observation))
        answer = self.socket.recv()
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return unpack(answer)

    def close(self):
        self._open.close()


def observation(number=0, **more):
    image = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return {"observation/image": image, "prompt": "push the block", **more}
