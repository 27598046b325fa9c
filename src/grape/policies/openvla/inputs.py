"""What the network reads: a batch of normalised images (or their features) and tokenised prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["PolicyInputs"]


_Rows = TypeVar("_Rows", slice, Tensor)


@dataclass(frozen=True, eq=False)
class PolicyInputs:
    """A batch of encoded observations: either images or what the vision towers make of them.

    Attributes:
        pixel_values_BCHW: Normalised images, float32; ``C`` is 3 channels a tower. None where features are given.
        prompt_ids: Token ids of each prompt, beginning with the begin-of-sequence token; lengths may differ.
        features_BNC: Outputs of the vision towers (``OpenVLA.image_features``), where they were computed before:
            frozen towers need not run again.
    """

    pixel_values_BCHW: Tensor | None
    prompt_ids: tuple[tuple[int, ...], ...]
    features_BNC: Tensor | None = None

    def __post_init__(self) -> None:
        images = self.pixel_values_BCHW if self.features_BNC is None else self.features_BNC
        if images is None or (self.pixel_values_BCHW is not None and self.features_BNC is not None):
            raise ValueError("either images or features are needed")
        if images.shape[0] != len(self.prompt_ids):
            raise ValueError(f"{images.shape[0]} images with {len(self.prompt_ids)} prompts")

    def __len__(self) -> int:
        return len(self.prompt_ids)

    def slice(self, start: int, stop: int) -> "PolicyInputs":
        """Rows ``start`` to ``stop`` (exclusive); shares memory."""
        return self._rows(slice(start, stop), self.prompt_ids[start:stop])

    def select(self, rows: Sequence[int]) -> "PolicyInputs":
        """The given rows, in that order."""
        index = torch.as_tensor(list(rows), dtype=torch.long)
        return self._rows(index, tuple(self.prompt_ids[row] for row in rows))

    def _rows(self, index: _Rows, prompt_ids: tuple[tuple[int, ...], ...]) -> "PolicyInputs":
        return PolicyInputs(
            None if self.pixel_values_BCHW is None else self.pixel_values_BCHW[index],
            prompt_ids,
            None if self.features_BNC is None else self.features_BNC[index],
        )

    @staticmethod
    def cat(parts: Sequence["PolicyInputs"]) -> "PolicyInputs":
        """One batch out of several, all with images or all with features."""
        pixels = [part.pixel_values_BCHW for part in parts if part.pixel_values_BCHW is not None]
        features = [part.features_BNC for part in parts if part.features_BNC is not None]
        return PolicyInputs(
            torch.cat(pixels) if pixels else None,
            tuple(ids for part in parts for ids in part.prompt_ids),
            torch.cat(features) if features else None,
        )
