"""LIBERO's archives of initial states: NumPy's, and those that ``torch.save`` made."""

import io
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.hostile.baseline import MAKERS
from tests.hostile.cases import Spoil, cases_of, check
from tests.hostile.documents import ESCAPES
from tests.hostile.foreign import Call
from tests.hostile.hostile_files import DAMAGED, SPECIAL, replace
from tests.hostile.tensors import HOSTILE_NPY, npy

STATES = np.linspace(0.0, 1.0, 50 * 9).reshape(50, 9)
READ = "-m tests.hostile.reading_initial_states states"
NPZ, PICKLED = "states/libero_goal/push.pruned_init.npz", "torch/libero_goal/push.pruned_init"


def _stored(array: np.ndarray) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


def archive(*entries: tuple[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A ZIP archive."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", kind) as made:
        for name, data in entries:
            made.writestr(name, data)
    return sink.getvalue()


def _bomb(name: str, size: int, announced: int) -> bytes:
    """An archive of one entry of zeros, which may unpack to more than it announces."""
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = block * (size >> 20) + packer.flush()
    facts = struct.pack("<HHHHHIII", 20, 0, 8, 0, 0, zlib.crc32(b""), len(packed), announced)
    local = b"PK\x03\x04" + facts + struct.pack("<HH", len(name), 0) + name.encode() + packed
    head = b"PK\x01\x02\x14\0" + facts + struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, 0) + name.encode()
    return local + head + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(head), len(local), 0)


def _patched(data: bytes, offset: int, value: bytes) -> bytes:
    """The archive with bytes of its first entry in the directory exchanged."""
    place = data.index(b"PK\x01\x02") + offset
    return data[:place] + value + data[place + len(value) :]


def _program(content: object, protocol: int = 2) -> bytes:
    return archive(("archive/data.pkl", pickle.dumps(content, protocol)), ("archive/version", b"3\n"))


def _raw(program: bytes) -> bytes:
    return archive(("archive/data.pkl", program))


SOUND = archive(("states.npy", _stored(STATES)))


def _either(name: str, sound: bytes) -> dict[str, bytes]:
    """Faults of the archive itself."""
    return {
        "no entries": archive(),
        "another entry": archive((f"{ESCAPES.replace('/', '')}.x", b"x")),
        "the entry twice": archive((f"a/{name}", b"x"), (f"b/{name}", b"x")),
        "an entry of nothing": archive((name, b"")),
        "an entry outside": archive((f"../../../{name}", b"x")),
        "400 MB announced": _bomb(name, 400 << 20, 400 << 20),
        "2 GB, announced as 1 kB": _bomb(name, 2 << 30, 1000),
        "2 GB, announced as 60 MB": _bomb(name, 2 << 30, 60_000_000),
        "60 MB": _bomb(name, 60 << 20, 60 << 20),
        "20,000 entries": archive(*((f"{number}", b"") for number in range(20_000))),
        "BZ2": archive((name, bytes(1000)), kind=zipfile.ZIP_BZIP2),
        "LZMA": archive((name, bytes(1000)), kind=zipfile.ZIP_LZMA),
        "encrypted": _patched(sound, 8, b"\x01"),
        "unknown compression": _patched(sound, 10, b"\x63"),
        "other checksum": _patched(sound, 16, b"\x00\x01\x02\x03"),
        "size of 2^32 - 1": _patched(sound, 20, b"\xff" * 8),
        "a disk elsewhere": _patched(sound, 34, b"\xff\xfe"),
        "an offset beyond": _patched(sound, 42, b"\xfe\xff\xff\x7f"),
        "version 99": _patched(sound, 6, b"\x63"),
        "archive in archive": archive((name, sound)),
        "text before": b"#!/bin/sh\n" * 100 + sound,
    }


NPZS = {
    **_either("states.npy", SOUND),
    **{f"array: {what}": archive(("states.npy", data)) for what, data in HOSTILE_NPY.items()},
    "array of 3 axes": archive(("states.npy", _stored(np.zeros((2, 2, 2))))),
    "array of no rows": archive(("states.npy", _stored(np.zeros((0, 9))))),
    "array of no columns": archive(("states.npy", _stored(np.zeros((9, 0))))),
    "array of NaN": archive(("states.npy", _stored(np.full((50, 9), np.nan)))),
    "array of long doubles": archive(("states.npy", _stored(np.full((50, 9), np.longdouble("1e4000"))))),
    "array of texts": archive(("states.npy", _stored(np.full((50, 9), "1.5")))),
    "array of 10^18 nothings": archive(("states.npy", npy("'|S0'", f"({10**9}, {10**9})"))),
    "array by column": archive(("states.npy", _stored(np.asfortranarray(STATES)))),
    "array of -1 x -1": archive(("states.npy", npy("'<f8'", "(-1, -1)", bytes(8)))),
}
PICKLES = {
    **_either("archive/data.pkl", _program(STATES)),
    "a call of os.system": _program(Call(__import__("os").system, "touch owned")),
    "a call beside an array": _program([STATES, Call(eval, "open('owned', 'w')")]),
    "another kind of number": _program(STATES.astype(np.float32)),
    "three axes": _program(np.zeros((2, 2, 2))),
    "NaN": _program(np.full((50, 9), np.nan)),
    "no rows": _program(np.zeros((0, 9))),
    "protocol 0": _program(STATES, 0),
    "protocol 4": _program(STATES, 4),
    "protocol 5": _program(STATES, 5),
    "nothing": _raw(b""),
    "a cut program": _raw(pickle.dumps(STATES, 2)[:-40]),
    "30 million instructions": _raw(b"\x80\x02" + b"]" * 30_000_000 + b"."),
    "10 million numbers": _raw(b"\x80\x02" + b"K\x01" * 10_000_000 + b"."),
    "an unknown instruction": _raw(b"\x80\x02\xff."),
    "an integer of 20 MB": _raw(b"\x80\x02\x8b" + struct.pack("<i", 20_000_000) + b"\x7f" * 20_000_000 + b"."),
    "a decimal of 10 MB": _raw(b"\x80\x02L" + b"9" * 10_000_000 + b"L\n."),
    "bytes of 2^63": _raw(b"\x80\x04\x8e" + struct.pack("<Q", 2**63) + b"."),
    "bytes of a negative length": _raw(b"\x80\x02\x8b" + struct.pack("<i", -5) + b"."),
    "a text that is no UTF-8": _raw(b"\x80\x02X\x02\0\0\0\xff\xfe."),
    "a text beyond Latin-1": _raw(b"\x80\x02" + b"X\x03\0\0\0\xe2\x82\xac" + b"X\x02\0\0\0f8."),
    "a negative shape": _raw(b"\x80\x02X\x02\0\0\0f8J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86\x89C\x08" + bytes(8) + b"."),
}


def _contents(files: dict[str, bytes]) -> dict[str, Spoil]:
    return {name: lambda path, data=data: replace(path, data) for name, data in files.items()}  # type: ignore[misc]


def _make(file: str, data: bytes) -> Spoil:
    def make(path: Path) -> None:
        replace(path / file, data)

    return make


MAKERS["states"] = _make("libero_goal/push.pruned_init.npz", SOUND)
MAKERS["torch"] = _make("libero_goal/push.pruned_init", _program(STATES))

ARCHIVES = [
    *cases_of(NPZ, ("states",), [READ], {**SPECIAL, **DAMAGED}),
    *cases_of(NPZ, ("states",), [READ], _contents(NPZS), sampled=False),
    *cases_of(PICKLED, ("torch",), [READ.replace(" states", " torch")], {**SPECIAL, **DAMAGED}),
    *cases_of(PICKLED, ("torch",), [READ.replace(" states", " torch")], _contents(PICKLES), sampled=False),
]


@pytest.mark.parametrize("case", ARCHIVES, ids=str)
def test_an_archive(case, baseline, driver, place):
    check(case, baseline, driver, place)
