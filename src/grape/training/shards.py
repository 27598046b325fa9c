"""Tensors of a sharded network on disk: every process writes and reads its own part.

``torch.distributed.checkpoint`` plans who writes what and, where a later run has another number of processes, who
reads which slices. The files are safetensors, one a process: nothing in them is executed when they are read.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from grape.core.errors import DataError, GrapeError, SettingsError
from grape.core.reading import open_file

__all__ = ["check_storage", "read_shards", "shapes_of_shards", "write_shards"]


def check_storage() -> None:
    """Refuse a PyTorch that cannot store shards as safetensors, before any work.

    Raises:
        SettingsError: It is too old.
    """
    try:
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
    except ImportError as error:
        raise SettingsError(
            f"PyTorch {torch.__version__} cannot store sharded checkpoints as safetensors.",
            "Update it (2.13 is known to work), or leave --sharding out.",
        ) from error
    del HuggingFaceStorageReader, HuggingFaceStorageWriter


def write_shards(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write tensors to a folder that all processes see; all must call. Of distributed ones each writes its part.

    Raises:
        GrapeError: A process could not write; raised in all of them.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    try:
        save(dict(tensors), storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except CheckpointException as error:
        rank, (cause, _) = min(error.failures.items())
        raise GrapeError(
            f"Process {rank} could not write its part of {folder}: {cause}.",
            "Free space or fix the permissions, then run the same command again.",
        ) from error


def shapes_of_shards(folder: Path) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and type of each whole tensor, from the files' headers.

    Raises:
        DataError: A file is missing, truncated or no regular file.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    for path in folder.glob("*.safetensors"):
        open_file(path, within=folder).close()  # a named pipe would never end
    try:
        announced: Mapping[str, Any] = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"Checkpoint {folder} is truncated ({error}).") from error
    for name, facts in announced.items():
        if sum(chunk.sizes.numel() for chunk in facts.chunks) != facts.size.numel():
            raise DataError(f"Checkpoint {folder} is truncated: parts of {name} are missing.")
    return {name: (tuple(facts.size), facts.properties.dtype) for name, facts in announced.items()}


def read_shards(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Fill tensors, plain or distributed, with what a folder holds under their names.

    Each process reads what it holds itself, whatever the number of processes that wrote; nothing is sent.

    Raises:
        DataError: A file is missing or truncated.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*single process", category=UserWarning)
            load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    except (CheckpointException, SafetensorError, OSError) as error:
        raise DataError(f"Checkpoint {folder} is truncated ({error}).") from error
