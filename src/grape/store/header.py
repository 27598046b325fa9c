"""The JSON header of an episode file: facts of the episode, columns with checksums, format version.

It stands in the Parquet file's key-value metadata under :data:`HEADER_KEY`, as
``{"checksum": blake2b of the canonical header, "header": {...}}``, so that a flipped bit in the facts is noticed, too.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grape.core.errors import CompatibilityError, DataError
from grape.core.reading import decode, parse_json, record
from grape.core.trajectories import EpisodeMeta

__all__ = [
    "FORMAT_VERSION",
    "HEADER_KEY",
    "Column",
    "Header",
    "check_episode_id",
    "digest_of",
    "header_from_json",
    "header_to_json",
    "is_episode_id",
    "meta_from_dict",
    "meta_to_dict",
]

FORMAT = "grape-episode"
FORMAT_VERSION = 1
"""Version of the layout of episode files; readers refuse newer ones."""

HEADER_KEY = b"grape.episode"
"""Key of the header in the Parquet file's metadata."""

_MOST_CHARACTERS = 2**24  # of the header
_MOST_ROWS = 2**24
_LARGEST_SIDE = 16_384  # of an image, pixels
_COLUMNS = {"frame", "proprio", "action", "label", "action_token", "token_logp"}  # of every episode
_EPISODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+@,-]{0,179}")


@dataclass(frozen=True)
class Column:
    """What a column must hold.

    Attributes:
        shape: Shape of the array; for blobs ``(N,)``.
        checksum: Digest of the array's bytes, or of the blobs and their lengths.
    """

    shape: tuple[int, ...]
    checksum: str


@dataclass(frozen=True)
class Header:
    """Everything of an episode file but the arrays.

    Attributes:
        meta: Facts of the episode.
        columns: By column name.
        frame_shape: ``(H, W, 3)`` of the lossless images.
        display_shape: ``(H2, W2, 3)``, or None where nothing was recorded for people.
        checksum: Digest of all of the above: equal for equal episodes.
    """

    meta: EpisodeMeta
    columns: Mapping[str, Column]
    frame_shape: tuple[int, int, int]
    display_shape: tuple[int, int, int] | None
    checksum: str = ""


@record
@dataclass(frozen=True)
class _Stored:
    """The header as it stands in the file."""

    format: str
    format_version: int
    meta: EpisodeMeta
    columns: Mapping[str, tuple[tuple[int, ...], str]]
    frame_shape: tuple[int, int, int]
    display_shape: tuple[int, int, int] | None


def digest_of(*parts: bytes | memoryview) -> str:
    """Short BLAKE2 digest of the parts, as 32 hexadecimal digits."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(part)
    return state.hexdigest()


def is_episode_id(name: str) -> bool:
    """Whether ``name`` can be an episode's id, and so a file name everywhere."""
    return _EPISODE_ID.fullmatch(name) is not None


def check_episode_id(episode_id: str) -> None:
    """Refuse ids that are no safe file names.

    Raises:
        DataError: The id is empty, too long, or holds anything but letters, digits and ``._=+@,-``.
    """
    if not is_episode_id(episode_id):
        raise DataError(
            f"Episode id {episode_id!r} cannot be a file name.",
            "Use up to 180 letters, digits and ._=+@,- and begin with a letter or digit.",
        )


def meta_to_dict(meta: EpisodeMeta) -> dict[str, Any]:
    """JSON value of the facts of an episode."""
    return {item.name: getattr(meta, item.name) for item in dataclasses.fields(meta)}


def meta_from_dict(data: Any) -> EpisodeMeta:
    """Facts of an episode from their JSON value.

    Raises:
        DataError: A field is missing, unknown or of the wrong type.
    """
    return decode(EpisodeMeta, data, "The facts of the episode")


def header_to_json(header: Header) -> tuple[str, str]:
    """Text of a header for the file, and its checksum.

    Raises:
        DataError: The facts hold something that JSON does not know, or that no reader would take again.
    """
    value = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "meta": meta_to_dict(header.meta),
        "columns": {name: [list(column.shape), column.checksum] for name, column in header.columns.items()},
        "frame_shape": list(header.frame_shape),
        "display_shape": None if header.display_shape is None else list(header.display_shape),
    }
    try:
        canonical = _canonical(value)
        if parse_json(canonical, f"What episode {header.meta.episode_id} holds")["meta"] != value["meta"]:
            raise ValueError("tuples and keys that are no strings do not survive")
    except (TypeError, ValueError) as error:
        raise DataError(
            f"The facts of episode {header.meta.episode_id} cannot be written as JSON: {error}.",
            "Use str, int, float, bool, None, lists and dicts with str keys; no numpy values, no NaN.",
        ) from error
    meta_from_dict(value["meta"])
    checksum = digest_of(canonical.encode())
    return f'{{"checksum": "{checksum}", "header": {canonical}}}', checksum


def header_from_json(text: str) -> Header:
    """Header from its text in the file.

    Raises:
        CompatibilityError: The file was written by a newer version of the package.
        DataError: The text is no header or its checksum does not fit.
    """
    try:
        if len(text) > _MOST_CHARACTERS:
            raise DataError(f"The header has {len(text):,} characters; at most {_MOST_CHARACTERS:,} are read.")
        outer = parse_json(text, "The header")
        value, checksum = outer["header"], outer["checksum"]
        if value["format"] != FORMAT:
            raise DataError("The header is of another format.")
        if digest_of(_canonical(value).encode()) != checksum:
            raise DataError("The header's checksum does not fit.")
        if value["format_version"] > FORMAT_VERSION:
            raise CompatibilityError(
                f"Format version {value['format_version']} is newer than {FORMAT_VERSION}, the newest known here.",
                "Update the package: pip install --upgrade grape-vla",
            )
        stored = decode(_Stored, value, "The header")
        if missing := _COLUMNS - stored.columns.keys():
            raise ValueError(f"no column {', '.join(sorted(missing))}")
        return Header(
            meta=stored.meta,
            columns={name: _column(name, *entry) for name, entry in stored.columns.items()},
            frame_shape=_image_shape(stored.frame_shape),
            display_shape=None if stored.display_shape is None else _image_shape(stored.display_shape),
            checksum=checksum,
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"The header is damaged ({type(error).__name__}: {error}).") from error


def _column(name: str, shape: tuple[int, ...], checksum: str) -> Column:
    if len(shape) not in (1, 2) or not all(0 <= size <= _MOST_ROWS for size in shape):
        raise ValueError(f"column {name!r} has the shape {shape!r:.60}")
    return Column(shape, checksum)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _image_shape(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    if shape[2] != 3 or not all(0 <= side <= _LARGEST_SIDE for side in shape[:2]):
        raise ValueError(f"{shape} is no shape of an RGB image")
    return shape
