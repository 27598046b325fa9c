"""One episode as one Parquet file: the layout, and the way from there to a :class:`Trajectory`.

:mod:`grape.store.episode_encoding` writes it.

A file has ``T + 1`` rows, one a state; columns of control steps are null in the last one, which follows the last
action.
Images stand where the policy looked: before its decisions and after the last action. With one action a decision that is
every row.

===========================  ==============  ===============================================================
column                       type            content
===========================  ==============  ===============================================================
``frame``                    binary          the policy's image, see :mod:`grape.store.frames`
``frame:<camera>``           binary          the same of a further camera
``display``                  binary          JPEG for people; only where recorded
``proprio``                  list<float>     robot state (P)
``action``, ``label``        list<float>     executed action and what an imitator learns (D), a control step
``action_token``             list<int32>     sampled token ids (D), -1 where none, a control step
``token_logp``               list<float>     their log-probabilities (D), NaN where none, a control step
``chunk_token``              list<int32>     with chunks, instead: sampled token ids (K*D), a decision
``chunk_logp``               list<float>     their log-probabilities (K*D), a decision
``keypoint:<name>``          list<float>     meters, world frame (3)
``signal:<name>``            float           a scalar
===========================  ==============  ===============================================================

The header says how many actions each decision executed, and so in which rows decisions begin. A policy without tokens
has none of the four columns of what was sampled.

Columns of width 0 are left out. Pages are not compressed again and carry CRCs; a row group holds 64 steps: with 8,
reading a 16-step episode without images takes 0.74 ms instead of 0.40 ms. The Arrow schema is not embedded (it would
double the footer, and with it the time to open a file). Equal episodes give equal bytes with equal pyarrow versions.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from grape.core.chunks import Chunks
from grape.core.errors import CompatibilityError, DataError
from grape.core.trajectories import Trajectory
from grape.store.columns import CAMERA, from_arrow, is_stored
from grape.store.frames import decode_display, decode_frames
from grape.store.header import HEADER_KEY, Header, header_from_json, sampled_columns
from grape.store.opening import open_parquet
from grape.store.packs import PACK_FIX, EpisodePlace, PackedFile, episode_name, open_place
from grape.store.source import Decisions

__all__ = [
    "check_columns",
    "parse_header",
    "read_decisions",
    "read_display",
    "read_episode",
    "read_header",
    "read_images",
]

_MOST_BYTES = 4 * 2**30  # of a file

_FIX = "Move the file away and run 'grape collect' again: it records the missing episode anew."

Array = npt.NDArray[Any]


def read_header(place: EpisodePlace) -> Header:
    """Header of an episode file, without its arrays.

    Raises:
        DataError: The file is missing, truncated or no episode.
        CompatibilityError: A newer version of the package wrote it.
    """
    with _opened(place) as (_, header):
        return header


def parse_header(data: bytes, name: str) -> Header:
    """Header of the bytes of an episode file, as another process sent them.

    Args:
        data: The bytes.
        name: What they are called in messages.

    Raises:
        DataError: They are truncated or no episode.
        CompatibilityError: A newer version of the package wrote them.
    """
    with _named_errors(name), pa.BufferReader(data) as handle:
        return _parquet(handle, len(data))[1]


def check_columns(data: bytes, name: str) -> None:
    """Check every column of the bytes of an episode file against its checksum; no image is decoded.

    Raises:
        DataError: They are truncated, altered or no episode.
    """
    with _named_errors(name), pa.BufferReader(data) as handle:
        file, header = _parquet(handle, len(data))
        _read_columns(file, header, list(header.columns))


def read_episode(place: EpisodePlace, *, frames: bool = True, display: bool = False) -> Trajectory:
    """Read an episode file and check what was read against its checksums.

    Args:
        place: The file, or its place in a pack.
        frames: Whether to read and decode the policy's images; without, ``frames`` is ``(T+1, 0, 0, 3)``.
        display: Whether to read the images for people, where there are any.

    Raises:
        DataError: The file is missing, truncated, altered or no episode.
        CompatibilityError: A newer version of the package wrote it.
    """
    with _opened(place) as (file, header):
        images = {"frame", *(CAMERA + name for name in header.camera_shapes)}
        skipped = (set() if frames else images) | (set() if display else {"display"})
        return _trajectory(
            header, _read_columns(file, header, [name for name in header.columns if name not in skipped])
        )


def read_decisions(place: EpisodePlace) -> Decisions:
    """The decisions of an episode file, checked against their checksums; no image is read.

    Raises:
        DataError: The file is missing, truncated, altered or no episode.
        CompatibilityError: A newer version of the package wrote it.
    """
    with _opened(place) as (file, header):
        values = _read_columns(file, header, [*sampled_columns(header), "label", "proprio"])
        tokens, logps, chunks = _sampled(header, values, values["label"].shape[1])
        labels = values["label"]
        states = values["proprio"][: len(labels)]
        return Decisions(tokens, logps, labels, header.frame_shape, states, chunks, header.camera_shapes)


def read_display(place: EpisodePlace) -> tuple[bytes, ...]:
    """The images for people of an episode file as they are stored, one JPEG each; none where none were recorded.

    Raises:
        DataError: The file is missing, truncated, altered or no episode.
        CompatibilityError: A newer version of the package wrote it.
    """
    with _opened(place) as (file, header):
        return tuple(_read_columns(file, header, ["display"])["display"]) if "display" in header.columns else ()


def read_images(place: EpisodePlace, decisions: Sequence[int], camera: str = "") -> npt.NDArray[np.uint8]:
    """Images before some decisions, uint8 ``(B, H, W, 3)``; of the others at most the first one is decoded.

    What is read is checked page by page, not against the checksum of the column, which covers all images.

    Args:
        place: The file, or its place in a pack.
        decisions: Positions on the decision axis, each in [0, N); any order.
        camera: Name of a further camera; empty for the main one.

    Raises:
        DataError: The file is missing, truncated, no episode, or altered where it was read.
        CompatibilityError: A newer version of the package wrote it.
    """
    with _opened(place) as (file, header):
        if camera and camera not in header.camera_shapes:
            raise DataError(f"It has no images of a camera {camera!r}.")
        name, shape = (CAMERA + camera, header.camera_shapes[camera]) if camera else ("frame", header.frame_shape)
        rows = np.asarray(decisions, dtype=np.int64)
        if header.chunks is not None:
            if not ((rows >= 0) & (rows < len(header.chunks))).all():
                raise DataError(f"It holds {len(header.chunks)} decisions.")
            rows = header.chunks.starts[rows]
        needed = sorted({0, *rows.tolist()})  # images are stored as differences to the first one
        stops = np.cumsum([file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)])
        if needed[-1] >= stops[-1]:
            raise DataError(f"It holds {stops[-1]} images.")
        blobs: dict[int, bytes] = {}
        for number in np.unique(np.searchsorted(stops, needed, side="right")).tolist():
            column = file.read_row_group(number, columns=[name], use_threads=False).column(name)
            first = int(stops[number]) - len(column)
            blobs |= {row: column[row - first].as_py() for row in needed if first <= row < stops[number]}
        if None in blobs.values():
            raise DataError(f"Column '{name}' has empty rows.")
        images = decode_frames([blobs[row] for row in needed], shape)
        return images[np.searchsorted(needed, rows)]


@contextlib.contextmanager
def _opened(place: EpisodePlace) -> Iterator[tuple[pq.ParquetFile, Header]]:
    """The Parquet file and its header; whatever goes wrong inside is reported with the file's name."""
    with _named_errors(place), open_place(place, _MOST_BYTES) as (handle, size):
        file, header = _parquet(handle, size)
        if header.meta.episode_id != episode_name(place):
            raise DataError(f"It holds episode {header.meta.episode_id}.")
        yield file, header


@contextlib.contextmanager
def _named_errors(name: EpisodePlace | str) -> Iterator[None]:
    """Report whatever goes wrong inside with the file's name."""
    fix = PACK_FIX if isinstance(name, PackedFile) else _FIX
    try:
        yield
    except CompatibilityError as error:
        raise CompatibilityError(f"Episode file {name} cannot be read. {error.message}", error.hint) from error
    except DataError as error:
        raise DataError(f"Episode file {name} is damaged or foreign. {error.message}", fix) from error
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise DataError(f"Episode file {name} is truncated or damaged: {reason.rstrip('.')}.", fix) from error


def _parquet(handle: pa.NativeFile, size: int) -> tuple[pq.ParquetFile, Header]:
    """The Parquet file of ``size`` bytes behind ``handle``, and its header."""
    file = open_parquet(handle)
    _check_announced(file.metadata, size)
    text = (file.metadata.metadata or {}).get(HEADER_KEY)
    if text is None:
        raise DataError("It is a Parquet file but not an episode.")
    return file, header_from_json(text.decode())


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


def _trajectory(header: Header, values: Mapping[str, Any]) -> Trajectory:
    tokens, logps, chunks = _sampled(header, values, values["action"].shape[1])
    none = np.zeros((1 + (header.meta.steps if chunks is None else len(chunks)), 0, 0, 3), dtype=np.uint8)

    def images(name: str, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
        return decode_frames(values[name], shape) if name in values else none

    display = None
    if "display" in values and header.display_shape is not None:
        display = decode_display(values["display"], header.display_shape)
    return Trajectory(
        meta=header.meta,
        frames=images("frame", header.frame_shape),
        proprio=values["proprio"],
        actions=values["action"],
        labels=values["label"],
        action_tokens=tokens,
        token_logps=logps,
        keypoints=_named(values, "keypoint:"),
        signals=_named(values, "signal:"),
        display=display,
        chunks=chunks,
        cameras={name: images(CAMERA + name, shape) for name, shape in header.camera_shapes.items()},
    )


def _sampled(header: Header, values: Mapping[str, Any], dim: int) -> tuple[Array, Array, Chunks | None]:
    """Tokens and log-probabilities of the executed actions, ``(T, D)``, and the decisions where they say more."""
    sampled = [values[name] for name in sampled_columns(header)]
    if header.chunks is None:
        return sampled[0], sampled[1], None
    chunks = dataclasses.replace(header.chunks, **dict(zip(("tokens", "logps"), sampled, strict=False)))
    if problems := chunks.problems(header.meta.steps, dim):
        raise DataError(f"Its decisions are inconsistent: {'; '.join(problems)}.")
    return *chunks.executed_tokens(dim), chunks


def _read_columns(file: pq.ParquetFile, header: Header, names: Sequence[str]) -> dict[str, Any]:
    """Columns of the file by name, each checked against the header."""
    stored = [name for name in names if is_stored(header.columns[name].shape)]
    table = file.read(columns=stored, use_threads=False)
    if stored and table.num_rows != header.meta.steps + 1:
        raise DataError(f"It has {table.num_rows} rows; its header says {header.meta.steps} control steps.")
    return {
        name: from_arrow(name, table.column(name) if name in stored else None, header.columns[name], header)
        for name in names
    }


def _named(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
