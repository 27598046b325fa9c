"""tf.train.Example: known bytes, the way there and back, hostile bytes."""

import contextlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from grape.core.errors import DataError
from grape.store.rlds.example import decode_example, encode_example

values = st.one_of(
    st.lists(st.binary(max_size=300), min_size=1, max_size=5),
    hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(width=32)),
    hnp.arrays(np.int64, st.integers(1, 40)),
)


def test_bytes_are_those_of_protocol_buffers():
    encoded = encode_example({"a": [b"xy"], "b": np.array([1.0], np.float32), "c": np.array([300, -1])})
    assert encoded == bytes.fromhex(
        "0a33"  # features
        "0a0b" "0a0161" "1206" "0a04" "0a027879"  # a: bytes_list
        "0a0d" "0a0162" "1208" "1206" "0a04" "0000803f"  # b: float_list, packed
        "0a15" "0a0163" "1210" "1a0e" "0a0c" "ac02" "ffffffffffffffffff01"  # c: int64_list, packed
    )  # fmt: skip


@given(st.dictionaries(st.text(max_size=20), values, max_size=6))
@settings(deadline=None)
def test_there_and_back(features):
    decoded = decode_example(encode_example(features))
    assert decoded.keys() == features.keys()
    for key, value in features.items():
        if isinstance(value, list):
            assert decoded[key] == value
        else:
            assert decoded[key].dtype == value.dtype
            assert decoded[key].tobytes() == value.tobytes()


def test_flags_and_other_numbers_become_integers_and_floats():
    decoded = decode_example(encode_example({"flag": np.array([True, False]), "wide": np.array([[1.5], [2.5]])}))
    assert decoded["flag"].tolist() == [1, 0]
    assert decoded["wide"].tolist() == [1.5, 2.5]


def message(feature: bytes) -> bytes:
    entry = b"\x0a\x01k\x12" + bytes([len(feature)]) + feature
    features = b"\x0a" + bytes([len(entry)]) + entry
    return b"\x0a" + bytes([len(features)]) + features


@pytest.mark.parametrize(
    ("numbers", "due"),
    [
        (b"\x12\x0a\x0d\x00\x00\x80\x3f\x0d\x00\x00\x00\x40", [1.0, 2.0]),
        (b"\x1a\x05\x08\x01\x08\xac\x02", [1, 300]),
        (b"\x1a\x00", []),
        (b"", []),
    ],
)
def test_numbers_one_by_one_and_empty_lists(numbers, due):
    assert list(decode_example(message(numbers))["k"]) == due


@given(st.binary(max_size=200))
@example(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")
@settings(max_examples=500, deadline=None)
def test_foreign_bytes_are_an_example_or_a_data_error(data):
    with contextlib.suppress(DataError):
        decode_example(data)


@given(features=st.dictionaries(st.text(max_size=8), values, min_size=1, max_size=3), data=st.data())
@settings(max_examples=300, deadline=None)
def test_altered_bytes_are_an_example_or_a_data_error(features, data):
    encoded = bytearray(encode_example(features))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(DataError):
        decode_example(bytes(encoded[: data.draw(st.integers(0, len(encoded)))]))
