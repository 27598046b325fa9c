"""A robot's log: time, gripper pose and opening, perhaps actions, from CSV, Parquet or JSON lines; in SI units."""

import csv
import io
import math
import re
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError, did_you_mean
from grape.core.reading import MAX_DOCUMENT_BYTES, open_file, parse_json, read_file
from grape.store.video.episode_list import LENGTHS, TIMES, LogFormat

__all__ = ["RobotLog", "read_robot_log"]

Float64 = npt.NDArray[np.float64]

_FARTHEST = 3.0  # meters from the robot's base: no arm on a table reaches farther
_NEAREST = 0.01  # meters: a position that is never farther away was written in another unit
_FASTEST = 5.0  # meters a second
_MOST_COLUMNS = 2_000
_MOST_VALUES = 5_000_000  # numbers of a log: ten columns for fourteen hours at ten rows a second
_QUATERNION = ("qw", "qx", "qy", "qz")
_ROTATION_VECTOR = ("rx", "ry", "rz")
_KNOWN = ("time", "x", "y", "z", *_QUATERNION, *_ROTATION_VECTOR, "gripper")


@dataclass(frozen=True, eq=False)
class RobotLog:
    """A log of ``N`` rows.

    Attributes:
        time: Seconds on the log's clock, increasing, ``(N,)``.
        position: The gripper's, meters, ``(N, 3)``.
        rotation: Its orientation as axis times angle, radians ``(N, 3)``; None if not logged.
        opening: 0 closed to 1 open, ``(N,)``.
        actions: ``(N, D)``; None if not logged. The last row may be NaN.
        signals: Further columns, ``(N,)`` each.
    """

    time: Float64
    position: Float64
    rotation: Float64 | None
    opening: Float64
    actions: Float64 | None
    signals: Mapping[str, Float64]

    def __len__(self) -> int:
        return len(self.time)


def read_robot_log(path: Path, form: LogFormat) -> RobotLog:
    """Read a log and bring it into SI units.

    Raises:
        DataError: The file cannot be read, a column is missing or no number, times do not increase, or the numbers are
            not of the units they are said to be.
    """
    table = _columns(path)
    if unknown := sorted(set(form.columns) - set(_KNOWN)):
        raise DataError(
            f"robot_log: columns names {unknown[0]!r}, which is none of ours.", did_you_mean(unknown[0], _KNOWN)
        )

    def column(name: str, required: bool = True) -> Float64 | None:
        theirs = form.columns.get(name, name)
        if theirs in table:
            return table[theirs]
        if required or name in form.columns:
            raise DataError(
                f"{path} has no column {theirs!r}.",
                f"{did_you_mean(theirs, table)} Say under robot_log: columns: which of them is {name}.",
            )
        return None

    def several(names: tuple[str, ...]) -> Float64 | None:
        columns = [column(name, required=False) for name in names]
        known = [values for values in columns if values is not None]
        if known and len(known) < len(names):
            raise DataError(f"{path} has only some of the columns {', '.join(names)}.", "Log all of them or none.")
        return np.stack(known, axis=1) if known else None

    required = [column(name) for name in ("time", "x", "y", "z", "gripper")]
    time, x, y, z, gripper = (_numbers(path, name, values) for name, values in zip(_REQUIRED, required, strict=True))
    time = time * TIMES[form.time]
    position = np.stack([x, y, z], axis=1) * LENGTHS[form.length]
    _check_time(path, time)
    _check_position(path, time, position, form.length)
    return RobotLog(
        time=time,
        position=position,
        rotation=_rotation(path, several(_QUATERNION), several(_ROTATION_VECTOR), form.angle),
        opening=_opening(path, gripper, form.gripper),
        actions=_actions(path, table, form.actions),
        signals={name: _numbers(path, name, _named(path, table, name)) for name in form.signals},
    )


_REQUIRED = ("time", "x", "y", "z", "gripper")


def _columns(path: Path) -> dict[str, Float64]:
    """Columns of a file as numbers, NaN where a field is empty or no number."""
    readers = {".jsonl": _json_rows}
    kind = path.suffix.lower()
    if kind == ".parquet":
        return _parquet(path)
    if kind == ".csv":
        return _csv(path)
    if kind not in readers:
        raise DataError(f"{path} is no robot log: {kind or 'no'} suffix.", "Write .csv, .jsonl or .parquet.")
    try:
        rows = readers[kind](path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text: {error}.", "Write it again.") from error
    if not rows:
        raise DataError(f"{path} holds no rows.", "Log one row a decision.")
    names = list(rows[0])
    if len(names) > _MOST_COLUMNS:
        raise DataError(f"{path} has {len(names):,} columns.", f"At most {_MOST_COLUMNS:,} are read.")
    _check_values(path, len(names) * len(rows))
    for number, row in enumerate(rows, start=1):
        if odd := [name for name in names if isinstance(row.get(name), str) and _is_number(row[name])]:
            raise DataError(
                f"{path}, line {number}, column {odd[0]!r}: {row[odd[0]][:40]!r} is a text, not a number.",
                "Write numbers without quotes.",
            )
    return {name: np.array([_number(row.get(name)) for row in rows]) for name in names}


def _text(path: Path) -> str:
    text = read_file(path).decode("utf-8-sig")
    _check_values(path, text.count(",") + text.count("\n"))
    return text


def _check_values(path: Path, count: int) -> None:
    if count > _MOST_VALUES:
        raise DataError(f"{path} holds {count:,} values; at most {_MOST_VALUES:,} are read.", "Cut it into episodes.")


def _csv(path: Path) -> dict[str, Float64]:
    """Columns of a CSV file; a row must have as many fields as the header."""
    try:
        text = _text(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text: {error}.", "Save it as CSV in UTF-8.") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path}, line {line}: it holds a NUL character.", "Save it as CSV in UTF-8.")
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    names: list[str] = []
    columns: list[array[float]] = []
    begin = 1
    try:
        for row in reader:
            if not row:
                pass  # an empty line
            elif not names:
                names = [name.strip() for name in row]
                _check_header(path, begin, names)
                columns = [array("d") for _ in names]
            elif len(row) != len(names):
                raise DataError(f"{path}, line {begin}: {_wrong_row(row, names)}.", _MEND_ROW)
            else:
                for column, name, field in zip(columns, names, row, strict=True):
                    if "," in field and _DECIMAL_COMMA.fullmatch(field.strip()):
                        raise DataError(
                            f"{path}, line {begin}, column {name!r}: {field.strip()[:40]!r} has a comma in a number.",
                            "Write a point for the decimals.",
                        )
                    column.append(_number(field))
            begin = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}, line {begin}: {error}.", "Check the quotes there: the field or its row may not end."
        ) from error
    if not columns or not columns[0]:
        raise DataError(f"{path} holds no rows.", "Log one row a decision.")
    return {name: np.array(column) for name, column in zip(names, columns, strict=True)}


_DECIMAL_COMMA = re.compile(r"[-+]?[0-9]*,[0-9]+([eE][-+]?[0-9]+)?")
_MEND_ROW = "Each row needs one field a column; write numbers with a point, and separate fields by commas."


def _check_header(path: Path, line: int, names: list[str]) -> None:
    if len(names) > _MOST_COLUMNS:
        raise DataError(f"{path} has {len(names):,} columns.", f"At most {_MOST_COLUMNS:,} are read.")
    if len(names) == 1 and (other := next((mark for mark in ";\t|" if mark in names[0]), "")):
        raise DataError(
            f"{path}, line {line}: its columns are separated by {other!r}: {names[0][:60]!r}.",
            "Separate them by commas, and write a point for the decimals.",
        )
    if names.count("") > 1:
        raise DataError(f"{path}, line {line}: {names.count('')} columns have no name.", "Name each column.")
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{path}, line {line}: the column {twice[0]!r} is there twice.", "Keep one of them.")


def _wrong_row(row: list[str], names: list[str]) -> str:
    count = f"the row has {len(row)} fields, the header {len(names)} columns"
    if len(row) < len(names):
        return f"{count}: {names[len(row)]!r} is missing"
    if not any(field.strip() for field in row[len(names) :]):
        return f"{count}: it ends with a comma too many"
    if len(row) > len(names) and all(re.fullmatch(r"\s*[-+]?[0-9]+\s*", field) for field in row):
        return f"{count}; are commas used for the decimals"
    return f"{count}: {row[len(names)][:40]!r} belongs to none"


def _json_rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        row = parse_json(line, f"{path}, line {number}:", hint="Write one object a line.", allow_nonfinite=True)
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: no object.", "Write one object a line.")
        rows.append(row)
    return rows


def _parquet(path: Path) -> dict[str, Float64]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    open_file(path, max_bytes=MAX_DOCUMENT_BYTES).close()
    try:
        file = pq.ParquetFile(path, thrift_string_size_limit=1 << 24, thrift_container_size_limit=1 << 16)
        rows, schema = file.metadata.num_rows, file.schema_arrow
        if len(schema.names) > _MOST_COLUMNS:
            raise DataError(f"{path} has {len(schema.names):,} columns.", f"At most {_MOST_COLUMNS:,} are read.")
        names = [item.name for item in schema if _is_numeric(item.type)]
        twice = sorted({name for name in names if schema.names.count(name) > 1})
        if twice:
            raise DataError(f"{path} has the column {twice[0]!r} twice.", "Write it again.")
        _check_values(path, rows * len(schema.names))  # before anything is unpacked
        table = file.read(columns=names, use_threads=False)
    except (OSError, pa.ArrowException, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise DataError(f"{path} cannot be read as Parquet: {reason}.", "Write it again.") from error
    if not table.num_rows:
        raise DataError(f"{path} holds no rows.", "Log one row a decision.")
    return {name: np.array([_number(value) for value in table[name].to_pylist()]) for name in names}


def _is_numeric(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _is_number(text: str) -> bool:
    return not math.isnan(_number(text))


def _number(value: object) -> float:
    if isinstance(value, bool | int | float):
        return float(value)
    try:
        return float(str(value)) if value not in (None, "") else math.nan
    except ValueError:
        return math.nan


def _numbers(path: Path, name: str, values: Float64 | None) -> Float64:
    assert values is not None
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise DataError(
            f"{path}, row {wrong[0] + 1}: {name} is no number ({len(wrong)} of {len(values)} rows).", "Fix the log."
        )
    return values


def _named(path: Path, table: Mapping[str, Float64], name: str) -> Float64:
    if name not in table:
        raise DataError(f"{path} has no column {name!r}.", did_you_mean(name, table))
    return table[name]


def _actions(path: Path, table: Mapping[str, Float64], names: tuple[str, ...]) -> Float64 | None:
    if not names:
        return None
    actions = np.stack([_named(path, table, name) for name in names], axis=1)
    wrong = np.flatnonzero(~np.isfinite(actions[:-1]).all(axis=1))
    if len(wrong):
        raise DataError(f"{path}, row {wrong[0] + 1}: the action is incomplete.", "Only the last row may have none.")
    return actions


def _check_time(path: Path, time: Float64) -> None:
    if len(time) < 2:
        raise DataError(f"{path} has {len(time)} row.", "An episode has at least two: before and after a decision.")
    back = np.flatnonzero(np.diff(time) <= 0)
    if len(back):
        row = int(back[0])
        raise DataError(
            f"{path}, row {row + 2}: time goes from {time[row]:g} s to {time[row + 1]:g} s.",
            "Times must increase from row to row; sort the log, and check robot_log: time (s, ms, us, ns).",
        )


def _check_position(path: Path, time: Float64, position: Float64, unit: str) -> None:
    away = np.linalg.norm(position, axis=1)
    farthest = float(away.max())
    if not _NEAREST < farthest <= _FARTHEST:
        raise DataError(
            f"{path}: the gripper is up to {farthest:.4g} m from the robot's base, taking its position as {unit}.",
            "Check robot_log: length (m, cm, mm), and that positions are of the gripper in the robot's frame.",
        )
    speed = np.linalg.norm(np.diff(position, axis=0), axis=1) / np.diff(time)
    row = int(speed.argmax())
    if speed[row] > _FASTEST:
        raise DataError(
            f"{path}, row {row + 2}: the gripper moves at {speed[row]:.3g} m/s.",
            "Check robot_log: length and time: one of the units is not what the list says, or rows are missing.",
        )


def _rotation(path: Path, quaternion: Float64 | None, vector: Float64 | None, unit: str) -> Float64 | None:
    if quaternion is not None and vector is not None:
        raise DataError(f"{path} has quaternions and rotation vectors.", "Log one of them.")
    if vector is not None:
        radians = np.pi / 180.0 if unit == "deg" else 1.0
        turned: Float64 = _numbers(path, "a rotation vector", vector.ravel()).reshape(-1, 3) * radians
        if float(np.linalg.norm(turned, axis=1).max()) > 4 * np.pi:
            raise DataError(
                f"{path}: rotation vectors are longer than two turns.", "Check robot_log: angle (rad, deg)."
            )
        return turned
    if quaternion is None:
        return None
    whole = _numbers(path, "a quaternion", quaternion.ravel()).reshape(-1, 4)
    length = np.linalg.norm(whole, axis=1)
    wrong = np.flatnonzero(np.abs(length - 1.0) > 0.02)
    if len(wrong):
        raise DataError(
            f"{path}, row {wrong[0] + 1}: the quaternion has length {length[wrong[0]]:.3g}.", "It must be 1."
        )
    whole = whole / length[:, None] * np.where(whole[:, :1] < 0, -1.0, 1.0)
    half = np.arccos(np.clip(whole[:, 0], -1.0, 1.0))
    sine = np.sin(half)
    scale = np.divide(2 * half, sine, out=np.full_like(half, 2.0), where=sine > 1e-9)
    return np.asarray(whole[:, 1:] * scale[:, None])


def _opening(path: Path, gripper: Float64, limits: tuple[float, float]) -> Float64:
    closed, opened = limits
    if closed == opened:
        raise DataError("robot_log: gripper gives the same number for closed and open.", "Write e.g. [0, 0.08].")
    opening = (gripper - closed) / (opened - closed)
    if float(opening.min()) < -0.1 or float(opening.max()) > 1.1:
        raise DataError(
            f"{path}: the gripper's numbers run from {gripper.min():g} to {gripper.max():g}, which is beyond "
            f"{closed:g} (closed) and {opened:g} (open).",
            "Say under robot_log: gripper: [closed, open] which numbers your log has.",
        )
    return np.clip(opening, 0.0, 1.0)
