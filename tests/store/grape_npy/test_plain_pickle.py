"""Pickles as data: what rollouts hold comes back, everything else is refused and nothing runs."""

import array
import builtins
import codecs
import collections
import contextlib
import ctypes
import datetime
import decimal
import functools
import io
import operator
import os
import pathlib
import pickle
import struct
import subprocess
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from grape.core.errors import DataError
from grape.store.grape_npy.plain_pickle import Slot, read_plain_pickle


class Calls:
    """Pickles as a call of ``function(*arguments)``."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class Own:
    pass


def frame(*instructions):
    return b"\x80\x04" + b"".join(instructions) + b"."


def text(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


def global_(module, name):
    return text(module) + text(name) + b"\x93"


TOUCH = "touch hostile-was-here"
HOSTILE = {
    "os.system": Calls(os.system, TOUCH),
    "subprocess.Popen": Calls(subprocess.Popen, ["sh", "-c", TOUCH]),
    "subprocess.check_output": Calls(subprocess.check_output, ["sh", "-c", TOUCH]),
    "eval": Calls(eval, f"__import__('os').system('{TOUCH}')"),
    "exec": Calls(exec, f"import os; os.system('{TOUCH}')"),
    "compile": Calls(compile, "1", "x", "eval"),
    "import": Calls(builtins.__import__, "os"),
    "open": Calls(open, "hostile-was-here", "w"),
    "getattr": Calls(getattr, "x", "upper"),
    "operator.attrgetter": operator.attrgetter("system"),
    "functools.partial": functools.partial(os.system, TOUCH),
    "numpy.load": Calls(np.load, "other.npy", None, True),
    "numpy.fromfile": Calls(np.fromfile, "/etc/passwd", np.uint8),
    "numpy.ndarray by call": Calls(np.ndarray, (1 << 40,)),
    "pickle.loads": Calls(pickle.loads, b"cos\nsystem\n(S'x'\ntR."),
    "codecs.decode": Calls(codecs.decode, b"x", "zlib"),
    "codecs.encode of another kind": Calls(codecs.encode, "x", "rot13"),
    "bytearray": bytearray(b"x"),
    "ctypes": Calls(ctypes.CDLL, "libc.so.6"),
    "pathlib": pathlib.PurePosixPath("/etc"),
    "collections.Counter": collections.Counter("aab"),
    "datetime": datetime.date(2024, 1, 1),
    "decimal": decimal.Decimal("1"),
    "array": array.array("b", [1]),
    "own class": Own(),
    "set": {1, 2},
    "structured array": np.zeros(2, dtype=[("a", "u1"), ("b", "u1")]),
    "array of texts": np.array(["a", "b"]),
    "array of dates": np.array(["2024-01-01"], dtype="datetime64[D]"),
    "array subclass": np.zeros(2).view(np.recarray),
    "gray image": Image.new("L", (2, 2)),
}
RAW = {
    "persistent id": frame(text("x"), b"Q"),
    "extension": frame(b"\x82\x01"),
    "instance of old style": b"(S'x'\nios\nsystem\n.",
    "object of old style": frame(b"(", global_("os", "system"), text(TOUCH), b"o"),
    "new object with keywords": frame(global_("os", "system"), b")", b"}", b"\x92"),
    "protocol 0": b"cos\nsystem\n(S'touch hostile-was-here'\ntR.",
    "name by parts": frame(text("os"), text("system"), b"\x93", text(TOUCH), b"\x85R"),
    "name of no text": frame(b"K\x01", b"K\x02", b"\x93"),
    "dotted name": frame(global_("numpy", "lib.npyio.load"), b")R"),
    "an allowed name called otherwise": frame(global_("numpy", "ndarray"), b"K\x05\x85R"),
    "state for a name": frame(global_("numpy", "ndarray"), b"}b"),
    "state for a list": frame(b"]", b"}b"),
    "image with arguments": frame(global_("PIL.Image", "Image"), b"K\x05\x85\x81"),
    "buffer out of band": frame(b"\x97"),
    "a number of a terabyte": frame(
        global_("numpy.core.multiarray", "scalar"),
        global_("numpy", "dtype"),
        text("u1") + b"\x85R",
        b"\x8a\x06" + (1 << 40).to_bytes(6, "little"),
        b"\x86R",
    ),
    "an image of depth": frame(
        global_("PIL.Image", "Image"), b")\x81", b"(N", text("L"), b")" + b"\x85" * 50_000 + b")\x86", b"NN", b"tb"
    ),
    "no end": b"\x80\x04K\x01",
    "nothing": b"",
    "empty stack": frame(),
    "mark missing": frame(b"t"),
    "memory missing": frame(b"h\x07"),
    "length beyond the file": frame(b"\x8e" + struct.pack("<Q", 1 << 60)),
    "a list as key": frame(b"}", b"]", b"K\x01", b"s"),
    "reduce of a text": frame(text("os.system"), b")R"),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_plain_data_is_refused_and_nothing_runs(name, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(HOSTILE[name], protocol)
    with pytest.raises(DataError) as caught:
        read_plain_pickle(data)
    assert "byte" in caught.value.message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", RAW)
def test_strange_instructions_are_refused_and_nothing_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError):
        read_plain_pickle(RAW[name])
    assert not list(tmp_path.iterdir())


def test_the_refused_name_is_told():
    with pytest.raises(DataError, match=r"names posix\.system, which is no plain data") as caught:
        read_plain_pickle(pickle.dumps(Calls(os.system, TOUCH), 4))
    assert "Nothing was run" in caught.value.hint


LEVELS = 18
TWICE = (
    text("ha")
    + b"\x94"
    + b"".join(b"h" + bytes([index]) + b"h" + bytes([index]) + b"\x86\x94" for index in range(LEVELS))
)
WITHIN_ITSELF = b"h" + bytes([LEVELS])  # a tuple of 2 ** 18 texts, none of which is there twice


@pytest.mark.parametrize(
    "use",
    [
        global_("numpy", "dtype") + WITHIN_ITSELF + b"\x85R",
        global_("_codecs", "encode") + WITHIN_ITSELF + text("latin1") + b"\x86R",
        global_("PIL.Image", "Image") + b")\x81(N" + WITHIN_ITSELF + b"K\x01K\x01\x86NC\x03abctb",
        global_("PIL.Image", "Image") + b")\x81(N" + text("RGB") + WITHIN_ITSELF + b"NC\x03abctb",
    ],
    ids=["element type", "bytes", "mode of an image", "size of an image"],
)
def test_what_stands_twice_within_itself_is_never_walked_along(use):
    data = frame(TWICE, use)
    tracemalloc.start()
    with pytest.raises(DataError):
        read_plain_pickle(data)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1 << 20  # its text has 3 MB


def test_half_a_million_references_take_no_more_memory_than_the_file():
    levels = b"".join(b"h" + bytes([index]) + b"h" + bytes([index]) + b"\x86\x94" for index in range(60))
    document = read_plain_pickle(frame(text("ha"), b"\x94", levels))  # 2 ** 60 texts if they were copied
    assert isinstance(document, tuple)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False)
    | st.text(max_size=10)
    | st.binary(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(plain, st.sampled_from([3, 4, 5]))
@settings(deadline=None)
def test_plain_values_come_back(value, protocol):
    assert read_plain_pickle(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "float32", ">f8", "int64", "bool"])
def test_arrays_come_back(dtype, protocol):
    value = np.arange(12).reshape(3, 4).astype(dtype)
    for array_ in (value, value.T, value[:0]):
        array_read = read_plain_pickle(pickle.dumps(array_, protocol))
        assert isinstance(array_read, Slot)
        assert array_read.value.dtype == array_.dtype
        np.testing.assert_array_equal(array_read.value, array_)


def test_numbers_images_and_objects_come_back():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    assert read_plain_pickle(pickle.dumps(np.float32(0.5), 4)) == 0.5
    np.testing.assert_array_equal(read_plain_pickle(pickle.dumps(Image.fromarray(pixels), 4)).value, pixels)
    steps = np.array([{"a": 1}, {"a": 2}], dtype=object)
    assert read_plain_pickle(pickle.dumps(steps, 4)).value == [{"a": 1}, {"a": 2}]


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_altered_pickles_are_data_or_an_error(data):
    sink = io.BytesIO()
    step = {"images": Image.new("RGB", (3, 2)), "prompt": "go", "action": np.zeros(7)}
    pickle.dump(np.array([step, dict(step)], dtype=object), sink, 4)
    altered = bytearray(sink.getvalue())
    for _ in range(data.draw(st.integers(1, 3))):
        altered[data.draw(st.integers(0, len(altered) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DataError):  # any other exception fails the test
        read_plain_pickle(bytes(altered[: data.draw(st.integers(0, len(altered)))]))
