"""The JSON header of an episode file: facts of the episode, columns with checksums, format version.

It stands in the Parquet file's key-value metadata under :data:`HEADER_KEY`, as
``{"checksum": blake2b of the canonical header, "header": {...}}``, so that a flipped bit in the facts is noticed, too.

Version 2 is written where an episode says more than version 1 can: decisions on several actions, log-probabilities of
another support or temperature, several cameras. All others keep version 1, byte by byte.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from grape.core.chunks import Chunks
from grape.core.errors import CompatibilityError, DataError
from grape.core.reading import decode, parse_json, record
from grape.core.trajectories import EpisodeMeta

__all__ = [
    "CHUNK_TOKENS",
    "FORMAT_VERSION",
    "HEADER_KEY",
    "TOKENS",
    "Column",
    "Header",
    "check_episode_id",
    "digest_of",
    "header_from_json",
    "header_to_json",
    "is_episode_id",
    "meta_from_dict",
    "meta_to_dict",
    "sampled_columns",
]

FORMAT = "grape-episode"
FORMAT_VERSION = 2
"""Newest version of the layout of episode files; readers refuse newer ones."""

HEADER_KEY = b"grape.episode"
"""Key of the header in the Parquet file's metadata."""

_MOST_CHARACTERS = 2**24  # of the header
_MOST_ROWS = 2**24
_LARGEST_SIDE = 16_384  # of an image, pixels
_COLUMNS = {"frame", "proprio", "action", "label"}  # of every episode
TOKENS, CHUNK_TOKENS = ("action_token", "token_logp"), ("chunk_token", "chunk_logp")
"""Columns of what was sampled: with one action a decision, and with chunks."""
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
        chunks: The decisions without what was sampled; None where each control step is one.
        camera_shapes: ``(H, W, 3)`` of the images of each further camera.
        checksum: Digest of all of the above: equal for equal episodes.
    """

    meta: EpisodeMeta
    columns: Mapping[str, Column]
    frame_shape: tuple[int, int, int]
    display_shape: tuple[int, int, int] | None
    chunks: Chunks | None = None
    camera_shapes: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    checksum: str = ""

    @property
    def version(self) -> int:
        """Oldest version of the layout that says all of it."""
        return 1 if self.chunks is None and not self.camera_shapes else 2


@record
@dataclass(frozen=True)
class _StoredChunks:
    """The decisions as they stand in the file."""

    executed: tuple[int, ...]
    length: int
    support: str
    temperature: float


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
    chunks: _StoredChunks | None = None
    camera_shapes: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)


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
        "format_version": header.version,
        "meta": meta_to_dict(header.meta),
        "columns": {name: [list(column.shape), column.checksum] for name, column in header.columns.items()},
        "frame_shape": list(header.frame_shape),
        "display_shape": None if header.display_shape is None else list(header.display_shape),
    }
    if header.version > 1:
        value["camera_shapes"] = {name: list(shape) for name, shape in header.camera_shapes.items()}
    if header.chunks is not None:
        value["chunks"] = {
            "executed": header.chunks.executed.tolist(),
            "length": header.chunks.length,
            "support": header.chunks.support,
            "temperature": header.chunks.temperature,
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
                "Install a newer release of GRAPE.",
            )
        stored = decode(_Stored, value, "The header")
        chunks = None if stored.chunks is None else _chunks(stored.chunks, stored.meta.steps)
        header = Header(
            meta=stored.meta,
            columns={name: _column(name, *entry) for name, entry in stored.columns.items()},
            frame_shape=_image_shape(stored.frame_shape),
            display_shape=None if stored.display_shape is None else _image_shape(stored.display_shape),
            chunks=chunks,
            camera_shapes={name: _image_shape(shape) for name, shape in stored.camera_shapes.items()},
            checksum=checksum,
        )
        if header.version > stored.format_version:
            raise ValueError("version 1 has neither chunks nor several cameras")
        if missing := _required(header) - header.columns.keys():
            raise ValueError(f"no column {', '.join(sorted(missing))}")
        if unexplained := {*TOKENS, *CHUNK_TOKENS} & header.columns.keys() - _required(header):
            raise ValueError(f"column {', '.join(sorted(unexplained))} beside what its decisions say")
        return header
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"The header is damaged ({type(error).__name__}: {error}).") from error


def sampled_columns(header: Header) -> tuple[str, ...]:
    """Names of the columns of tokens and log-probabilities; none for a policy without tokens."""
    if header.chunks is None:
        return TOKENS
    return CHUNK_TOKENS if header.chunks.support else ()


def _required(header: Header) -> set[str]:
    return {*_COLUMNS, *sampled_columns(header), *(f"frame:{name}" for name in header.camera_shapes)}


def _chunks(stored: _StoredChunks, steps: int) -> Chunks:
    if not all(1 <= count <= stored.length <= _MOST_ROWS for count in stored.executed):
        raise ValueError(f"a decision executed less than 1 or more than {stored.length} actions")
    executed = np.array(stored.executed, dtype=np.int32)
    if problems := Chunks(executed, stored.length).problems(steps, 0):
        raise ValueError("; ".join(problems))
    return Chunks(executed, stored.length, support=stored.support, temperature=stored.temperature)


def _column(name: str, shape: tuple[int, ...], checksum: str) -> Column:
    if len(shape) not in (1, 3 if name in CHUNK_TOKENS else 2) or not all(0 <= size <= _MOST_ROWS for size in shape):
        raise ValueError(f"column {name!r} has the shape {shape!r:.60}")
    return Column(shape, checksum)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _image_shape(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    if shape[2] != 3 or not all(0 <= side <= _LARGEST_SIDE for side in shape[:2]):
        raise ValueError(f"{shape} is no shape of an RGB image")
    return shape
