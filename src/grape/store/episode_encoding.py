"""From a :class:`~grape.core.trajectories.Trajectory` to the bytes of its file, see :mod:`grape.store.episode_file`."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from grape.core.chunks import Chunks
from grape.core.errors import DataError
from grape.core.trajectories import Trajectory
from grape.store.columns import (
    CAMERA,
    array_checksum,
    blobs_checksum,
    blobs_to_arrow,
    dtype_of,
    is_stored,
    present_rows,
    to_arrow,
)
from grape.store.frames import encode_display, encode_frames
from grape.store.header import CHUNK_TOKENS, HEADER_KEY, TOKENS, Column, Header, check_episode_id, header_to_json

__all__ = ["encode_episode"]

ROWS_PER_GROUP = 64

Array = npt.NDArray[Any]


def encode_episode(trajectory: Trajectory) -> tuple[bytes, Header]:
    """Bytes of the episode's file, and its header.

    Raises:
        DataError: An array has another type or shape than :class:`Trajectory` documents, or a fact is no JSON value.
    """
    check_episode_id(trajectory.meta.episode_id)
    _check_types(trajectory)
    chunks = None if trajectory.chunks is None or trajectory.chunks.is_plain else trajectory.chunks
    arrays = _arrays(trajectory, chunks)
    blobs = {"frame": encode_frames(trajectory.frames)}
    blobs |= {CAMERA + name: encode_frames(images) for name, images in sorted(trajectory.cameras.items())}
    if trajectory.display is not None:
        blobs["display"] = encode_display(trajectory.display)
    columns = {name: Column((len(value),), blobs_checksum(value)) for name, value in blobs.items()}
    columns |= {name: Column(value.shape, array_checksum(value)) for name, value in arrays.items()}
    header = Header(
        meta=trajectory.meta,
        columns=columns,
        frame_shape=_image_shape(trajectory.frames),
        display_shape=None if trajectory.display is None else _image_shape(trajectory.display),
        chunks=chunks,
        camera_shapes={name: _image_shape(images) for name, images in trajectory.cameras.items()},
    )
    text, checksum = header_to_json(header)
    table = pa.table(
        {name: blobs_to_arrow(value, present_rows(header, name)) for name, value in blobs.items()}
        | {
            name: to_arrow(value, present_rows(header, name))
            for name, value in arrays.items()
            if is_stored(value.shape)
        }
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


def _arrays(trajectory: Trajectory, chunks: Chunks | None = None) -> dict[str, Array]:
    """Every column but the images, in the order of the file."""
    if chunks is None:
        sampled = dict(zip(TOKENS, (trajectory.action_tokens, trajectory.token_logps), strict=True))
    else:
        both = zip(CHUNK_TOKENS, (chunks.tokens, chunks.logps), strict=True)
        sampled = {name: value for name, value in both if value is not None}
    return {
        "proprio": trajectory.proprio,
        "action": trajectory.actions,
        "label": trajectory.labels,
        **sampled,
        **{f"keypoint:{name}": trajectory.keypoints[name] for name in sorted(trajectory.keypoints)},
        **{f"signal:{name}": trajectory.signals[name] for name in sorted(trajectory.signals)},
    }


def _check_types(trajectory: Trajectory) -> None:
    """Refuse what would not come back as it was given."""
    wrong = [
        f"{name} is {value.dtype}, not {np.dtype(dtype_of(name))}"
        for name, value in _arrays(trajectory).items()
        if value.dtype != dtype_of(name)
    ]
    if trajectory.proprio.ndim != 2:
        wrong.append(f"proprio has {trajectory.proprio.ndim} axes, not 2")
    for name, images in (("frames", trajectory.frames), ("display", trajectory.display), *trajectory.cameras.items()):
        if images is not None and (images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3):
            wrong.append(f"{name} are {images.dtype} {images.shape}, not uint8 (T+1, H, W, 3)")
    if trajectory.display is not None and 0 in trajectory.display.shape:
        wrong.append(f"display images are empty: {trajectory.display.shape}")
    if wrong:
        raise DataError(f"Episode {trajectory.meta.episode_id} cannot be stored: {'; '.join(wrong)}.")


def _image_shape(images: npt.NDArray[np.uint8]) -> tuple[int, int, int]:
    _, height, width, channels = images.shape
    return height, width, channels
