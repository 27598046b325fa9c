"""Hostile episode files: sound Parquet whose header or columns were changed and whose checksums fit again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from grape.store.header import HEADER_KEY, digest_of
from tests.hostile.documents import ESCAPES, changes
from tests.hostile.hostile_files import replace
from tests.hostile.recordings import parquet

Header = dict[str, Any]


def _write(path: Path, table: pa.Table, header: Header) -> None:
    text = json.dumps(header, sort_keys=True, separators=(",", ":"))
    outer = json.dumps({"checksum": digest_of(text.encode()), "header": header})
    replace(path, parquet(table.replace_schema_metadata({HEADER_KEY: outer}), compression="zstd"))


def _read(path: Path) -> tuple[pa.Table, Header]:
    table = pq.read_table(path)
    return table, json.loads(table.schema.metadata[HEADER_KEY])["header"]


def _edit(change: Callable[[Header], None]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        table, header = _read(path)
        change(header)
        _write(path, table, header)

    return spoil


def changed_header(count: int, seed: int = 0) -> dict[str, Callable[[Path], str]]:
    """The header with one value exchanged."""

    def make(number: int) -> Callable[[Path], str]:
        def spoil(path: Path) -> str:
            table, header = _read(path)
            *_, (what, changed) = changes(header, number + 1, seed)
            _write(path, table, changed)
            return what

        return spoil

    return {f"header change {number}": make(number) for number in range(count)}


def _fact(name: str, value: Any) -> Callable[[Path], None]:
    return _edit(lambda header: header["meta"].update({name: value}))


def _floats(name: str, value: float) -> Callable[[Path], None]:
    """A column of lists of float32 with one number throughout, and its checksum."""

    def spoil(path: Path) -> None:
        table, header = _read(path)
        index = table.schema.get_field_index(name)
        column = table.column(index).combine_chunks()
        shape = header["columns"][name][0]
        values = np.full(shape, value, np.float32)
        if len(shape) == 1:
            array = pa.array(values)
        else:
            array = pa.ListArray.from_arrays(column.offsets, pa.array(values.reshape(-1)), mask=column.is_null())
        header["columns"][name][1] = digest_of(values.tobytes())
        _write(path, table.set_column(index, table.schema.field(index), array), header)

    return spoil


def _blobs(name: str, blob: bytes) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        table, header = _read(path)
        index = table.schema.get_field_index(name)
        blobs = [blob] * table.num_rows
        lengths = np.array([len(blob) for blob in blobs], dtype="<u8").tobytes()
        header["columns"][name][1] = digest_of(lengths, b"".join(blobs))
        _write(path, table.set_column(index, table.schema.field(index), pa.array(blobs, pa.binary())), header)

    return spoil


def _renamed(old: str, new: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        table, header = _read(path)
        name = next(name for name in table.schema.names if name.startswith(old))
        table = table.rename_columns([new if column == name else column for column in table.schema.names])
        header["columns"] = {new if column == name else column: facts for column, facts in header["columns"].items()}
        _write(path, table, header)

    return spoil


def hostile_episodes() -> dict[str, Callable[[Path], Any]]:
    """Each changes a sound episode file."""
    bomb = zstandard.ZstdCompressor(level=1, write_content_size=True).compress(bytes(300_000_000))
    return {
        "images of 10^6 x 10^6": _edit(lambda header: header.update(frame_shape=[10**6, 10**6, 3])),
        "images of no size": _edit(lambda header: header.update(frame_shape=[0, 0, 3])),
        "images of a negative size": _edit(lambda header: header.update(frame_shape=[-1, -1, 3])),
        "an image that unpacks to 300 MB": _blobs("frame", bomb),
        "an image of noise": _blobs("frame", bytes(range(256))),
        "2^40 steps": _fact("steps", 2**40),
        "no steps": _fact("steps", 0),
        "fewer steps": _fact("steps", 1),
        "more steps": _fact("steps", 99),
        "a step less than none": _fact("steps", -1),
        "a task with dots": _fact("task", "../../../escaped"),
        "a task with escapes": _fact("task", ESCAPES),
        "a task with NUL": _fact("task", "a\0b"),
        "a task with a lone surrogate": _fact("task", "\ud800"),
        "a task of 1 MB": _fact("task", "x" * 1_000_000),
        "an instruction with escapes": _fact("instruction", ESCAPES),
        "an instruction with markup": _fact("instruction", "[bold]<script>alert(1)</script>[/nothing]"),
        "an instruction with a lone surrogate": _fact("instruction", "\ud800"),
        "an instruction of 1 MB": _fact("instruction", "x" * 1_000_000),
        "a suite with escapes": _fact("suite", ESCAPES),
        "an operator with escapes": _fact("operator", ESCAPES),
        "an initial state of 2^62": _fact("initial_state", 2**62),
        "an initial state of 10^30": _fact("initial_state", 10**30),
        "a sample of -1": _fact("sample", -1),
        "a temperature of 1e308": _fact("temperature", 1e308),
        "facts 60 deep": _edit(lambda header: header["meta"].update(extra=_deep(60))),
        "facts 5,000 deep": _edit(lambda header: header["meta"].update(extra=_deep(900))),
        "actions of NaN": _floats("action", float("nan")),
        "actions of 3e38": _floats("action", 3e38),
        "log-probabilities of NaN": _floats("token_logp", float("nan")),
        "log-probabilities of infinity": _floats("token_logp", float("-inf")),
        "log-probabilities of 3e38": _floats("token_logp", 3e38),
        "keypoints of NaN": _floats("keypoint:gripper", float("nan")),
        "keypoints of 3e38": _floats("keypoint:gripper", 3e38),
        "signals of infinity": _floats("signal:success", float("inf")),
        "a keypoint with escapes": _renamed("keypoint:", f"keypoint:{ESCAPES}"),
        "a signal with escapes": _renamed("signal:", f"signal:{ESCAPES}"),
        "a keypoint of no name": _renamed("keypoint:", "keypoint:"),
        "a column less": _edit(lambda header: header["columns"].pop("action") and None),
        "a column more": _edit(lambda header: header["columns"].update({ESCAPES: [[3], "x"]})),
        "columns of 2^60": _edit(lambda header: header["columns"]["action"].__setitem__(0, [2**30, 2**30])),
    }


def _deep(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {"a": value}
    return value
