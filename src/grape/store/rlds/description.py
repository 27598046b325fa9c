"""``dataset_info.json``: the name of a data set, its splits, and the files they consist of.

Both the name in it and the prefix of the files may differ from the folder's name: the first public pair sets lie in a
folder ``rlds_np_rollout`` but call themselves ``chosen_dataset``, and the modified LIBERO sets drop ``_no_noops``. So
files are always found by what stands here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.errors import CompatibilityError, DataError
from grape.core.reading import parse_json, read_file

__all__ = ["FILE_TEMPLATE", "Description", "Shard", "Split", "find_version", "read_description", "shard_name"]

FILE_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
"""How TFDS names files where ``dataset_info.json`` does not say otherwise."""

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True)
class Shard:
    """One file of a split.

    Attributes:
        path: Where it is.
        episodes: How many records it must hold.
    """

    path: Path
    episodes: int


@dataclass(frozen=True)
class Split:
    """A named part of a data set.

    Attributes:
        name: E.g. ``train``.
        shards: Its files, in order.
        num_bytes: Payload of all records; 0 where it is not told.
    """

    name: str
    shards: tuple[Shard, ...]
    num_bytes: int = 0

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return sum(shard.episodes for shard in self.shards)


@dataclass(frozen=True)
class Description:
    """What ``dataset_info.json`` says.

    Attributes:
        name: Name of the data set, also the prefix of its files.
        version: E.g. ``1.0.0``.
        splits: By name, in the file's order.
    """

    name: str
    version: str
    splits: Mapping[str, Split]


def find_version(path: Path) -> Path:
    """The folder with ``dataset_info.json``: ``path`` itself, or the newest version below it.

    Raises:
        DataError: There is none; the hint lists data sets that lie below.
    """
    if (path / "dataset_info.json").exists():
        return path
    if not path.is_dir():
        raise DataError(f"RLDS folder {path} does not exist.", "Check the path.")
    found = {}
    for entry in path.iterdir():
        match = _VERSION.fullmatch(entry.name)
        if match and (entry / "dataset_info.json").exists():
            found[tuple(map(int, match.groups()))] = entry
    if found:
        return found[max(found)]
    below = sorted({info.parent.parent for info in path.glob("*/*/dataset_info.json")})
    raise DataError(
        f"{path} is no RLDS data set: neither it nor a version folder in it holds dataset_info.json.",
        f"Give one of: {', '.join(map(str, below[:6]))}." if below else "Give the folder NAME or NAME/1.0.0.",
    )


def read_description(folder: Path) -> Description:
    """Read ``dataset_info.json`` of a version folder.

    Raises:
        DataError: The file is missing or damaged.
        CompatibilityError: The episodes are stored in another format than TFRecord.
    """
    path = folder / "dataset_info.json"
    if not path.exists():
        raise DataError(f"{path} does not exist.", "Give the folder of an RLDS data set.")
    info = parse_json(read_file(path), str(path), hint="Fetch the data set again.")
    try:
        file_format = info.get("fileFormat", "tfrecord") or "tfrecord"
        if file_format != "tfrecord":
            raise CompatibilityError(
                f"{path}: the episodes are stored as {file_format!r}; only 'tfrecord' can be read.",
                "Convert the data set with tfds: download_and_prepare(file_format='tfrecord').",
            )
        name = str(info["name"])
        splits = [_split(folder, name, item) for item in info.get("splits", [])]
        version = str(info.get("version", folder.name))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}: {error}).", "Fetch the data set again.") from error
    return Description(name, version, {split.name: split for split in splits})


def shard_name(template: str, name: str, split: str, index: int, count: int) -> str:
    """File name of a shard."""
    words = {
        "DATASET": name,
        "SPLIT": split,
        "FILEFORMAT": "tfrecord",
        "SHARD_X_OF_Y": f"{index:05d}-of-{count:05d}",
        "SHARD_INDEX": f"{index:05d}",
        "NUM_SHARDS": f"{count:05d}",
    }
    return re.sub(r"\{(\w+)\}", lambda match: words[match[1]], template)


def _split(folder: Path, name: str, item: Mapping[str, Any]) -> Split:
    lengths = [int(length) for length in item.get("shardLengths", [])]
    template = item.get("filepathTemplate") or FILE_TEMPLATE
    split = str(item["name"])
    files = [shard_name(template, name, split, index, len(lengths)) for index in range(len(lengths))]
    if any(Path(file).name != file or "\0" in file for file in files) or min(lengths, default=0) < 0:
        raise ValueError(f"split {split!r} names files outside its folder or negative lengths")
    shards = tuple(Shard(folder / file, length) for file, length in zip(files, lengths, strict=True))
    return Split(split, shards, int(item.get("numBytes", 0)))
