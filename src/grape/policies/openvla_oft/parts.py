"""Parts of OpenVLA-OFT that are kept in files of their own: the projector of the robot's state, the L1 action head.

Names of weights are the published ones; the prefix ``module.`` that distributed training leaves is dropped.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grape.core.errors import DataError
from grape.policies.openvla.adapters import MergedWeights
from grape.policies.openvla.proprio import ProprioProjector

__all__ = ["L1ActionHead", "load_l1_head", "load_proprio_projector", "save_merged_part", "save_part"]

_MOST_BYTES = 4 * 10**9
_MOST_BLOCKS = 64
_AGAIN = "Copy or download this file again."
_BLOCK = re.compile(r"model\.mlp_resnet_blocks\.(\d+)\.")

_Part = TypeVar("_Part", bound=nn.Module)


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ffn = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x + self.ffn(x))


class _ResidualMlp(nn.Module):
    def __init__(self, blocks: int, width_in: int, width: int, width_out: int) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(width_in)
        self.fc1 = nn.Linear(width_in, width)
        self.mlp_resnet_blocks = nn.ModuleList(_ResidualBlock(width) for _ in range(blocks))
        self.layer_norm2 = nn.LayerNorm(width)
        self.fc2 = nn.Linear(width, width_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.fc1(self.layer_norm1(x)))
        for block in self.mlp_resnet_blocks:
            x = block(x)
        return cast(Tensor, self.fc2(self.layer_norm2(x)))


class L1ActionHead(nn.Module):
    """Regression of a chunk from the hidden states that would give its tokens (arXiv 2502.19645, section IV).

    Args:
        blocks: Number of residual blocks; published 2.
        hidden: Width of the language model.
        width: Width of the blocks.
        action_dim: Dimensions ``D`` of an action.
    """

    def __init__(self, blocks: int, hidden: int, width: int, action_dim: int) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.model = _ResidualMlp(blocks, hidden * action_dim, width, action_dim)

    def forward(self, hidden_BTH: Tensor) -> Tensor:
        """Normalized actions ``(B, K, D)``, not clipped, of hidden states ``(B, K * D, hidden)``."""
        batch, rows, hidden = hidden_BTH.shape
        return cast(Tensor, self.model(hidden_BTH.reshape(batch, rows // self.action_dim, self.action_dim * hidden)))


def load_proprio_projector(path: Path, hidden: int) -> ProprioProjector:
    """Read the projector of the robot's state.

    Args:
        path: The file.
        hidden: Width of the language model.

    Raises:
        DataError: The file is damaged, or its weights are not those of such a projector.
    """
    weights = _read(path)
    first = weights.get("fc1.weight")
    if first is None or first.ndim != 2 or not first.numel():
        raise DataError(f"{path} holds no projector of the robot's state: it lacks fc1.weight.", _AGAIN)
    with torch.device("meta"):
        projector = ProprioProjector(int(first.shape[1]), hidden)
    return _fill(projector, weights, path)


def load_l1_head(path: Path, hidden: int) -> L1ActionHead:
    """Read an L1 regression head.

    Args:
        path: The file.
        hidden: Width of the language model.

    Raises:
        DataError: The file is damaged, or its weights are not those of such a head.
    """
    weights = _read(path)
    first, last = weights.get("model.fc1.weight"), weights.get("model.fc2.weight")
    if first is None or last is None or first.ndim != 2 or last.ndim != 2 or not last.numel():
        raise DataError(
            f"{path} is no L1 regression head: it lacks model.fc1.weight or model.fc2.weight.",
            "Diffusion heads are not supported." if any("noise" in name for name in weights) else _AGAIN,
        )
    blocks = len({match[1] for match in map(_BLOCK.match, weights) if match is not None})
    if blocks > _MOST_BLOCKS:
        raise DataError(f"{path} has {blocks} residual blocks; at most {_MOST_BLOCKS} are read.", _AGAIN)
    with torch.device("meta"):
        head = L1ActionHead(blocks, hidden, int(first.shape[0]), int(last.shape[0]))
    return _fill(head, weights, path)


def save_part(part: nn.Module, path: Path) -> None:
    """Write a part as the reference names its weights; adapters are merged into them."""
    torch.save({name: weight.detach().cpu() for name, weight in MergedWeights(part).items()}, path)


def save_merged_part(part: nn.Module, origin: Path, path: Path) -> None:
    """Write a part with adapters merged in, each weight rounded once, to the type that it is stored in.

    Args:
        part: The part, with adapters; its own weights become float32.
        origin: The file that it was read from.
        path: The file to write.

    Raises:
        DataError: The file cannot be read any more.
    """
    stored = _read(origin)
    own = [name for name in part.state_dict() if ".lora_" not in name]
    weights = {name: stored[name.replace(".base_layer.", ".")].float() for name in own}
    part.load_state_dict(weights, strict=False, assign=True)
    torch.save({name: weight.to(stored[name].dtype) for name, weight in MergedWeights(part).items()}, path)


def _read(path: Path) -> dict[str, Tensor]:
    """Weights of a file of PyTorch's, read without running anything that it contains."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path} has more than {_MOST_BYTES // 10**9} GB; a part of a network has less.", _AGAIN)
        weights: Any = torch.load(path, map_location="cpu", weights_only=True)
    except DataError:
        raise
    except Exception as error:  # the reader raises many kinds for a damaged file, and for code within it
        reason = (str(error).splitlines() or [type(error).__name__])[0].partition(". ")[0]
        raise DataError(f"{path} cannot be read as weights alone ({reason[:120]}).", _AGAIN) from error
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise DataError(f"{path} holds something else than weights by name.", _AGAIN)
    if any(value.untyped_storage().nbytes() < value.numel() * value.element_size() for value in weights.values()):
        raise DataError(f"{path} describes weights that are larger than what it holds.", _AGAIN)
    return {str(name).removeprefix("module."): value for name, value in weights.items()}


def _fill(part: _Part, weights: Mapping[str, Tensor], path: Path) -> _Part:
    due = {name: tuple(value.shape) for name, value in part.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    if due != given:
        wrong = sorted(name for name in due.keys() | given.keys() if due.get(name) != given.get(name))
        raise DataError(
            f"The weights in {path} do not fit the language model: "
            + "; ".join(f"{name} is {given.get(name, 'missing')}, not {due.get(name, 'known')}" for name in wrong[:4])
            + ".",
            "Both must come from the same checkpoint.",
        )
    part.load_state_dict({name: value.float().contiguous() for name, value in weights.items()}, assign=True)
    return part
