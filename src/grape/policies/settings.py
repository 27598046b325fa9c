"""How a verb opens a policy: settings that predict, collect, evaluate and training share. No PyTorch here."""

from dataclasses import dataclass
from typing import Any, Literal

from grape.core.settings import setting

__all__ = ["PolicySettings", "PrecisionSettings", "crop_of", "opening_arguments"]

_GROUP = "Policy and hardware"


@dataclass(frozen=True)
class PrecisionSettings:
    """Where and how precisely a network computes.

    Attributes:
        device: Where to compute: auto takes a GPU if there is one, else cpu; or cuda, cuda:1.
        dtype: What weights are held and computed in: auto is float32 on a CPU, elsewhere as stored. Adapters are
            float32 always.
        attention: Attention of the language model: sdpa, flash-attention-2 (needs flash-attn and a GPU) or eager.
        load_in_4bit: Hold the language model in 4 bits; needs bitsandbytes and a GPU.
    """

    device: str = setting("auto", group=_GROUP, identity=False, common=True)
    dtype: Literal["auto", "float32", "bfloat16"] = setting("auto", group=_GROUP)
    attention: Literal["sdpa", "flash-attention-2", "eager"] = setting("sdpa", group=_GROUP)
    load_in_4bit: bool = setting(False, group=_GROUP)


@dataclass(frozen=True)
class PolicySettings(PrecisionSettings):
    """How a checkpoint is opened.

    Attributes:
        unnorm_key: Normalization statistics to use, for checkpoints that hold several; empty picks the only one.
        center_crop: Crop 90 % of the image's area from the middle before the policy sees it, as policies trained with
            random crops need (OpenVLA's LIBERO fine-tunes do): yes, no, or auto for what the checkpoint says (nothing
            means no).
    """

    unnorm_key: str = setting("", group=_GROUP, common=True)
    center_crop: Literal["auto", "yes", "no"] = setting("auto", group=_GROUP, common=True)


def crop_of(center_crop: str) -> bool | None:
    """Whether images are cropped, as loaders of policies take it; None for what the checkpoint says."""
    return None if center_crop == "auto" else center_crop == "yes"


def opening_arguments(settings: PolicySettings) -> dict[str, Any]:
    """Keyword arguments of :func:`~grape.policies.openvla.load_policy`."""
    return {
        "unnorm_key": settings.unnorm_key or None,
        "device": settings.device,
        "dtype": settings.dtype,
        "attention": settings.attention,
        "load_in_4bit": settings.load_in_4bit,
        "center_crop": crop_of(settings.center_crop),
    }
