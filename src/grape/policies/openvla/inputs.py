"""What the network reads: a batch of normalised pictures and tokenised prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["PolicyInputs"]


@dataclass(frozen=True, eq=False)
class PolicyInputs:
    """A batch of encoded observations.

    Attributes:
        pixel_values_BCHW: Normalised pictures, float32; ``C`` is 3 channels a tower.
        prompt_ids: Token ids of each prompt, beginning with the begin-of-sequence token; lengths may differ.
    """

    pixel_values_BCHW: Tensor
    prompt_ids: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if self.pixel_values_BCHW.shape[0] != len(self.prompt_ids):
            raise ValueError(f"{self.pixel_values_BCHW.shape[0]} pictures with {len(self.prompt_ids)} prompts")

    def __len__(self) -> int:
        return len(self.prompt_ids)

    def slice(self, start: int, stop: int) -> "PolicyInputs":
        """Rows ``start`` to ``stop`` (exclusive); shares memory."""
        return PolicyInputs(self.pixel_values_BCHW[start:stop], self.prompt_ids[start:stop])

    def select(self, rows: Sequence[int]) -> "PolicyInputs":
        """The given rows, in that order."""
        index = torch.as_tensor(list(rows), dtype=torch.long)
        return PolicyInputs(self.pixel_values_BCHW[index], tuple(self.prompt_ids[row] for row in rows))

    @staticmethod
    def cat(parts: Sequence["PolicyInputs"]) -> "PolicyInputs":
        """One batch out of several."""
        pixels = torch.cat([part.pixel_values_BCHW for part in parts])
        return PolicyInputs(pixels, tuple(ids for part in parts for ids in part.prompt_ids))
