"""A tiny differentiable policy with the signatures that the trainer needs, and random updates over it."""

import torch
from torch import Tensor, nn

from grape.training.gradients import Comparisons

TOKENS = 7
VOCABULARY = 16


class TinyActionModel(nn.Module):
    """Images ``(B, 3, 4, 4)`` and teacher-forced tokens to log-probabilities, with interactions between tokens."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.vision = nn.Linear(48, width)
        self.token = nn.Embedding(VOCABULARY, width)
        self.hidden = nn.Linear(width, width)
        self.head = nn.Linear(width, VOCABULARY)
        self.unused = nn.Linear(2, 2)

    def action_logits(self, pixels_BCHW: Tensor, tokens_BD: Tensor) -> Tensor:
        seen_BX = self.vision(pixels_BCHW.flatten(1))
        before_BDX = self.token(tokens_BD).cumsum(1) - self.token(tokens_BD)
        return self.head(torch.tanh(self.hidden(torch.tanh(seen_BX[:, None] + before_BDX))))

    def action_logps(self, pixels_BCHW: Tensor, tokens_BD: Tensor) -> Tensor:
        logps_BDV = torch.log_softmax(self.action_logits(pixels_BCHW, tokens_BD), -1)
        return logps_BDV.gather(-1, tokens_BD[..., None]).squeeze(-1)


def random_update(lengths: list[tuple[int, int]], seed: int = 0) -> tuple[Tensor, Tensor, Comparisons]:
    """Images, tokens and comparisons of pairs with these lengths."""
    generator = torch.Generator().manual_seed(seed)
    count = sum(map(sum, lengths))
    pixels = torch.randn(count, 3, 4, 4, generator=generator)
    tokens = torch.randint(0, VOCABULARY, (count, TOKENS), generator=generator)
    chosen, rejected, position = [], [], 0
    for first, second in lengths:
        chosen.append(torch.arange(position, position + first))
        rejected.append(torch.arange(position + first, position + first + second))
        position += first + second
    references = -20 * torch.rand(2, len(lengths), generator=generator, dtype=torch.float64)
    steps_w, steps_l = (torch.tensor([float(len(side)) for side in sides]) for sides in (chosen, rejected))
    return pixels, tokens, Comparisons(count, chosen, rejected, references[0] * steps_w, references[1] * steps_l)
