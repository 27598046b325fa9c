"""Hostile files of other projects: TFRecord, pickled rollouts, constraint functions, answers."""

import gzip
import io
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from grape.store.rlds.example import decode_example, encode_example
from grape.store.rlds.tfrecord import frame_record, read_records
from tests.hostile.documents import ESCAPES
from tests.hostile.hostile_files import replace
from tests.hostile.images import png

Spoil = Callable[[Path], None]


def _payloads(path: Path) -> list[bytes]:
    return [payload for _, payload in read_records(path) if payload is not None]


def _each(change: Callable[[bytes], bytes]) -> Spoil:
    """Change every record's payload; checksums fit again."""
    return lambda path: replace(path, b"".join(frame_record(change(payload)) for payload in _payloads(path)))


def _feature(change: Callable[[dict[str, Any]], None]) -> Spoil:
    def edit(payload: bytes) -> bytes:
        features = dict(decode_example(payload))
        change(features)
        return encode_example(features)

    return _each(edit)


def _images(image: bytes) -> Spoil:
    def change(features: dict[str, Any]) -> None:
        for name, value in features.items():
            if "image" in name and isinstance(value, list):
                features[name] = [image] * len(value)

    return _feature(change)


def _numbers(value: Callable[[np.ndarray], Any]) -> Spoil:
    def change(features: dict[str, Any]) -> None:
        name = next(name for name in features if name.endswith("action"))
        features[name] = value(np.asarray(features[name]))

    return _feature(change)


def _texts(value: bytes) -> Spoil:
    def change(features: dict[str, Any]) -> None:
        for name, old in features.items():
            if isinstance(old, list) and "image" not in name:
                features[name] = [value] * len(old)

    return _feature(change)


def _announce(length: int) -> bytes:
    head = struct.pack("<Q", length)
    return head + frame_record(head)[8 + 8 :][:4]


def _gzip_bomb(size: int) -> bytes:
    """A gzip file with one record of this many zeros; made by chunks."""
    sink = io.BytesIO()
    with gzip.GzipFile(fileobj=sink, mode="wb", compresslevel=1) as handle:
        handle.write(_record_head(size))
        for _ in range(size >> 20):
            handle.write(bytes(1 << 20))
    return sink.getvalue()


def _record_head(size: int) -> bytes:
    from grape.store.rlds.tfrecord import masked_crc32c

    length = struct.pack("<Q", size)
    return length + struct.pack("<I", masked_crc32c(length))


HOSTILE_RECORDS: dict[str, Spoil] = {
    "a record of 2^63 bytes": lambda path: replace(path, _record_head(2**63) + bytes(100)),
    "a record of 1.9 GB": lambda path: replace(path, _record_head(1_900_000_000) + bytes(100)),
    "a record of 1.9 GB in gzip": lambda path: replace(path, _gzip_bomb(1_900_000_000)),
    "a record of 1.9 GB, announced in gzip": lambda path: replace(path, gzip.compress(_record_head(1_900_000_000))),
    "gzip in gzip": lambda path: replace(path, gzip.compress(gzip.compress(path.read_bytes()))),
    "gzip cut": lambda path: replace(path, gzip.compress(path.read_bytes())[:-20]),
    "a record of nothing": lambda path: replace(path, frame_record(b"")),
    "a hundred thousand records of nothing": lambda path: replace(path, frame_record(b"") * 100_000),
    "a record too many": lambda path: replace(path, path.read_bytes() * 2),
    "no records": lambda path: replace(path, b""),
    "noise in a record": _each(lambda payload: bytes(reversed(payload))),
    "a cut message": _each(lambda payload: payload[: len(payload) // 2]),
    "a varint without end": _each(lambda payload: b"\x0a" + b"\xff" * 100),
    "a message of 2^62 bytes": _each(lambda payload: b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x3f"),
    "messages 10,000 deep": _each(lambda payload: b"\x0a\x7f" * 10_000),
    "groups": _each(lambda payload: b"\x0b" * 10_000),
    "no features": _each(lambda payload: encode_example({})),
    "a feature more": _feature(lambda features: features.update({ESCAPES: [b"x"]})),
    "a feature less": _feature(lambda features: features.pop(next(iter(features))) and None),
    "PNG bombs": _images(png(100_000, 100_000, bytes(1000))),
    "PNG of another size": _images(png(9, 9, bytes(28 * 9))),
    "images of nothing": _images(b""),
    "images of noise": _images(b"\xff\xd8\xff" + bytes(500)),
    "actions of NaN": _numbers(lambda values: np.full(len(values), np.nan, np.float32)),
    "actions of infinity": _numbers(lambda values: np.full(len(values), np.inf, np.float32)),
    "actions of 1e38": _numbers(lambda values: np.full(len(values), 1e38, np.float32)),
    "actions of one number": _numbers(lambda values: values[:1]),
    "no actions": _numbers(lambda values: values[:0]),
    "ten million actions": _numbers(lambda values: np.zeros(10_000_000, np.float32)),
    "actions that are texts": _numbers(lambda values: [b"x"] * len(values)),
    "actions that are integers": _numbers(lambda values: np.full(len(values), 2**62, np.int64)),
    "texts with escapes": _texts(ESCAPES.encode()),
    "texts that are no UTF-8": _texts(b"\xff\xfe\xed\xa0\x80"),
    "texts with dots": _texts(b"../../../../escaped"),
    "texts with NUL": _texts(b"a\0b"),
    "texts of 1 MB": _texts(b"x" * 1_000_000),
    "empty texts": _texts(b""),
}
"""Of a TFRecord file."""


def _rollout(steps: Any, shape: tuple[int, ...] | None = None) -> bytes:
    value: Any = steps
    if isinstance(steps, list):
        value = np.empty(len(steps), dtype=object)
        value[:] = steps
    sink = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        sink, {"descr": "|O", "fortran_order": False, "shape": shape or getattr(value, "shape", (1,))}
    )
    return sink.getvalue() + pickle.dumps(value, 4)


def _step(**changes: Any) -> dict[str, Any]:
    pixels = np.full((16, 16, 3), 7, np.uint8)
    return {"images": pixels, "prompt": "put it there", "action": [0.1, 0, 0, 0, 0, 0, 1.0], **changes}


class Call:
    """Pickles as a call of something."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self._reduced


def _self_holding() -> list[Any]:
    steps: list[Any] = [_step(), _step()]
    steps[0]["images"] = steps
    return steps


def sound_rollout() -> bytes:
    """Two steps as LIBERO's collector wrote them."""
    return _rollout([_step(), _step()])


def hostile_rollouts() -> dict[str, Spoil]:
    """Each replaces a rollout file."""
    shared = np.zeros((2000, 2000, 3), np.uint8)
    values: dict[str, Callable[[], bytes]] = {
        "a call of os.system": lambda: _rollout([_step(prompt=Call(__import__("os").system, "touch owned"))]),
        "a call of eval": lambda: _rollout([_step(action=Call(eval, "open('owned', 'w')"))]),
        "a call of a decompressor": lambda: _rollout(
            [_step(images=Call(zlib.decompress, zlib.compress(bytes(10**8))))]
        ),
        "an array of 10^12 bytes": lambda: _rollout([_step(images=Call(np.zeros, 10**12))]),
        "one image a thousand times": lambda: _rollout([_step(images=shared)] * 1000),
        "images of no size": lambda: _rollout([_step(images=np.zeros((0, 0, 3), np.uint8))] * 2),
        "an image of floats": lambda: _rollout([_step(images=np.zeros((16, 16, 3)))] * 2),
        "an image of objects": lambda: _rollout([_step(images=np.array([[[None]]]))] * 2),
        "images of several sizes": lambda: _rollout([_step(), _step(images=np.zeros((8, 8, 3), np.uint8))]),
        "a Pillow image": lambda: _rollout([_step(images=Image.new("RGB", (8, 8)))] * 2),
        "a Pillow image of a palette": lambda: _rollout([_step(images=Image.new("P", (8, 8)))] * 2),
        "a step that holds itself": lambda: _rollout(_self_holding()),
        "lists 5,000 deep": lambda: _deep_list(5000),
        "a prompt with escapes": lambda: _rollout([_step(prompt=ESCAPES)] * 2),
        "a prompt with a lone surrogate": lambda: _rollout([_step(prompt="\ud800")] * 2),
        "a prompt with NUL": lambda: _rollout([_step(prompt="a\0b")] * 2),
        "an empty prompt": lambda: _rollout([_step(prompt="")] * 2),
        "a prompt of 10 MB": lambda: _rollout([_step(prompt="x" * 10_000_000)] * 2),
        "a prompt of bytes": lambda: _rollout([_step(prompt=b"x")] * 2),
        "an action of NaN": lambda: _rollout([_step(action=[float("nan")] * 7)] * 2),
        "an action of 10^400": lambda: _rollout([_step(action=[10**400] * 7)] * 2),
        "an action of texts": lambda: _rollout([_step(action=["x"] * 7)] * 2),
        "an action of nothing": lambda: _rollout([_step(action=None)] * 2),
        "an action of 10^7 numbers": lambda: _rollout([_step(action=np.zeros(10**7))] * 2),
        "a step that is a list": lambda: _rollout([[1, 2], [3]]),
        "a key that is a number": lambda: _rollout([{**_step(), 7: 1}] * 2),
        "a key with escapes": lambda: _rollout([{ESCAPES: 1}] * 2),
        "no steps": lambda: _rollout([]),
        "more steps announced": lambda: _rollout([_step()], (10**9,)),
        "a set": lambda: _rollout({1, 2}),
        "a pickle cut": lambda: _rollout([_step()] * 4)[:-50],
        "a pickle of protocol 0": lambda: _rollout([_step()])[:128] + pickle.dumps([_step()], 0),
        "a memo of 2^32": lambda: _rollout([])[:128] + b"\x80\x04]r\xff\xff\xff\xff.",
        "marks without end": lambda: _rollout([])[:128] + b"\x80\x04" + b"(" * 1_000_000 + b".",
        "copies without end": lambda: _rollout([])[:128] + b"\x80\x04]" + b"2a" * 100_000 + b".",
        "doubling lists": lambda: _rollout([])[:128] + b"\x80\x04]" + b"(22le" * 30 + b".",
        "a global with escapes": lambda: _rollout([])[:128] + b"\x80\x04c" + ESCAPES.encode() + b"\nx\n.",
        "an extension": lambda: _rollout([])[:128] + b"\x80\x04\x82\x01.",
        "a persistent id": lambda: _rollout([])[:128] + b"\x80\x04Px\n.",
    }  # fmt: skip
    return {name: lambda path, make=make: replace(path, make()) for name, make in values.items()}  # type: ignore[misc]


def _deep_list(depth: int) -> bytes:
    return _rollout([])[:128] + b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b"."
