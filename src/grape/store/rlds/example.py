"""``tf.train.Example``: named lists of bytes, floats or integers, as protocol-buffer bytes.

The message has three levels (example → features → feature), of which only these fields exist::

    Example  { Features features = 1 }
    Features { map<string, Feature> feature = 1 }
    Feature  { oneof: BytesList bytes_list = 1; FloatList float_list = 2; Int64List int64_list = 3 }
    *List    { repeated value = 1 }       floats and integers packed, or one by one as old writers did

So the wire format (tag, varint, length) is read and written here in a few lines, without the protobuf package.
Keys are written in sorted order: equal values give equal bytes.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError

__all__ = ["Value", "decode_example", "encode_example"]

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Value = list[bytes] | Floats | Integers
"""One feature: bytes strings, float32 ``(N,)`` or int64 ``(N,)``. An empty list of unknown kind is ``[]``."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT = 10
# Bounds of what a record may make of its bytes: an episode of a million steps is beyond any recording.
_MOST_FIELDS = 4_000_000
_MOST_FEATURES = 10_000
_MOST_ITEMS = 1_000_000
_MOST_NUMBERS = 64 << 20
_CHUNK = 1 << 20


def encode_example(features: Mapping[str, Sequence[bytes] | npt.NDArray[np.generic]]) -> bytes:
    """Bytes of an example.

    Args:
        features: Bytes strings, or numbers: floating arrays become float32, integer and boolean ones int64.
    """
    entries = []
    for key in sorted(features):
        name = key.encode()
        feature = _encode_feature(features[key])
        entry = b"".join((b"\x0a", _varint(len(name)), name, b"\x12", _varint(len(feature)), feature))
        entries += [b"\x0a", _varint(len(entry)), entry]
    body = b"".join(entries)
    return b"".join((b"\x0a", _varint(len(body)), body))


def decode_example(data: bytes | bytearray) -> dict[str, Value]:
    """Features of an example by key.

    Raises:
        DataError: The bytes are no such message.
    """
    view = memoryview(data)
    features: dict[str, Value] = {}
    for field, wire, message in _fields(view):
        if field != 1 or wire != _LENGTH:
            continue  # unknown fields are passed over, as protocol buffers demand
        for inner, inner_wire, entry in _fields(message):
            if inner == 1 and inner_wire == _LENGTH:
                key, value = _decode_entry(entry)
                features[key] = value
                if len(features) > _MOST_FEATURES:
                    raise DataError(f"A record has more than {_MOST_FEATURES:,} features.")
    return features


def _encode_feature(value: Sequence[bytes] | npt.NDArray[np.generic]) -> bytes:
    if isinstance(value, np.ndarray):
        flat = value.reshape(-1)
        if np.issubdtype(flat.dtype, np.floating):
            packed, kind = flat.astype("<f4").tobytes(), b"\x12"
        else:
            packed, kind = _pack_varints(flat.astype(np.int64)), b"\x1a"
        body = b"".join((b"\x0a", _varint(len(packed)), packed)) if packed else b""
    else:
        kind = b"\x0a"
        body = b"".join([part for item in value for part in (b"\x0a", _varint(len(item)), item)])
    return b"".join((kind, _varint(len(body)), body))


def _decode_entry(entry: memoryview) -> tuple[str, Value]:
    key, value = "", memoryview(b"")
    for field, wire, content in _fields(entry):
        if wire == _LENGTH and field == 1:
            try:
                key = bytes(content).decode()
            except UnicodeDecodeError as error:
                raise DataError("The name of a feature is no UTF-8.") from error
        elif wire == _LENGTH and field == 2:
            value = content
    for kind, wire, content in _fields(value):
        if wire != _LENGTH:
            continue
        if kind == 1:
            return key, _decode_bytes(content)
        if kind == 2:
            return key, _decode_floats(content)
        if kind == 3:
            return key, _decode_integers(content)
    return key, []


def _decode_bytes(content: memoryview) -> list[bytes]:
    items = []
    for field, wire, item in _fields(content):
        if (field, wire) == (1, _LENGTH):
            items.append(bytes(item))
            if len(items) > _MOST_ITEMS:
                raise DataError(f"A list has more than {_MOST_ITEMS:,} items.")
    return items


def _decode_floats(content: memoryview) -> Floats:
    packed = bytearray()
    for field, wire, item in _fields(content):
        if field == 1 and wire in (_LENGTH, _FIXED32):
            if len(item) % 4:
                raise DataError(f"A list of floats has {len(item)} bytes, which is no multiple of 4.")
            packed += item
    return np.frombuffer(packed, dtype="<f4").astype(np.float32, copy=False)


def _decode_integers(content: memoryview) -> Integers:
    packed = bytearray()
    for field, wire, item in _fields(content):
        if field == 1 and wire in (_LENGTH, _VARINT) and len(item):
            if item[-1] >= 0x80:
                raise DataError("The last number of a list of integers does not end.")
            packed += item
    if len(packed) > _MOST_NUMBERS:
        raise DataError(f"A list of integers has {len(packed):,} bytes; at most {_MOST_NUMBERS:,} are read.")
    numbers = np.empty(int(np.count_nonzero(np.frombuffer(packed, dtype=np.int8) >= 0)), dtype=np.int64)
    place = begin = 0
    while begin < len(packed):
        end = min(begin + _CHUNK, len(packed))
        while packed[end - 1] >= 0x80:
            end += 1
        part = _unpack_varints(memoryview(packed)[begin:end])
        numbers[place : place + len(part)] = part
        place, begin = place + len(part), end
    return numbers


def _fields(view: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Field number, wire type and content of every field of a message; a varint's content are its own bytes."""
    place, size, count = 0, len(view), 0
    while place < size:
        count += 1
        if count > _MOST_FIELDS:
            raise DataError(f"A message has more than {_MOST_FIELDS:,} fields.")
        tag, place = _read_varint(view, place)
        field, wire = tag >> 3, tag & 7
        start = place
        if wire == _LENGTH:
            length, start = _read_varint(view, place)
            place = start + length
        elif wire == _VARINT:
            _, place = _read_varint(view, place)
        elif wire in (_FIXED32, _FIXED64):
            place += 4 if wire == _FIXED32 else 8
        else:
            raise DataError(f"A field of unknown wire type {wire} stands at byte {start} of a message.")
        if place > size:
            raise DataError(f"A field at byte {start} of a message is longer than the message.")
        yield field, wire, view[start:place]


def _read_varint(view: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    for index in range(place, min(place + _MAX_VARINT, len(view))):
        byte = view[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, index + 1
        shift += 7
    raise DataError(f"A number at byte {place} of a message does not end.")


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _pack_varints(values: Integers) -> bytes:
    if not values.size or (values.min() >= 0 and values.max() < 0x80):
        return values.astype(np.uint8).tobytes()  # flags and small counts: one byte each
    return b"".join(_varint(int(value) & 0xFFFFFFFFFFFFFFFF) for value in values)


def _unpack_varints(packed: memoryview) -> Integers:
    data = np.frombuffer(packed, dtype=np.uint8)
    if not (data & 0x80).any():
        return data.astype(np.int64)
    ends = np.flatnonzero(data < 0x80)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MAX_VARINT:
        raise DataError("A number in a list of integers has more than ten bytes.")
    shifts = 7 * (np.arange(data.size) - np.repeat(starts, lengths)).astype(np.uint64)
    parts = (data & 0x7F).astype(np.uint64) << shifts
    return np.add.reduceat(parts, starts).astype(np.int64)
