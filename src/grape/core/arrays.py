"""Arrays of somebody else's recordings, checked: type, axes and finite numbers."""

from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError

__all__ = ["image_array", "numbers"]

_SHAPES = "See grape.Trajectory.from_arrays for the shape of each array."


def numbers(
    name: str, value: npt.ArrayLike, axes: int, dtype: npt.DTypeLike = np.float32, *, finite: bool = True
) -> npt.NDArray[Any]:
    """``value`` as numbers of ``dtype`` along so many axes.

    Raises:
        DataError: It is something else, or not finite.
    """
    try:
        array = np.ascontiguousarray(value, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{name}: no array of numbers ({error}).", _SHAPES) from error
    if array.ndim != axes:
        raise DataError(f"{name}: the shape is {array.shape}, not one of {axes} axes.", _SHAPES)
    if finite and not np.isfinite(array).all():
        raise DataError(f"{name}: a number is not finite.", "Leave the trajectory out, or fix what recorded it.")
    return array


def image_array(name: str, value: npt.ArrayLike, decisions: int) -> npt.NDArray[np.uint8]:
    """``value`` as images, one before each decision and one after the last action.

    Raises:
        DataError: It is something else.
    """
    array = np.asarray(value)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3:
        raise DataError(f"{name}: {array.dtype} {array.shape}, not uint8 (N+1, H, W, 3).", "Give RGB from 0 to 255.")
    if len(array) != decisions + 1:
        raise DataError(
            f"{name}: {len(array)} for {decisions} decisions; there must be one before each, and one after the last "
            "action.",
            "Record the last one, too, or repeat the one before." if len(array) == decisions else _SHAPES,
        )
    return np.ascontiguousarray(array)
