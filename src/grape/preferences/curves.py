"""Curves of constraints in a columnar file beside the scores: for plots only, read for the episodes that are drawn.

``curves.parquet`` has one row an episode, in the order of ``scores.jsonl``:

==============  ==================  =====================================================================
column          type                content
==============  ==================  =====================================================================
``episode_id``  string              the episode
``stage``       list<string>        the stage's name, one entry a curve
``constraint``  list<string>        the constraint's name
``curve``       list<list<float>>   the raw cost at each state of the stage; empty where it was not measured
==============  ==================  =====================================================================

Scores that releases without this file wrote hold the curves themselves.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from grape.core.errors import DataError
from grape.core.files import atomic_writer
from grape.core.preferences import Score, StageScore
from grape.store.table_files import read_rows

__all__ = ["CURVES_FILE", "CURVES_SCHEMA", "EPISODES_PER_GROUP", "curves_table", "with_curves", "write_curves"]

CURVES_FILE = "curves.parquet"
EPISODES_PER_GROUP = 64
"""Episodes whose curves are written, and read at most, at once."""


def _list(of: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", of))


CURVES_SCHEMA = pa.schema(
    [
        ("episode_id", pa.string()),
        ("stage", _list(pa.string())),
        ("constraint", _list(pa.string())),
        ("curve", _list(_list(pa.float32()))),
    ]
)

Curves = Mapping[tuple[str, str], tuple[float, ...]]
"""Curves of one episode by the names of stage and constraint."""

_FIX = "Delete the file, and pages are made without curves; or score into another folder."


def curves_table(episodes: Iterable[tuple[str, Sequence[StageScore]]]) -> pa.Table:
    """Curves of episodes as rows of the file.

    Args:
        episodes: Id and stages of each.
    """
    rows = list(episodes)
    parts = [[(stage.name, item) for stage in stages for item in stage.constraints] for _, stages in rows]
    values = np.fromiter(
        itertools.chain.from_iterable(item.curve for part in parts for _, item in part), dtype=np.float32
    )
    places = pa.array(np.cumsum([0, *(len(item.curve) for part in parts for _, item in part)]), pa.int32())
    curves = pa.ListArray.from_arrays(places, pa.array(values), type=_list(pa.float32()))
    offsets = pa.array(np.cumsum([0, *map(len, parts)]), pa.int32())
    columns = [
        pa.array([name for name, _ in rows], pa.string()),
        pa.array([[stage for stage, _ in part] for part in parts], _list(pa.string())),
        pa.array([[item.name for _, item in part] for part in parts], _list(pa.string())),
        pa.ListArray.from_arrays(offsets, curves, type=_list(_list(pa.float32()))),
    ]
    return pa.Table.from_arrays(columns, schema=CURVES_SCHEMA)


def write_curves(path: Path, tables: Iterable[pa.Table]) -> None:
    """Write the file; it appears whole or not at all.

    Args:
        path: The file.
        tables: See :func:`curves_table`; they are taken one after another, and each becomes a row group.
    """
    with (
        atomic_writer(path) as handle,
        pq.ParquetWriter(
            handle,
            CURVES_SCHEMA,
            compression="zstd",
            use_dictionary=["stage.list.element", "constraint.list.element"],
            write_statistics=False,
            write_page_checksum=True,
            store_schema=False,
        ) as writer,
    ):
        for table in tables:
            writer.write_table(table)


def with_curves(folder: Path, scores: Iterable[Score]) -> dict[str, Score]:
    """Scores with their curves, by episode id; as they are where the folder has no file of curves.

    Args:
        folder: A folder of ``grape score``.
        scores: Some of its scores. Those that have curves already keep them.

    Raises:
        DataError: The file is damaged.
    """
    given = {score.episode_id: score for score in scores}
    bare = [name for name, score in given.items() if score.stages and not _has_curves(score)]
    path = folder / CURVES_FILE
    if not bare or not path.exists():
        return given
    return given | {name: _joined(given[name], curves) for name, curves in _read_curves(path, bare)}


def _has_curves(score: Score) -> bool:
    return any(constraint.curve for stage in score.stages for constraint in stage.constraints)


def _joined(score: Score, curves: Curves) -> Score:
    stages = (
        replace(
            stage,
            constraints=tuple(
                replace(item, curve=curves.get((stage.name, item.name), ())) for item in stage.constraints
            ),
        )
        for stage in score.stages
    )
    return replace(score, stages=tuple(stages))


def _read_curves(path: Path, names: Sequence[str]) -> Iterator[tuple[str, Curves]]:
    """Curves of some episodes; of the others only the ids are read."""
    ids = _columns(path, ["episode_id"])["episode_id"]
    rows = np.flatnonzero(pc.is_in(ids, pa.array(names, pa.string())).to_numpy(zero_copy_only=False))
    # Neighbors are read together: at most so many that one group of rows holds.
    for first, block in itertools.groupby(rows.tolist(), key=lambda row: row // EPISODES_PER_GROUP):
        start = first * EPISODES_PER_GROUP
        members = list(block)
        columns = _columns(path, CURVES_SCHEMA.names, start, members[-1] + 1 - start)
        for row in members:
            name, stages, constraints, curves = (columns[key][row - start].as_py() for key in CURVES_SCHEMA.names)
            if None in (stages, constraints, curves) or not len(stages) == len(constraints) == len(curves):
                raise DataError(f"{path}: the curves of episode {name} are damaged.", _FIX)
            places = zip(stages, constraints, strict=True)
            yield name, {place: tuple(curve or ()) for place, curve in zip(places, curves, strict=True)}


def _columns(path: Path, names: Sequence[str], first: int = 0, count: int | None = None) -> dict[str, pa.ChunkedArray]:
    columns = read_rows(path, path.parent, names, first, count)
    for name, column in columns.items():
        if column.type != CURVES_SCHEMA.field(name).type:
            raise DataError(f"{path}: column '{name}' is of type {column.type!s:.60}.", _FIX)
    return columns
