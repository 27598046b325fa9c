"""Checkpoint folders in the published layout: read strictly by name, written whole or not at all.

A folder holds ``config.json``, weights as safetensors (one file, or shards with an index), tokenizer and
preprocessing files, and ``dataset_statistics.json``. Only safetensors are read: the older formats are pickles.
"""

import contextlib
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from grape.core.errors import DataError, SettingsError
from grape.core.files import read_json, write_bytes, write_json
from grape.core.reading import parse_json, read_file
from grape.policies.kinds import FACTS_FILE, find_parts, recognize_checkpoint
from grape.policies.openvla.config import OpenVLAConfig
from grape.policies.openvla.model import OpenVLA
from grape.policies.openvla.precision import quantize_layers, quantized_names
from grape.policies.tensor_files import save_tensors

__all__ = [
    "FACTS_FILE",
    "SHARD_BYTES",
    "SIDE_FILES",
    "CheckpointFiles",
    "check_parts",
    "check_weights_file",
    "empty_model",
    "load_weights",
    "read_files",
    "write_files",
]

SIDE_FILES = (
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "configuration_prismatic.py",
    "modeling_prismatic.py",
    "processing_prismatic.py",
)
"""Files that travel with the weights unread or verbatim. The Python files are for other programs; never run here."""

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_CONSTANT = "rotary_emb.inv_freq"  # stored by old versions of transformers
_STORED_TYPES = frozenset({"BF16", "F16", "F32", "F64"})
_MOST_LISTED = 40
_AGAIN = "Copy or download this file again."

SHARD_BYTES = 5 * 10**9
"""Largest size of one file of weights, as the published checkpoints have it."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, eq=False)
class CheckpointFiles:
    """Everything of a checkpoint but its weights.

    Attributes:
        config: The parsed ``config.json``, with the statistics of ``dataset_statistics.json`` added.
        side: Content of the side files by name.
    """

    config: OpenVLAConfig
    side: Mapping[str, bytes]

    def with_config(self, config: OpenVLAConfig) -> "CheckpointFiles":
        """The same side files with another configuration."""
        return CheckpointFiles(config, self.side)

    def side_json(self, name: str) -> Any:
        """A side file as JSON.

        Raises:
            DataError: It is missing or not JSON.
        """
        if name not in self.side:
            raise DataError(f"The checkpoint has no {name}.", _AGAIN)
        return parse_json(self.side[name], name, hint=_AGAIN)


def check_parts(names: Iterable[str]) -> None:
    """Refuse a checkpoint that keeps parts of its network in files of their own.

    OpenVLA-OFT (arXiv 2502.19645) saves action heads, projectors and what FiLM adds as ``NAME--STEPS_checkpoint.pt``
    beside weights that are named like OpenVLA's: read alone, these would act without their head.

    Args:
        names: Names of the checkpoint's files.

    Raises:
        SettingsError: There are such files.
    """
    parts = find_parts(names)
    if parts:
        kinds = ", ".join(part.replace("_", " ") for part in sorted(parts))
        files = sorted(name for files in parts.values() for name in files)
        raise SettingsError(
            f"This is a checkpoint of OpenVLA-OFT, not of OpenVLA: it has a separate {kinds} ({', '.join(files[:3])}).",
            "Without these files the rest of its weights does not know how to act. 'grape predict --preset NAME' opens "
            "checkpoints of OpenVLA-OFT.",
        )


def read_files(folder: Path, *, chunks: bool = False) -> CheckpointFiles:
    """Read everything but the weights.

    Args:
        folder: The checkpoint's folder.
        chunks: Whether a policy that decides in chunks is meant (OpenVLA-OFT), with parts in files of their own.

    Raises:
        SettingsError: The folder is no checkpoint, or one of another kind.
        DataError: A file is broken.
    """
    if not folder.is_dir():
        raise SettingsError(f"Policy folder {folder} does not exist.", "Check the path.")
    names = [entry.name for entry in folder.iterdir()]
    if not chunks:
        check_parts(names)
    if not (folder / "config.json").is_file():
        inside = [entry.name for entry in sorted(folder.iterdir()) if (entry / "config.json").is_file()]
        hint = f"Did you mean {folder / inside[0]}?" if inside else "A checkpoint folder holds config.json and weights."
        raise SettingsError(f"{folder} is not the folder of a policy: it has no config.json.", hint)
    data = read_json(folder / "config.json")
    if (folder / FACTS_FILE).is_file() and isinstance(data, dict) and "grape" not in data:
        data["grape"] = read_json(folder / FACTS_FILE)
    if not chunks and isinstance(data, dict) and data.get("model_type") == "openvla":
        kind = recognize_checkpoint(data, names, str(folder))
        if kind.name != "openvla":
            raise SettingsError(
                f"{folder} is a checkpoint of OpenVLA-OFT, not of OpenVLA: {kind.reason}.",
                "It decides in chunks: the verbs open it, and grape.policies.openvla_oft.loading.load_oft_policy does.",
            )
    config = OpenVLAConfig.from_json(data, str(folder / "config.json"))
    if (folder / "dataset_statistics.json").is_file():
        extra = read_json(folder / "dataset_statistics.json")
        if not isinstance(extra, dict):
            raise DataError(f"{folder / 'dataset_statistics.json'} holds no JSON object.", "Fetch it again.")
        config = config.with_norm_stats({**config.norm_stats, **extra})
    side = {name: read_file(folder / name) for name in SIDE_FILES if (folder / name).is_file()}
    return CheckpointFiles(config, side)


def empty_model(config: OpenVLAConfig, attention: str = "sdpa") -> OpenVLA:
    """The network without memory for its weights, to be filled by assignment."""
    with torch.device("meta"):
        return OpenVLA(config, attention)


def materialize_buffers(model: OpenVLA) -> None:
    """Give an empty model's rotary embedding, which no checkpoint stores, its values."""
    llama = model.language_model
    llama.model.rotary_emb = LlamaRotaryEmbedding(config=llama.config).to(model.device)


def load_weights(
    folder: Path,
    model: OpenVLA,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    *,
    four_bit: bool = False,
    without: Collection[str] = (),
) -> None:
    """Fill an empty model from a folder, one shard at a time, after all names, shapes and types were compared.

    Args:
        folder: The checkpoint's folder.
        model: The empty network (:func:`empty_model`).
        dtype: Type of the weights afterwards.
        device: Where they shall be.
        four_bit: Hold the linear layers of the language model's blocks in 4 bits (see ``quantized``).
        without: Submodules of the network whose weights are in files of their own.

    Raises:
        DataError: A file is missing or truncated, or names, shapes or types of weights do not fit.
    """
    shards = _shards(folder)
    due = {name: tensor for name, tensor in model.state_dict().items() if name.partition(".")[0] not in without}
    _compare(folder, shards, {name: tuple(tensor.shape) for name, tensor in due.items()})
    layers = quantized_names(int(model.vla_config.text["num_hidden_layers"])) if four_bit else frozenset[str]()
    place = torch.device(device)
    for shard in shards:
        tensors: dict[str, Tensor] = {}
        packed: dict[str, Tensor] = {}
        for name, tensor in _read_shard(shard):
            layer = name.removesuffix(".weight")
            if layer in layers:
                packed[layer] = tensor
            elif not name.endswith(_CONSTANT):
                tensors[name] = tensor.to(device=place, dtype=dtype)
        model.load_state_dict(tensors, strict=False, assign=True)
        if packed:
            quantize_layers(model, packed, place, dtype)
    materialize_buffers(model)


def _compare(folder: Path, shards: list[Path], expected_shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Names, shapes and types of all shards against the network's, from the files' headers alone."""
    shapes: dict[str, tuple[int, ...]] = {}
    problems: list[str] = []
    weight_map = _weight_map(folder)
    for shard in shards:
        header = _read_header(shard)
        promised = {name for name, file in weight_map.items() if file == shard.name}
        stored = {name for name, _, _ in header}
        problems += [f"{name} is not in {shard.name}, where the index says" for name in sorted(promised - stored)]
        problems += [
            f"{name} is in {shard.name}, the index says {weight_map[name]}"
            for name in sorted(stored & weight_map.keys() - promised)
        ]
        for name, shape, kind in header:
            if name.endswith(_CONSTANT):
                continue
            if name in shapes:
                problems.append(f"{name} is stored twice")
            elif name in expected_shapes and shape != expected_shapes[name]:
                problems.append(f"{name} is {shape}, not {expected_shapes[name]}")
            elif kind not in _STORED_TYPES:
                problems.append(f"{name} is stored as {kind}, not as floating-point numbers")
            shapes[name] = shape
    problems += [f"missing {name}" for name in sorted(expected_shapes.keys() - shapes.keys())]
    problems += [f"unexpected {name}" for name in sorted(shapes.keys() - expected_shapes.keys())]
    if problems:
        more = f"; and {len(problems) - _MOST_LISTED} more" if len(problems) > _MOST_LISTED else ""
        raise DataError(
            f"The weights in {folder} do not fit its config.json: {'; '.join(problems[:_MOST_LISTED])}{more}.",
            "Weights and config.json must come from the same checkpoint.",
        )


def _weight_map(folder: Path) -> Mapping[str, str]:
    """File of each tensor as the index says; empty where the weights are one file.

    One file beside an index is what counts, as in transformers: merging or fine-tuning writes it and leaves the base's
    shards lying there.
    """
    if (folder / _WEIGHTS).is_file() or not (folder / _INDEX).is_file():
        return {}
    index = read_json(folder / _INDEX, hint=_AGAIN)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    named = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not named or any(not isinstance(name, str) or Path(name).name != name for name in named):
        raise DataError(f"{folder / _INDEX} names no usable shards.", _AGAIN)
    return dict(weight_map or {})


def _shards(folder: Path) -> list[Path]:
    weight_map = _weight_map(folder)
    shards = [folder / name for name in sorted(set(weight_map.values()))] or [folder / _WEIGHTS]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        pickled = " (weights in .bin or .pt files are not read: they are pickles)" if any(folder.glob("*.bin")) else ""
        raise DataError(f"{folder} lacks its weights: {', '.join(missing)} not found{pickled}.", _AGAIN)
    return shards


def _read_shard(path: Path) -> Iterator[tuple[str, Tensor]]:
    with _opened(path) as handle:
        for name in handle.keys():  # noqa: SIM118 - not a mapping
            yield name, handle.get_tensor(name)


def _read_header(path: Path) -> list[tuple[str, tuple[int, ...], str]]:
    """Name, shape and stored type of each tensor."""
    with _opened(path) as handle:
        slices = [(name, handle.get_slice(name)) for name in handle.keys()]  # noqa: SIM118 - not a mapping
        return [(name, tuple(part.get_shape()), str(part.get_dtype())) for name, part in slices]


def check_weights_file(path: Path) -> None:
    """Refuse a file of weights that is truncated, or no safetensors file.

    Raises:
        DataError: Says so.
    """
    with _opened(path):
        pass


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as handle:
            yield handle
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"{path} is truncated or no safetensors file ({error}).", "The copy is incomplete: fetch this file again."
        ) from error


def write_files(
    folder: Path, files: CheckpointFiles, weights: Mapping[str, Tensor], shard_bytes: int = SHARD_BYTES
) -> None:
    """Write a checkpoint's files into an existing folder; see :func:`grape.core.atomic_folders.atomic_folder`.

    Args:
        folder: Where.
        files: Configuration and side files.
        weights: Tensors by published name; stored in the configuration's ``storage_dtype``. Asked for one by one.
        shard_bytes: Size from which on the weights are divided into several files.
    """
    write_json(folder / "config.json", files.config.to_json())
    write_json(folder / "dataset_statistics.json", dict(files.config.norm_stats))
    for name, content in sorted(files.side.items()):
        write_bytes(folder / name, content)
    _write_weights(folder, weights, _DTYPES[files.config.storage_dtype], shard_bytes)


def _write_weights(folder: Path, weights: Mapping[str, Tensor], dtype: torch.dtype, shard_bytes: int) -> None:
    shards: list[list[str]] = [[]]
    filled = total = 0
    for name in sorted(weights):
        size = weights[name].numel() * dtype.itemsize
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
        total += size
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = _WEIGHTS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {name: weights[name].detach().to(device="cpu", dtype=dtype).contiguous() for name in names}
        save_tensors(tensors, folder / file)
        shutil.copymode(folder / "config.json", folder / file)  # safetensors lets nobody else read its files
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        write_json(folder / _INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
