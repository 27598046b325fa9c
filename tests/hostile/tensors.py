"""Hostile safetensors and NumPy files."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.documents import BAD_JSON, ESCAPES
from tests.hostile.hostile_files import replace

Header = dict[str, Any]


def read_header(path: Path) -> tuple[Header, bytes]:
    """Header and tensors of a sound safetensors file."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def safetensors(header: bytes, tensors: bytes = b"", length: int | None = None) -> bytes:
    """File with this header; its length may be announced wrongly."""
    return struct.pack("<Q", len(header) if length is None else length) + header + tensors


def _edit(change: Callable[[Header], None], tail: bytes = b"") -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        header, tensors = read_header(path)
        change(header)
        replace(path, safetensors(json.dumps(header).encode(), tensors + tail))

    return spoil


def _first(header: Header) -> Header:
    return next(value for name, value in header.items() if name != "__metadata__")


def _rename(header: Header) -> None:
    name = next(name for name in header if name != "__metadata__")
    header[ESCAPES] = header.pop(name)


def _fill(byte: bytes) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        header, tensors = read_header(path)
        replace(path, safetensors(json.dumps(header).encode(), byte * len(tensors)))

    return spoil


def _add(name: str, value: Any) -> Callable[[Path], None]:
    return _edit(lambda header: header.update({name: value}))


HOSTILE_SAFETENSORS: dict[str, Callable[[Path], None]] = {
    "header of 2^63 bytes": lambda path: replace(path, safetensors(b"{}", length=2**63)),
    "header of 2^64 - 1 bytes": lambda path: replace(path, safetensors(b"{}", length=2**64 - 1)),
    "header of 90 MB": lambda path: replace(path, safetensors(b"{" + b" " * 90_000_000 + b"}")),
    "header of nothing": lambda path: replace(path, safetensors(b"")),
    "no tensors": lambda path: replace(path, safetensors(b"{}")),
    **{
        f"header: {name}": lambda path, data=data: replace(path, safetensors(data))  # type: ignore[misc]
        for name, data in BAD_JSON.items()
    },
    "unknown dtype": _edit(lambda header: _first(header).update(dtype="Q99")),
    "integers": _edit(lambda header: _first(header).update(dtype="U8")),
    "shape of 2^62": _edit(lambda header: _first(header).update(shape=[2**62, 4])),
    "negative shape": _edit(lambda header: _first(header).update(shape=[-1])),
    "shape of 1,000 axes": _edit(lambda header: _first(header).update(shape=[1] * 1000)),
    "other shape": _edit(lambda header: _first(header).update(shape=[*_first(header)["shape"][::-1], 1])),
    "no shape": _edit(lambda header: _first(header).pop("shape")),
    "offsets beyond the end": _edit(lambda header: _first(header).update(data_offsets=[0, 2**40])),
    "offsets backwards": _edit(lambda header: _first(header).update(data_offsets=[100, 0])),
    "a tensor less": _edit(lambda header: header.pop(next(name for name in header if name != "__metadata__"))),
    "a tensor with escapes in its name": _edit(_rename),
    "a tensor more": _add(ESCAPES, {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}),
    "metadata with escapes": _add("__metadata__", {"format": ESCAPES, ESCAPES: ESCAPES}),
    "metadata of numbers": _add("__metadata__", {"format": 1}),
    "bytes behind the tensors": _edit(lambda header: None, bytes(1000)),
    "all NaN": _fill(b"\xff"),
    "all huge": _fill(b"\x7f"),
    "all zero": _fill(b"\x00"),
}
"""Made from a sound file."""


def npy(description: str, shape: str, data: bytes = b"", version: int = 1) -> bytes:
    """A ``.npy`` file with this header."""
    head = f"{{'descr': {description}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return npy_raw(head + b" " * (-(len(head) + 11) % 64) + b"\n", data, version)


def npy_raw(head: bytes, data: bytes = b"", version: int = 1) -> bytes:
    """A ``.npy`` file whose header is these bytes."""
    length = struct.pack("<H" if version == 1 else "<I", len(head))
    return b"\x93NUMPY" + bytes([version, 0]) + length + head + data


HOSTILE_NPY: dict[str, bytes] = {
    "2^60 numbers": npy("'<u2'", f"({2**60},)"),
    "20 GB announced": npy("'<u2'", "(1000, 10000, 1000)", bytes(1000)),
    "negative shape": npy("'<u2'", "(-1, 32, 48)", bytes(1000)),
    "no numbers": npy("'<u2'", "(0, 32, 48)"),
    "no axes": npy("'<u2'", "()", bytes(2)),
    "64 axes": npy("'<u2'", "(" + "1, " * 64 + ")", bytes(2)),
    "texts": npy("'<U2147483647'", "(1,)"),
    "void": npy("'|V9'", "(11, 32, 48)", bytes(9 * 11 * 32 * 48)),
    "structure": npy("[('a', '<u2'), ('b', '<f8', (1000000,))]", "(11,)"),
    "complex": npy("'<c16'", "(11, 32, 48)", bytes(16 * 11 * 32 * 48)),
    "NaN": npy("'<f4'", "(11, 32, 48)", b"\xff" * (4 * 11 * 32 * 48)),
    "infinite": npy("'<f8'", "(11, 32, 48)", b"\0\0\0\0\0\0\xf0\x7f" * (11 * 32 * 48)),
    "negative": npy("'<f4'", "(11, 32, 48)", b"\0\0\x80\xbf" * (11 * 32 * 48)),
    "booleans": npy("'|b1'", "(11, 32, 48)", b"\x07" * (11 * 32 * 48)),
    "other size": npy("'<u2'", "(11, 48, 32)", bytes(2 * 11 * 32 * 48)),
    "other count": npy("'<u2'", "(3, 32, 48)", bytes(2 * 3 * 32 * 48)),
    "dates": npy("'<M8[ns]'", "(11, 32, 48)", bytes(8 * 11 * 32 * 48)),
    "objects": npy("'|O'", "(11,)", b"\x80\x04N."),
    "pickled call": npy("'|O'", "(1,)", b"cos\nsystem\n(S'touch owned'\ntR."),
    "pickle of 10^9 lists": npy("'|O'", "(1,)", b"\x80\x04" + b"]" * 1_000_000 + b"."),
    "pickle announcing 4 GB": npy("'|O'", "(1,)", b"\x80\x04\x8e" + struct.pack("<Q", 2**32) + b"."),
    "pickle of an integer of 10^6 digits": npy(
        "'|O'", "(1,)", b"\x80\x04\x8b" + struct.pack("<i", 500_000) + b"\x7f" * 500_000 + b"."
    ),
    "header that is code": npy_raw(b"{'descr': __import__('os').system('touch owned'), 'shape': (1,)}\n"),
    "header 10,000 deep": npy_raw(b"(" * 10_000 + b")" * 10_000 + b"\n"),
    "header of 60,000 digits": npy_raw(b"{'descr': '<u2', 'shape': (" + b"9" * 60_000 + b",)}\n"),
    "header of 2^32 bytes": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
    "header that is no dictionary": npy_raw(b"[1, 2]\n"),
    "header with escapes": npy_raw(b"{'\x1b[31m': 1}\n"),
    "version 9": npy("'<u2'", "(1,)", bytes(2), 9),
    "ZIP": b"PK\x03\x04" + bytes(100),
}  # fmt: skip
