"""One episode as one Parquet file: the layout, and the way from and to a :class:`Trajectory`.

A file has ``T + 1`` rows, one a state; columns of decisions are null in the last row, which follows the last action.

========================  ==============  ==================================================================
column                    type            content
========================  ==============  ==================================================================
``frame``                 binary          the policy's image, see :mod:`grape.store.frames`
``display``               binary          JPEG for people; only where recorded
``proprio``               list<float>     robot state (P)
``action``, ``label``     list<float>     executed action and what an imitator learns (D); null in the last row
``action_token``          list<int32>     sampled token ids (D), -1 where none; null in the last row
``token_logp``            list<float>     their log-probabilities (D), NaN where none; null in the last row
``keypoint:<name>``       list<float>     meters, world frame (3)
``signal:<name>``         float           a scalar
========================  ==============  ==================================================================

Columns of width 0 are left out. Pages are not compressed again and carry CRCs; a row group holds 64 steps: with 8,
reading a 16-step episode without images takes 0.74 ms instead of 0.40 ms. The Arrow schema is not embedded (it would
double the footer, and with it the time to open a file). Equal episodes give equal bytes with equal pyarrow versions.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from grape.core.errors import CompatibilityError, DataError
from grape.core.reading import open_file
from grape.core.trajectories import Trajectory
from grape.store.frames import decode_display, decode_frames, encode_display, encode_frames
from grape.store.header import (
    HEADER_KEY,
    Column,
    Header,
    check_episode_id,
    digest_of,
    header_from_json,
    header_to_json,
)
from grape.store.source import Decisions

__all__ = ["encode_episode", "read_decisions", "read_episode", "read_header", "read_images"]

ROWS_PER_GROUP = 64

_MOST_BYTES = 4 * 2**30  # of a file

_DECISIONS = {"action": np.float32, "label": np.float32, "action_token": np.int32, "token_logp": np.float32}

_LIST = pa.list_(pa.field("element", pa.float32()))
_TYPES = {
    "frame": pa.binary(),
    "display": pa.binary(),
    "action_token": pa.list_(pa.field("element", pa.int32())),
}
_FIX = "Move the file away and run 'grape collect' again: it records the missing episode anew."

Array = npt.NDArray[Any]


def encode_episode(trajectory: Trajectory) -> tuple[bytes, Header]:
    """Bytes of the episode's file, and its header.

    Raises:
        DataError: An array has another type or shape than :class:`Trajectory` documents, or a fact is no JSON value.
    """
    check_episode_id(trajectory.meta.episode_id)
    _check_types(trajectory)
    arrays = _arrays(trajectory)
    blobs = {"frame": encode_frames(trajectory.frames)}
    if trajectory.display is not None:
        blobs["display"] = encode_display(trajectory.display)
    columns = {name: Column((len(value),), _blobs_checksum(value)) for name, value in blobs.items()}
    columns |= {name: Column(value.shape, _array_checksum(value)) for name, value in arrays.items()}
    header = Header(
        meta=trajectory.meta,
        columns=columns,
        frame_shape=_image_shape(trajectory.frames),
        display_shape=None if trajectory.display is None else _image_shape(trajectory.display),
    )
    text, checksum = header_to_json(header)
    table = pa.table(
        {name: pa.array(value, pa.binary()) for name, value in blobs.items()}
        | {name: _to_arrow(name, value) for name, value in arrays.items() if _is_stored(value.shape)}
    )
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
        store_schema=False,
    ) as writer:
        writer.write_table(table, row_group_size=ROWS_PER_GROUP)
        writer.add_key_value_metadata({HEADER_KEY.decode(): text})
    return sink.getvalue().to_pybytes(), dataclasses.replace(header, checksum=checksum)


def read_header(path: Path) -> Header:
    """Header of an episode file, without its arrays.

    Raises:
        DataError: The file is missing, truncated or no episode.
        CompatibilityError: A newer version of the package wrote it.
    """
    with _opened(path) as (_, header):
        return header


def read_episode(path: Path, *, frames: bool = True, display: bool = False) -> Trajectory:
    """Read an episode file and check what was read against its checksums.

    Args:
        path: The file.
        frames: Whether to read and decode the policy's images; without, ``frames`` is ``(T+1, 0, 0, 3)``.
        display: Whether to read the images for people, where there are any.

    Raises:
        DataError: The file is missing, truncated, altered or no episode.
        CompatibilityError: A newer version of the package wrote it.
    """
    with _opened(path) as (file, header):
        skipped = {name for name, is_read in (("frame", frames), ("display", display)) if not is_read}
        names = [name for name, column in header.columns.items() if name not in skipped and _is_stored(column.shape)]
        table = file.read(columns=names, use_threads=False)
        values = {
            name: _from_arrow(name, table.column(name) if name in names else None, column, table.num_rows)
            for name, column in header.columns.items()
            if name not in skipped
        }
        return _trajectory(header, values)


def read_decisions(path: Path) -> Decisions:
    """The decisions of an episode file, checked against their checksums; no image is read.

    Raises:
        DataError: The file is missing, truncated, altered or no episode.
        CompatibilityError: A newer version of the package wrote it.
    """
    names = ("action_token", "token_logp", "label", "proprio")
    with _opened(path) as (file, header):
        stored = [name for name in names if _is_stored(header.columns[name].shape)]
        table = file.read(columns=stored, use_threads=False)
        tokens, logps, labels, proprio = (
            _from_arrow(name, table.column(name) if name in stored else None, header.columns[name], table.num_rows)
            for name in names
        )
        return Decisions(tokens, logps, labels, header.frame_shape, proprio[: len(labels)])


def read_images(path: Path, decisions: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Images before some decisions, uint8 ``(B, H, W, 3)``; of the others at most the first one is decoded.

    What is read is checked page by page, not against the checksum of the column, which covers all images.

    Args:
        path: The file.
        decisions: Positions in the episode, each in [0, T); any order.

    Raises:
        DataError: The file is missing, truncated, no episode, or altered where it was read.
        CompatibilityError: A newer version of the package wrote it.
    """
    with _opened(path) as (file, header):
        needed = sorted({0, *decisions})  # images are stored as differences to the first one
        stops = np.cumsum([file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)])
        if needed[-1] >= stops[-1]:
            raise DataError(f"It holds {stops[-1]} images.")
        blobs: dict[int, bytes] = {}
        for number in np.unique(np.searchsorted(stops, needed, side="right")).tolist():
            column = file.read_row_group(number, columns=["frame"], use_threads=False).column("frame")
            first = int(stops[number]) - len(column)
            blobs |= {row: column[row - first].as_py() for row in needed if first <= row < stops[number]}
        if None in blobs.values():
            raise DataError("Column 'frame' has empty rows.")
        images = decode_frames([blobs[row] for row in needed], header.frame_shape)
        return images[np.searchsorted(needed, decisions)]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[pq.ParquetFile, Header]]:
    """The Parquet file and its header; whatever goes wrong inside is reported with the file's name."""
    try:
        with open_file(path, max_bytes=_MOST_BYTES, within=path.parent) as opened:
            size = os.fstat(opened.fileno()).st_size
        # Arrow opens the file itself: where a Python file object fails below it, the process aborts.
        with pa.OSFile(str(path)) as handle:
            # The limits keep a damaged footer from announcing terabytes.
            file = pq.ParquetFile(
                handle,
                pre_buffer=False,
                page_checksum_verification=True,
                thrift_string_size_limit=1 << 26,
                thrift_container_size_limit=1 << 20,
            )
            _check_announced(file.metadata, size)
            text = (file.metadata.metadata or {}).get(HEADER_KEY)
            if text is None:
                raise DataError("It is a Parquet file but not an episode.")
            header = header_from_json(text.decode())
            if header.meta.episode_id != path.name.removesuffix(".parquet"):
                raise DataError(f"It holds episode {header.meta.episode_id}.")
            yield file, header
    except CompatibilityError as error:
        raise CompatibilityError(f"Episode file {path} cannot be read. {error.message}", error.hint) from error
    except DataError as error:
        raise DataError(f"Episode file {path} is damaged or foreign. {error.message}", _FIX) from error
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise DataError(f"Episode file {path} is truncated or damaged: {reason.rstrip('.')}.", _FIX) from error


def _check_announced(facts: Any, size: int) -> None:
    """Refuse a footer that announces more rows or bytes than an uncompressed file of ``size`` bytes holds.

    Only what is safe to ask of a damaged footer is asked: pyarrow aborts on some damaged facts of single columns.

    Raises:
        DataError: It announces too much.
    """
    groups = [facts.row_group(number) for number in range(facts.num_row_groups)]
    rows, announced = sum(group.num_rows for group in groups), sum(group.total_byte_size for group in groups)
    if not (0 <= facts.num_rows == rows <= size and 0 <= announced <= size):
        raise DataError(f"It announces {rows:,} rows and {announced:,} bytes; the file has {size:,}.")


def _arrays(trajectory: Trajectory) -> dict[str, Array]:
    """Every column but the images, in the order of the file."""
    return {
        "proprio": trajectory.proprio,
        "action": trajectory.actions,
        "label": trajectory.labels,
        "action_token": trajectory.action_tokens,
        "token_logp": trajectory.token_logps,
        **{f"keypoint:{name}": trajectory.keypoints[name] for name in sorted(trajectory.keypoints)},
        **{f"signal:{name}": trajectory.signals[name] for name in sorted(trajectory.signals)},
    }


def _trajectory(header: Header, values: Mapping[str, Any]) -> Trajectory:
    rows = header.meta.steps + 1
    if "frame" in values:
        frames = decode_frames(values["frame"], header.frame_shape)
    else:
        frames = np.zeros((rows, 0, 0, 3), dtype=np.uint8)
    display = None
    if "display" in values and header.display_shape is not None:
        display = decode_display(values["display"], header.display_shape)
    return Trajectory(
        meta=header.meta,
        frames=frames,
        proprio=values["proprio"],
        actions=values["action"],
        labels=values["label"],
        action_tokens=values["action_token"],
        token_logps=values["token_logp"],
        keypoints=_named(values, "keypoint:"),
        signals=_named(values, "signal:"),
        display=display,
    )


def _named(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _is_stored(shape: tuple[int, ...]) -> bool:
    """Whether a column of this shape stands in the file: Parquet knows no lists of width 0."""
    return len(shape) == 1 or shape[1] > 0


def _to_arrow(name: str, value: Array) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(value).reshape(-1))
    if value.ndim == 1:
        return flat
    rows, width = value.shape
    offsets = np.arange(rows + 1, dtype=np.int32) * width
    if name not in _DECISIONS:
        return pa.ListArray.from_arrays(pa.array(offsets), flat)
    null_last = np.append(np.zeros(rows, dtype=bool), True)
    return pa.ListArray.from_arrays(pa.array(np.append(offsets, offsets[-1])), flat, mask=pa.array(null_last))


def _from_arrow(name: str, column: pa.ChunkedArray | None, expected: Column, rows: int) -> Any:
    """Array (or list of blobs) of a column, checked against its checksum."""
    dtype = _DECISIONS.get(name, np.float32)
    if column is None:
        return np.zeros(expected.shape, dtype=dtype)
    if column.type != _TYPES.get(name, _LIST if len(expected.shape) > 1 else pa.float32()):
        raise DataError(f"Column '{name}' is of type {column.type}.")
    if name in ("frame", "display"):
        blobs = column.to_pylist()
        if None in blobs or (len(blobs),) != expected.shape or _blobs_checksum(blobs) != expected.checksum:
            raise DataError(f"Column '{name}' does not fit its checksum.")
        return blobs
    if column.null_count != (name in _DECISIONS) or rows != expected.shape[0] + (name in _DECISIONS):
        raise DataError(f"Column '{name}' has {rows} rows of which {column.null_count} are empty.")
    chunk = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    flat = chunk if len(expected.shape) == 1 else chunk.values  # an empty list has no values
    value = flat.to_numpy(zero_copy_only=False).reshape(expected.shape).copy()  # Arrow's own memory is read-only
    if _array_checksum(value) != expected.checksum:
        raise DataError(f"Column '{name}' does not fit its checksum.")
    return value


def _array_checksum(value: Array) -> str:
    return digest_of(np.ascontiguousarray(value).tobytes())


def _blobs_checksum(blobs: Sequence[bytes]) -> str:
    return digest_of(np.array([len(blob) for blob in blobs], dtype="<u8").tobytes(), b"".join(blobs))


def _image_shape(images: npt.NDArray[np.uint8]) -> tuple[int, int, int]:
    _, height, width, channels = images.shape
    return height, width, channels


def _check_types(trajectory: Trajectory) -> None:
    """Refuse what would not come back as it was given."""
    wrong = [
        f"{name} is {value.dtype}, not {np.dtype(_DECISIONS.get(name, np.float32))}"
        for name, value in _arrays(trajectory).items()
        if value.dtype != _DECISIONS.get(name, np.float32)
    ]
    if trajectory.proprio.ndim != 2:
        wrong.append(f"proprio has {trajectory.proprio.ndim} axes, not 2")
    for name, images in (("frames", trajectory.frames), ("display", trajectory.display)):
        if images is not None and (images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3):
            wrong.append(f"{name} are {images.dtype} {images.shape}, not uint8 (T+1, H, W, 3)")
    if trajectory.display is not None and 0 in trajectory.display.shape:
        wrong.append(f"display images are empty: {trajectory.display.shape}")
    if wrong:
        raise DataError(f"Episode {trajectory.meta.episode_id} cannot be stored: {'; '.join(wrong)}.")
