"""``features.json``: the columns of an RLDS data set, and their conversion to and from ``tf.train.Example``.

TFDS describes an episode as a tree: dictionaries of features, one of which (``steps``) is a data set of its own. On
disk the tree is flat: ``steps/observation/image`` holds one blob a step, ``steps/action`` the numbers of all steps one
after the other. The classes here are the leaves of that tree; :class:`FeatureTree` lists them by path.

Known leaves are tensors and scalars, texts and images. A leaf of another class (audio, ragged sequences ...) can be
listed but not read: asking for its column is an error that names the class.
"""

import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError
from grape.core.reading import parse_json
from grape.store.opening import MIB, open_data, unpacked_limit
from grape.store.rlds.example import Value
from grape.store.rlds.images import EncodedImages, encode_image

__all__ = ["Column", "Feature", "FeatureTree", "ImageFeature", "Leaf", "Tensor", "Text", "Unknown", "read_features"]

Column = npt.NDArray[Any] | EncodedImages | list[str]
"""What a leaf holds for ``N`` steps: numbers ``(N, ...)``, images, or texts."""

_MOST_BYTES = 16 * MIB
_MOST_UNPACKED = 512 * MIB
_MOST_NUMBERS = 2**40  # of one item
_MOST_SIDES = 16

_CLASS = "tensorflow_datasets.core.features."
_PATHS = {
    "dict": _CLASS + "features_dict.FeaturesDict",
    "steps": _CLASS + "dataset_feature.Dataset",
    "scalar": _CLASS + "scalar.Scalar",
    "tensor": _CLASS + "tensor_feature.Tensor",
    "text": _CLASS + "text_feature.Text",
    "image": _CLASS + "image_feature.Image",
}
_TEXT_TYPES = ("string", "object", "str")
_DTYPES = frozenset(
    ["bool", "float16", "float32", "float64"] + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)


@dataclass(frozen=True)
class Tensor:
    """Numbers of a fixed shape.

    Attributes:
        dtype: NumPy's name of the element type.
        shape: Shape of one item; ``()`` for a scalar.
        encoding: ``"none"``: as lists of numbers; ``"bytes"`` or ``"zlib"``: the raw bytes of one item each.
        description: For people.
    """

    dtype: str
    shape: tuple[int, ...] = ()
    encoding: str = "none"
    description: str = ""

    def decode(self, value: Value, where: str) -> npt.NDArray[Any]:
        """Items ``(N, *shape)``."""
        dtype, size = np.dtype(self.dtype), math.prod(self.shape)
        if not size:
            raise DataError(f"{where} has items without a number, so it does not tell how many there are.")
        if self.encoding != "none" and isinstance(value, list):
            value = self._unpacked(value, where)
        if isinstance(value, list):
            if value:
                raise DataError(f"{where} holds text where numbers are due.")
            value = np.zeros(0, dtype=dtype)
        if value.size % size:
            raise DataError(f"{where} holds {value.size} numbers, which is no multiple of {size}.")
        if dtype.kind in "biu" and value.size and value.dtype.kind == "f":
            raise DataError(f"{where} holds floating-point numbers where {self.dtype} is due.")
        if dtype.kind in "iu" and value.size and value.dtype != dtype and dtype.itemsize < 8:
            least, most = int(value.min()), int(value.max())
            if least < np.iinfo(dtype).min or most > np.iinfo(dtype).max:
                raise DataError(f"{where} holds {least} to {most}, which {self.dtype} cannot.")
        return np.ascontiguousarray(value, dtype=dtype).reshape(-1, *self.shape)

    def encode(self, column: Column, where: str) -> npt.NDArray[Any]:
        """What goes into an example, checked against type and shape."""
        if not isinstance(column, np.ndarray) or column.dtype != self.dtype or column.shape[1:] != self.shape:
            description = f"{column.dtype} {column.shape}" if isinstance(column, np.ndarray) else type(column).__name__
            raise DataError(f"{where} is {description}; {self.dtype} (N, *{self.shape}) is due.")
        return column

    def _unpacked(self, value: list[bytes], where: str) -> npt.NDArray[Any]:
        try:
            size = math.prod(self.shape) * np.dtype(self.dtype).itemsize
            packed = sum(map(len, value))
            if self.encoding == "zlib" and size * len(value) > (most := unpacked_limit(packed, 100, _MOST_UNPACKED)):
                raise ValueError(f"{packed:,} bytes would become {size * len(value):,}, where {most:,} are allowed")
            raw = b"".join(_inflate(item, size) if self.encoding == "zlib" else item for item in value)
            return np.frombuffer(raw, dtype=np.dtype(self.dtype).newbyteorder("<"))
        except (zlib.error, ValueError) as error:
            raise DataError(f"{where} cannot be unpacked: {error}.") from error


def _inflate(packed: bytes, size: int) -> bytes:
    """Unpack exactly ``size`` bytes, so that a small input cannot fill the memory."""
    stream = zlib.decompressobj()
    unpacked = stream.decompress(packed, size + 1)
    if len(unpacked) != size or not stream.eof:
        raise ValueError(f"it does not unpack to {size} bytes")
    return unpacked


@dataclass(frozen=True)
class Text:
    """A UTF-8 text."""

    description: str = ""

    def decode(self, value: Value, where: str) -> list[str]:
        """One text a step."""
        if not isinstance(value, list):
            raise DataError(f"{where} holds numbers where text is due.")
        try:
            return [item.decode() for item in value]
        except UnicodeDecodeError as error:
            raise DataError(f"{where} holds bytes that are no UTF-8.") from error

    def encode(self, column: Column, where: str) -> list[bytes]:
        """What goes into an example."""
        if isinstance(column, np.ndarray | EncodedImages):
            raise DataError(f"{where} holds no texts.")
        return [text.encode() for text in column]


@dataclass(frozen=True)
class ImageFeature:
    """An image of 8 bits a channel.

    Attributes:
        shape: ``(H, W, C)``; None where a side is open.
        encoding: ``"png"`` or ``"jpeg"``; empty where each blob tells itself.
        description: For people.
    """

    shape: tuple[int | None, ...]
    encoding: str = "png"
    description: str = ""

    def decode(self, value: Value, where: str) -> EncodedImages:
        """One image a step, still encoded."""
        if not isinstance(value, list):
            raise DataError(f"{where} holds numbers where images are due.")
        return EncodedImages(value, self.shape, where)

    def encode(self, column: Column, where: str) -> Sequence[bytes]:
        """What goes into an example: blobs as they are, or pixels ``(N, H, W, C)`` encoded."""
        if isinstance(column, EncodedImages):
            return column.blobs
        if not isinstance(column, np.ndarray) or column.dtype != np.uint8 or column.shape[1:] != self.shape:
            raise DataError(f"{where} holds no images of shape {self.shape}.")
        return [encode_image(pixels, self.encoding) for pixels in column]


@dataclass(frozen=True)
class Unknown:
    """A leaf of a class that is not read here.

    Attributes:
        kind: Its class's name.
    """

    kind: str

    def decode(self, value: Value, where: str) -> Column:
        """Refuse."""
        raise DataError(f"{where} is of class {self.kind}, which cannot be read here.", "Read another column.")

    def encode(self, column: Column, where: str) -> list[bytes]:
        """Refuse."""
        raise DataError(f"{where} is of class {self.kind}, which cannot be written.")


Leaf = Tensor | Text | ImageFeature | Unknown
Feature = Leaf | Mapping[str, Any]


@dataclass(frozen=True)
class FeatureTree:
    """The features of a data set of episodes.

    Attributes:
        steps: Leaves of one step by path below ``steps``, e.g. ``observation/image``.
        episode: Leaves of the episode as a whole by path, e.g. ``episode_metadata/file_path``.
    """

    steps: Mapping[str, Leaf]
    episode: Mapping[str, Leaf]

    def to_json(self) -> str:
        """Text of ``features.json`` as TFDS writes it."""
        tree = _branch(self.episode)
        tree["featuresDict"]["features"]["steps"] = {
            "pythonClassName": _PATHS["steps"],
            "sequence": {"feature": _branch(self.steps), "length": "-1"},
        }
        return json.dumps(tree, indent=4, sort_keys=True)


def read_features(path: Path) -> FeatureTree:
    """Features from ``features.json``.

    Raises:
        DataError: The file is missing, no JSON, of an older layout, or describes no episodes.
    """
    try:
        with open_data(path, within=path.parent, max_bytes=_MOST_BYTES) as handle:
            tree = parse_json(handle.read(), str(path), hint="Data sets written by TFDS 4.5 or newer can be read.")
        leaves = dict(_leaves(tree, ""))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{path} is damaged or of an unknown layout ({type(error).__name__}: {error}).",
            "Data sets written by TFDS 4.5 or newer can be read.",
        ) from error
    steps = {name.removeprefix("steps/"): leaf for name, leaf in leaves.items() if name.startswith("steps/")}
    if not steps:
        raise DataError(f"{path} describes no episodes: there is no data set called 'steps'.")
    return FeatureTree(steps, {name: leaf for name, leaf in leaves.items() if not name.startswith("steps/")})


def _leaves(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, Leaf]]:
    if "featuresDict" in node:
        for name, child in node["featuresDict"].get("features", {}).items():
            yield from _leaves(child, f"{path}/{name}" if path else name)
    elif "sequence" in node and path == "steps":  # older data sets say Sequence where newer ones say Dataset
        yield from _leaves(node["sequence"]["feature"], path)
    else:
        yield path, _leaf(node)


def _leaf(node: Mapping[str, Any]) -> Leaf:
    description, name = str(node.get("description", "")), str(node["pythonClassName"]).rpartition(".")[2]
    if "text" in node and name == "Text":
        return Text(description)
    if "image" in node and name == "Image":
        image = node["image"]
        shape = tuple(None if side < 0 else side for side in _shape(image))
        if image.get("dtype", "uint8") == "uint8" and len(shape) == 3:
            return ImageFeature(shape, image.get("encodingFormat", ""), description)
    if "tensor" in node and name in ("Tensor", "Scalar"):
        tensor = node["tensor"]
        dtype, shape = tensor["dtype"], _shape(tensor)
        if dtype in _TEXT_TYPES and shape == ():
            return Text(description)
        encoding = tensor.get("encoding", "none") or "none"
        if dtype in _DTYPES and min(shape, default=0) >= 0 and encoding in ("none", "bytes", "zlib"):
            return Tensor(dtype, shape, encoding, description)
    return Unknown(name)


def _shape(node: Mapping[str, Any]) -> tuple[int, ...]:
    shape = tuple(int(side) for side in node.get("shape", {}).get("dimensions", ()))
    if len(shape) > _MOST_SIDES or math.prod(max(1, abs(side)) for side in shape) > _MOST_NUMBERS:
        raise ValueError(f"a shape of {len(shape)} sides or of too many numbers")
    return shape


def _branch(leaves: Mapping[str, Leaf]) -> dict[str, Any]:
    """Nested dictionaries from leaves by path."""
    children: dict[str, dict[str, Leaf]] = {}
    for path, leaf in leaves.items():
        name, _, rest = path.partition("/")
        children.setdefault(name, {})[rest] = leaf
    features = {name: _to_json(inner[""]) if "" in inner else _branch(inner) for name, inner in children.items()}
    return {"featuresDict": {"features": features}, "pythonClassName": _PATHS["dict"]}


def _to_json(leaf: Leaf) -> dict[str, Any]:
    if isinstance(leaf, Unknown):
        raise DataError(f"A feature of class {leaf.kind} cannot be written.")
    if isinstance(leaf, Text):
        node: dict[str, Any] = {"pythonClassName": _PATHS["text"], "text": {}}
    elif isinstance(leaf, ImageFeature):
        content = {"dtype": "uint8", "encodingFormat": leaf.encoding, "shape": _dimensions(leaf.shape)}
        node = {"pythonClassName": _PATHS["image"], "image": content}
    else:
        content = {"dtype": leaf.dtype, "encoding": leaf.encoding, "shape": _dimensions(leaf.shape)}
        node = {"pythonClassName": _PATHS["tensor" if leaf.shape else "scalar"], "tensor": content}
    return {**node, "description": leaf.description} if leaf.description else node


def _dimensions(shape: Sequence[int | None]) -> dict[str, Any]:
    return {"dimensions": [str(-1 if side is None else side) for side in shape]} if shape else {}
