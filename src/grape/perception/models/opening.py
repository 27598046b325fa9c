"""Opening published weights, and images as networks read them.

Weights are given by folder or name on the hub: of the right kind, complete, safetensors only. Images are resized,
scaled to [0, 1] and normalized as on ImageNet.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from grape.core.errors import DataError, GrapeError, PolicyError, SettingsError
from grape.core.reading import MAX_DOCUMENT_BYTES, open_file, parse_json, read_file

__all__ = [
    "check_folder",
    "load_torch",
    "load_transformers",
    "model_errors",
    "normalized",
    "open_model",
    "open_tokenizer",
    "shorter_side",
    "split_name",
]

_READ = (".json", ".txt", ".safetensors", ".model")
_PARSED = ("config.json", "model.safetensors.index.json")
_BLOCKS = ("layers", "depths", "blocks", "stage")
_MOST_BLOCKS = 2_048
_MOST_NUMBER = 250_000
_LARGEST_LENGTH = 10**31
"""Tokenizers without a longest text say 10^30."""
_TOKEN_MARKS = frozenset({"lstrip", "normalized", "rstrip", "single_word"})
_TOKEN_FIELDS = frozenset({"content", "id", "lstrip", "normalized", "rstrip", "single_word", "special", "__type"})

_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def normalized(
    image: npt.NDArray[np.uint8], height: int, width: int, *, cubic: bool = False
) -> npt.NDArray[np.float32]:
    """The image stretched to a size and normalized.

    Args:
        image: RGB, uint8 ``(H, W, 3)``.
        height: Pixels.
        width: Pixels.
        cubic: Bicubic instead of bilinear resizing; both with antialiasing.

    Returns:
        float32 ``(1, 3, height, width)``.
    """
    kernel = Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR
    resized = np.asarray(Image.fromarray(image).resize((width, height), kernel), dtype=np.float32) / np.float32(255.0)
    return np.ascontiguousarray(((resized - _MEAN) / _STD).transpose(2, 0, 1))[None]


def shorter_side(height: int, width: int, shortest: int, longest: int) -> tuple[int, int]:
    """Height and width of an image whose shorter side becomes ``shortest`` unless the other passes ``longest``."""
    scale = min(shortest / min(height, width), longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


_EXTRA = "pip install 'grape-vla[perception]'"


def load_torch() -> ModuleType:
    """The module ``torch``.

    Raises:
        SettingsError: It is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise SettingsError(f"Models of perception need PyTorch ({error}).", _EXTRA) from error
    return torch


def load_transformers() -> Any:
    """The module ``transformers``.

    Raises:
        SettingsError: It is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise SettingsError(f"Models of perception need transformers ({error}).", _EXTRA) from error
    return transformers


def split_name(name: str) -> tuple[str, str | None]:
    """``organization/name@revision`` as name and revision; a folder's path has no revision."""
    repository, mark, revision = name.rpartition("@")
    return (repository, revision) if mark and "/" not in revision and repository else (name, None)


def check_folder(folder: Path) -> None:
    """Refuse a folder in whose files a library could hang or exhaust memory; a missing folder is accepted.

    Raises:
        DataError: A file is no regular file, or a document is too large or no JSON.
    """
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.suffix in _READ:
            with open_file(path, max_bytes=None if path.suffix == ".safetensors" else MAX_DOCUMENT_BYTES):
                pass
        if path.name in _PARSED and not isinstance(parse_json(read_file(path), str(path)), dict):
            raise DataError(f"{path} holds no JSON object.", "Download the model again.")


def open_tokenizer(kind: type[Any], name: str) -> Any:
    """The tokenizer beside a model, after :func:`open_model` has looked at its folder.

    Raises:
        SettingsError: It cannot be used.
        DataError: Its settings are malformed.
    """
    repository, revision = split_name(name)
    try:
        for file in ("tokenizer_config.json", "tokenizer.json"):
            _check_added_tokens(Path(repository) / file)
        return kind.from_pretrained(repository, revision=revision)
    except GrapeError:
        raise
    except BaseException as error:
        # The library in Rust panics on what contradicts itself, with what is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise SettingsError(f"The tokenizer of {name} cannot be opened: {first_line}", "Download it again.") from error


def _check_added_tokens(path: Path) -> None:
    """Refuse tokens with fields that the library in Rust does not know: it prints their names as they are.

    Raises:
        DataError: Names one, or says that the file is malformed.
    """
    if not path.is_file():
        return
    settings = parse_json(read_file(path), str(path), allow_nonfinite=True, max_integer=_LARGEST_LENGTH)
    tokens = [settings]
    while tokens:
        value = tokens.pop()
        if isinstance(value, dict):
            is_token = bool(value.keys() & _TOKEN_MARKS) or ("content" in value and "pattern" not in value)
            unknown = sorted(value.keys() - _TOKEN_FIELDS)
            if is_token and unknown:
                raise DataError(f"{path}: a token has an unknown field {unknown[0]!r}.", "Download the model again.")
            tokens += value.values()
        elif isinstance(value, list):
            tokens += value


@contextlib.contextmanager
def model_errors(name: str) -> Iterator[None]:
    """Context in which exceptions of transformers and torch become a ModelError.

    Raises:
        PolicyError: The model cannot compute an answer.
    """
    try:
        yield
    except (GrapeError, MemoryError):
        raise
    except Exception as error:  # what a configuration contradicts fails anywhere within transformers and torch
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise PolicyError(f"The model {name} cannot be computed: {first_line}", "Download the model again.") from error


def _check_numbers(config: Any) -> None:
    """Refuse whole numbers that no published model of these kinds comes near; networks of them take hours to build.

    Raises:
        ValueError: Names the number.
    """
    for name, value in config.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                _check_numbers(item)
            most = _MOST_BLOCKS if any(part in name for part in _BLOCKS) else _MOST_NUMBER
            if isinstance(item, int) and not isinstance(item, bool) and not -_MOST_NUMBER <= item <= most:
                raise ValueError(f"its configuration has {name} {item:,}; at most {most:,} can be used")


def open_model(kind: type[Any], name: str, device: str) -> Any:
    """Open a model for inference in float32.

    The class is named by us and not by the folder, so nothing of the folder's code can run; weights that are no
    safetensors (pickles) are not read.

    Args:
        kind: The model's class in transformers.
        name: Folder, or ``organization/name`` or ``organization/name@revision`` on the hub.
        device: ``cpu``, ``cuda``, ...

    Raises:
        SettingsError: There is no such model, it is of another kind, or the device cannot be used.
        DataError: A file of a folder is no regular file, or too large.
        PolicyError: Its weights are incomplete.
    """
    torch = load_torch()
    log = load_transformers().utils.logging
    log.disable_progress_bar()
    repository, revision = split_name(name)
    check_folder(Path(repository))
    verbosity = log.get_verbosity()
    log.set_verbosity_error()  # its table of missing weights has a line for each; what is missing is said below
    try:
        facts, _ = kind.config_class.get_config_dict(repository, revision=revision)
        model_type, expected_type = facts.get("model_type"), kind.config_class.model_type
        if model_type != expected_type:
            raise SettingsError(
                f"{name} holds a model of type {model_type!r}, not {expected_type!r}.", "Check the name."
            )
        _check_numbers(facts)
        model, report = kind.from_pretrained(
            repository, revision=revision, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except GrapeError:
        raise
    except Exception as error:  # what a configuration contradicts fails anywhere within transformers and torch
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise SettingsError(
            f"The model {name} cannot be opened: {first_line}",
            "Give a folder with config.json and model.safetensors, or a name on the Hugging Face hub (HF_HOME says "
            "where downloads are kept).",
        ) from error
    finally:
        log.set_verbosity(verbosity)
    missing = sorted(report["missing_keys"])
    if missing:
        raise PolicyError(
            f"The weights of {name} lack {len(missing)} tensors, e.g. {missing[0]}; they would be random.",
            "Download the model again.",
        )
    try:
        return model.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f"Device {device!r} cannot be used: {error}.", "Try cpu.") from error
