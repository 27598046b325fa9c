"""What a folder of weights is: a digest of its files, so that other weights under one path are another run.

A folder counts as a model where a ``config.json`` or weights lie in it directly; others may be anything, also folders
that a program writes into. Of files larger than 64 MiB, which weights are, sixteen pieces and the size are read:
weights that were trained further differ everywhere. Links that lead out of the folder are not followed; where they lead
is part of the digest, since the cache of the Hugging Face hub names its files by their content. Hidden files do not
count.
"""

import hashlib
import os
from pathlib import Path

from grape.core.files import content_hash
from grape.core.reading import open_file

__all__ = ["is_model_folder", "model_folder_hash"]

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".npz")
_READ_WHOLE = 64 * 2**20
_PIECES, _PIECE = 16, 2**20
_MOST_FILES = 2000


def is_model_folder(path: Path) -> bool:
    """Whether a folder holds weights, or the ``config.json`` of some.

    Raises:
        OSError: It cannot be read.
    """
    return path.is_dir() and any(name == "config.json" or name.endswith(_WEIGHTS) for name in os.listdir(path))


def model_folder_hash(path: Path) -> str:
    """Digest of names, sizes and contents of the first 2000 files by name, and of how many there are.

    Raises:
        OSError: The folder cannot be read.
        DataError: A file of it cannot be read.
    """
    root = path.resolve()
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(folder, name) for name in names if not name.startswith(".")]
    files.sort()
    entries = [[file.relative_to(root).as_posix(), *_content(file, root)] for file in files[:_MOST_FILES]]
    return content_hash([len(files), entries])


def _content(file: Path, root: Path) -> list[str | int]:
    """Size and digest of a file; of a link that leads out of the folder where it leads."""
    if file.is_symlink() and not file.resolve().is_relative_to(root):
        return ["link", os.readlink(file)]
    if not file.is_file():
        return ["no file"]
    digest = hashlib.sha256()
    with open_file(file) as handle:
        size = os.fstat(handle.fileno()).st_size
        if size <= _READ_WHOLE:
            return [size, hashlib.file_digest(handle, "sha256").hexdigest()]
        for piece in range(_PIECES):
            handle.seek((size - _PIECE) * piece // (_PIECES - 1))
            digest.update(handle.read(_PIECE))
    return [size, digest.hexdigest()]
