"""Safetensors files, written durably."""

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["save_tensors"]

_PYTORCH = {"format": "pt"}


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = _PYTORCH) -> None:
    """Write a safetensors file durably.

    Raises:
        OSError: The disk is full or the place cannot be written.
    """
    try:
        save_file(dict(tensors), path, metadata=metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
