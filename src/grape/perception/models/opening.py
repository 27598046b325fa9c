"""Opening published weights, and images as networks read them.

Weights are given by folder or name on the hub: of the right kind, complete, safetensors only. Images are resized,
scaled to [0, 1] and normalised as on ImageNet.
"""

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from grape.core.errors import PolicyError, SettingsError

__all__ = ["load_torch", "load_transformers", "normalised", "open_model", "shorter_side", "split_name"]

_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def normalised(
    image: npt.NDArray[np.uint8], height: int, width: int, *, cubic: bool = False
) -> npt.NDArray[np.float32]:
    """The image stretched to a size and normalised.

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
    """``organisation/name@revision`` as name and revision; a folder's path has no revision."""
    repository, mark, revision = name.rpartition("@")
    return (repository, revision) if mark and "/" not in revision and repository else (name, None)


def open_model(kind: type[Any], name: str, device: str) -> Any:
    """A model ready to be asked, in float32.

    The class is named by us and not by the folder, so nothing of the folder's code can run; weights that are no
    safetensors (pickles) are not read.

    Args:
        kind: The model's class in transformers.
        name: Folder, or ``organisation/name`` or ``organisation/name@revision`` on the hub.
        device: ``cpu``, ``cuda``, ...

    Raises:
        SettingsError: There is no such model, it is of another kind, or the device cannot be used.
        PolicyError: Its weights are incomplete.
    """
    torch = load_torch()
    load_transformers().utils.logging.disable_progress_bar()
    repository, revision = split_name(name)
    try:
        facts, _ = kind.config_class.get_config_dict(repository, revision=revision)
        found, wanted = facts.get("model_type"), kind.config_class.model_type
        if found != wanted:
            raise SettingsError(f"{name} holds a model of type {found!r}, not {wanted!r}.", "Check the name.")
        model, report = kind.from_pretrained(
            repository, revision=revision, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise SettingsError(
            f"The model {name} cannot be opened: {first_line}",
            "Give a folder with config.json and model.safetensors, or a name on the Hugging Face hub (HF_HOME says "
            "where downloads are kept).",
        ) from error
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
