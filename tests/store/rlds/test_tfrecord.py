"""Framing, checksums, and what becomes of files that are cut or altered."""

import gzip
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grape.core.errors import DataError
from grape.store.rlds.tfrecord import (
    FRAMING_BYTES,
    frame_record,
    masked_crc32c,
    read_record_at,
    read_records,
    record_starts,
)

PAYLOADS = [b"first", b"", b"a" * 300, bytes(range(256))]
WHOLE = b"".join(map(frame_record, PAYLOADS))
STARTS = [sum(len(item) + FRAMING_BYTES for item in PAYLOADS[:index]) for index in range(len(PAYLOADS) + 1)]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("records") / "x.tfrecord"


def read(path):
    """Records up to the first error, and that error."""
    payloads = []
    try:
        for number, payload in read_records(path):
            assert number == len(payloads)
            payloads.append(payload)
    except DataError as error:
        return payloads, error
    return payloads, None


def record_at(place):
    return max(index for index, start in enumerate(STARTS) if start <= place)


def test_checksum_is_tensorflows():
    # The check value of CRC-32C is e3069283; rotated right by 15 bits, plus a282ead8.
    assert masked_crc32c(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert masked_crc32c(b"123456789") == 0xC78AB0E5


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_records_come_back(path, pack):
    path.write_bytes(pack(WHOLE))
    assert read(path) == (PAYLOADS, None)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_records_of_others_are_passed_over(path, pack):
    path.write_bytes(pack(WHOLE))
    assert [payload for _, payload in read_records(path, lambda number: number % 2 == 1)] == [
        None, PAYLOADS[1], None, PAYLOADS[3],
    ]  # fmt: skip


def test_a_record_is_read_where_it_begins(path):
    path.write_bytes(WHOLE)
    assert record_starts(path) == STARTS[:-1]
    assert [read_record_at(path, start) for start in STARTS[:-1]] == PAYLOADS
    assert [read_record_at(path, start) for start in (1, STARTS[-1], len(WHOLE) + 9)] == [None] * 3
    path.write_bytes(gzip.compress(WHOLE))
    assert record_starts(path) is None


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 7))
def test_a_flipped_bit_spoils_its_own_record_only(path, place, bit):
    content = bytearray(WHOLE)
    content[place] ^= 1 << bit
    path.write_bytes(content)
    for number, start in enumerate(STARTS[:-1]):
        assert read_record_at(path, start) == (None if number == record_at(place) else PAYLOADS[number])
    assert record_starts(path) in (None, STARTS[:-1])


def test_an_empty_file_has_no_records(path):
    path.write_bytes(b"")
    assert read(path) == ([], None)


@given(place=st.integers(0, len(WHOLE) - 1), bit=st.integers(0, 7))
@settings(max_examples=300, deadline=None)
def test_a_flipped_bit_is_found_in_its_record(path, place, bit):
    data = bytearray(WHOLE)
    data[place] ^= 1 << bit
    path.write_bytes(data)
    payloads, error = read(path)
    record = record_at(place)
    assert payloads == PAYLOADS[:record]
    assert f"{path}, record {record} (counted from 0, at byte {STARTS[record]})" in error.message
    assert error.hint


@given(size=st.integers(0, len(WHOLE) - 1))
@settings(max_examples=300, deadline=None)
def test_a_cut_is_found_in_its_record(path, size):
    path.write_bytes(WHOLE[:size])
    payloads, error = read(path)
    record = record_at(size)
    assert payloads == PAYLOADS[:record]
    if size in STARTS:  # a whole file: the data set knows how many records there must be
        assert error is None
    else:
        assert f"record {record} (counted from 0, at byte {STARTS[record]})" in error.message
        assert "ends within" in error.message


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_damage_of_a_gzip_file_is_never_passed_over(path, data):
    packed = bytearray(gzip.compress(WHOLE, mtime=0))
    if data.draw(st.booleans(), label="cut"):
        damaged = packed[: data.draw(st.integers(1, len(packed) - 1))]
    else:
        place = data.draw(st.integers(10, len(packed) - 1))  # the gzip header itself holds free bits
        packed[place] ^= 1 << data.draw(st.integers(0, 7))
        damaged = packed
    path.write_bytes(damaged)
    payloads, error = read(path)
    assert payloads == PAYLOADS[: len(payloads)]
    if error is None:  # a few of its bits mean nothing, as the length of a code that no symbol has
        assert payloads == PAYLOADS
        assert gzip.decompress(damaged) == WHOLE
    else:
        assert re.search(r"record \d+ \(counted from 0, at byte \d+", error.message)


def test_what_is_no_record_file(path, tmp_path):
    path.write_bytes(b"PK\x03\x04 something else altogether")
    assert "no TFRecord file" in read(path)[1].message
    with pytest.raises(DataError, match="does not exist"):
        list(read_records(tmp_path / "absent"))
    with pytest.raises(DataError, match="is a folder"):
        list(read_records(tmp_path))


@pytest.mark.parametrize(
    ("pack", "length", "message"),
    [
        (bytes, 1 << 40, "less than 2 GiB"),
        (bytes, (1 << 31) - 1, "ends within the record"),
        (gzip.compress, 1 << 40, "at most 16,777,216 are unpacked"),
        (gzip.compress, (1 << 31) - 1, "at most 16,777,216 are unpacked"),
        (gzip.compress, 1 << 24, "ends within the record"),
    ],
)
def test_an_announced_terabyte_reserves_nothing(path, pack, length, message):
    head = length.to_bytes(8, "little")
    path.write_bytes(pack(head + masked_crc32c(head).to_bytes(4, "little") + b"abc"))
    assert message in read(path)[1].message


def test_a_record_larger_than_a_chunk_comes_back(tmp_path):
    path = tmp_path / "x.tfrecord"
    path.write_bytes(frame_record(bytes(9 << 20)) * 2)
    assert [payload == bytes(9 << 20) for _, payload in read_records(path)] == [True, True]
