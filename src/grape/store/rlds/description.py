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
from grape.core.reading import parse_json
from grape.store.opening import MIB, open_data
from grape.store.rlds.tfrecord import read_records

__all__ = ["FILE_TEMPLATE", "Description", "Shard", "Split", "find_version", "read_description", "shard_name"]

FILE_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
"""How TFDS names files where ``dataset_info.json`` does not say otherwise."""

_MOST_BYTES = 64 * MIB
_HINT = (
    "If it was downloaded, compare it with its source; a data set that TFDS can open is described afresh by "
    "tfds.builder_from_directory(FOLDER).info.write_to_directory(FOLDER)."
)

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
    folders = {}
    for entry in path.iterdir():
        match = _VERSION.fullmatch(entry.name)
        if match and (entry / "dataset_info.json").exists():
            folders[tuple(map(int, match.groups()))] = entry
    if folders:
        return folders[max(folders)]
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
    with open_data(path, within=folder, max_bytes=_MOST_BYTES) as handle:
        info = parse_json(handle.read(), str(path), hint=_HINT)
    if not isinstance(info, dict):
        raise DataError(f"{path} holds no object.", _HINT)
    file_format = info.get("fileFormat", "tfrecord") or "tfrecord"
    if file_format != "tfrecord":
        raise CompatibilityError(
            f"{path}: the episodes are stored as {file_format!r}; only 'tfrecord' can be read.",
            "Convert the data set with tfds: download_and_prepare(file_format='tfrecord').",
        )
    try:
        name, version = str(info["name"]), str(info.get("version", folder.name))
        items = list(info.get("splits") or []) or [{"name": split} for split in _splits_of_files(folder, name)]
        splits = [_split(folder, name, item) for item in items]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{path} cannot be used: {reason}.", _HINT) from error
    if not splits:
        raise DataError(
            f"{path} lists no 'splits', and no file beside it is called {name}-SPLIT.tfrecord-00000-of-00001 or alike.",
            _HINT,
        )
    if len({split.name for split in splits}) < len(splits):
        raise DataError(f"{path} lists a split twice.", _HINT)
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
    if unknown := [word for word in re.findall(r"\{(\w+)\}", template) if word not in words]:
        raise ValueError(f"filepathTemplate has the unknown word {unknown[0]!r}")
    return re.sub(r"\{(\w+)\}", lambda match: words[match[1]], template)


def _split(folder: Path, name: str, item: Mapping[str, Any]) -> Split:
    template, split = item.get("filepathTemplate") or FILE_TEMPLATE, str(item["name"])
    announced = _announced(item)
    lengths = [_whole(length, "a length") for length in item.get("shardLengths") or []]
    count = len(lengths) or _number_of_files(folder, template, name, split, item)
    files = [folder / _file_name(template, name, split, index, count) for index in range(count)]
    if not lengths:  # written by TFDS before 4.0, which told the numbers of files and of all examples
        lengths = [announced] if count == 1 and announced is not None else [_count(file) for file in files]
    if announced is not None and sum(lengths) != announced:
        raise ValueError(f"split {split!r} has {sum(lengths)} episodes in its files, where {announced} are announced")
    shards = tuple(Shard(file, length) for file, length in zip(files, lengths, strict=True))
    return Split(split, shards, _whole(item.get("numBytes") or 0, "numBytes"))


def _whole(value: Any, what: str) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,15}", str(value)):
        raise ValueError(f"{what} is {str(value)[:40]!r}, which is no whole number from 0")
    return int(value)


def _announced(item: Mapping[str, Any]) -> int | None:
    """Number of all episodes of a split, where it is stated."""
    statistics = item.get("statistics")
    stated_count = statistics.get("numExamples") if isinstance(statistics, Mapping) else None
    return None if stated_count is None else _whole(stated_count, "statistics.numExamples")


def _file_name(template: str, name: str, split: str, index: int, count: int) -> str:
    file = shard_name(str(template), name, split, index, count)
    if Path(file).name != file:
        raise ValueError(f"split {split!r} names files outside its folder: {file!r}")
    return file


def _number_of_files(folder: Path, template: str, name: str, split: str, item: Mapping[str, Any]) -> int:
    """Number of files of a split, where its lengths are not stated."""
    stated_count = item.get("numShards")
    present = {entry.name for entry in folder.iterdir()}
    if stated_count is not None:
        count = _whole(stated_count, "numShards")
        if not 0 < count <= len(present):
            raise ValueError(f"split {split!r} has no 'shardLengths', and not the {count} files of its 'numShards'")
        return count
    counts = {int(match[1]) for file in present if (match := re.search(r"-of-([0-9]{5,8})", file))}
    for count in sorted(counts):
        if count <= len(present) and _file_name(template, name, split, 0, count) in present:
            return count
    raise ValueError(
        f"split {split!r} has neither 'shardLengths' nor 'numShards', and {folder} holds no file like "
        f"{_file_name(template, name, split, 0, 1)}"
    )


def _splits_of_files(folder: Path, name: str) -> list[str]:
    """Names of splits by the files of the folder."""
    pattern = re.compile(re.escape(name) + r"-([A-Za-z0-9_]+)\.tfrecord-[0-9]{5,8}-of-[0-9]{5,8}")
    return sorted({match[1] for entry in folder.iterdir() if (match := pattern.fullmatch(entry.name))})


def _count(file: Path) -> int:
    """Number of records of a file; payloads are passed over."""
    return sum(1 for _ in read_records(file, lambda number: False))
