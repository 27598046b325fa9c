"""Actions as tokens: bins on [-1, 1], one token a bin, counted down from the end of the vocabulary.

With ``n`` bins there are ``n`` edges ``linspace(-1, 1, n)`` and, as published, only ``n - 1`` intervals between them.
``digitize`` gives bins 1..n; bin ``n`` holds the value +1 alone and decodes like bin ``n - 1``. Token ids outside the
action range clip on decoding.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ActionTokenizer"]

FloatArray = npt.NDArray[np.floating[Any]]


class ActionTokenizer:
    """Between normalised actions and token ids (OpenVLA, arXiv 2406.09246, section 3.2).

    Args:
        text_vocab: Number of ids that counting starts from; 32000 published.
        bins: Number of bin edges; 256 published.
    """

    def __init__(self, text_vocab: int, bins: int) -> None:
        self.text_vocab = text_vocab
        self.bins = bins
        self.edges = np.linspace(-1.0, 1.0, bins)
        self.centers = (self.edges[:-1] + self.edges[1:]) / 2.0

    @property
    def token_ids(self) -> npt.NDArray[np.int64]:
        """Id of bin 1, 2, ... ``bins``, int64 ``(bins,)``."""
        return self.text_vocab - np.arange(1, self.bins + 1)

    def encode(self, normalised: FloatArray) -> npt.NDArray[np.int64]:
        """Token ids of normalised values; values beyond [-1, 1] are clipped. Any shape."""
        return self.text_vocab - np.digitize(np.clip(normalised, -1.0, 1.0), self.edges)

    def decode(self, tokens: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float64]:
        """Bin centres of token ids, float64; ids outside the action range clip. Any shape."""
        number = np.clip(self.text_vocab - np.asarray(tokens, dtype=np.int64) - 1, 0, self.bins - 2)
        return self.centers[number]

    def soft_targets(self, normalised: FloatArray, width_bins: float) -> npt.NDArray[np.float32]:
        """Target distribution over the bins around a value.

        Args:
            normalised: Values, any shape ``(...)``; clipped to [-1, 1].
            width_bins: Standard deviation of the Gaussian in widths of a bin; 0 puts all mass on the token of
                :meth:`encode`. Bin ``bins`` gets no mass otherwise, because it decodes like its neighbour.

        Returns:
            float32 ``(..., bins)``, each row summing to 1, in the order of :attr:`token_ids`.
        """
        clipped = np.clip(np.asarray(normalised, dtype=np.float64), -1.0, 1.0)
        if width_bins <= 0.0:
            hot = self.text_vocab - self.encode(clipped) - 1
            return np.asarray(np.arange(self.bins) == hot[..., None], dtype=np.float32)
        step = 2.0 / (self.bins - 1)
        distance = (clipped[..., None] - self.centers) / (step * width_bins)
        nearest = np.square(distance).min(axis=-1, keepdims=True)  # keeps narrow widths from underflowing to 0/0
        weight = np.exp(-0.5 * (np.square(distance) - nearest))
        target = np.zeros((*clipped.shape, self.bins), dtype=np.float32)
        target[..., :-1] = weight / weight.sum(axis=-1, keepdims=True)
        return target
