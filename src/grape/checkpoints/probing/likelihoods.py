"""Likelihoods of demonstrations under one reading of a checkpoint, and intervals of their means and differences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Measured", "Statistics"]

Floats = npt.NDArray[np.float64]

_FEWEST_EPISODES = 10
"""With fewer episodes the bootstrap over them is far too sure of itself: decisions are resampled then."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Scores of all decisions under one reading, sums over the actions within the episode.

    Attributes:
        nll_each: Negative log-likelihood of each decision, nats.
        tokens_each: Tokens that it is of.
        hits_each: Tokens that are the likeliest of the window.
        first_nll_each: Negative log-likelihood of the first action alone.
        first_hits_each: Tokens of the first action that are the likeliest.
        dim: Tokens an action.
        footings: By name, e.g. ``"vocabulary, temperature 1"``: negative log-likelihood of each decision.
        outside: Share of places in which the likeliest id of the vocabulary is no action token.
        by_action: Mean negative log-likelihood a token, by position in the chunk.
    """

    nll_each: Floats
    tokens_each: Floats
    hits_each: Floats
    first_nll_each: Floats
    first_hits_each: Floats
    dim: int
    footings: Mapping[str, Floats]
    outside: float
    by_action: Sequence[float]

    @property
    def nll(self) -> float:
        """Mean negative log-likelihood, nats a token."""
        return float(self.nll_each.sum() / self.tokens_each.sum())

    @property
    def accuracy(self) -> float:
        """Share of tokens that are the likeliest of the window."""
        return float(self.hits_each.sum() / self.tokens_each.sum())

    @property
    def first(self) -> "Measured":
        """The same of the first action of each decision alone."""
        tokens_each = np.full(len(self.nll_each), float(self.dim))
        return Measured(
            self.first_nll_each,
            tokens_each,
            self.first_hits_each,
            self.first_nll_each,
            self.first_hits_each,
            self.dim,
            {},
            self.outside,
            self.by_action[:1],
        )

    @staticmethod
    def of(rows: Sequence[Any], dim: int) -> "Measured":
        """Sums of decisions' scores (``nll`` and ``hits`` by action, ``footings``, ``outside``)."""
        longest = max(len(row.nll) for row in rows)
        tokens_each = np.array([len(row.nll) * dim for row in rows], np.float64)
        return Measured(
            nll_each=np.array([math.fsum(row.nll) for row in rows]),
            tokens_each=tokens_each,
            hits_each=np.array([sum(row.hits) for row in rows], np.float64),
            first_nll_each=np.array([row.nll[0] for row in rows]),
            first_hits_each=np.array([row.hits[0] for row in rows], np.float64),
            dim=dim,
            footings={name: np.array([row.footings[name] for row in rows]) for name in rows[0].footings},
            outside=float(sum(row.outside for row in rows) / tokens_each.sum()),
            by_action=[
                float(np.mean([row.nll[place] for row in rows if len(row.nll) > place])) / dim
                for place in range(longest)
            ],
        )


@dataclass(frozen=True, eq=False)
class Statistics:
    """Intervals of means a token by the bootstrap over episodes, or over decisions where there are few episodes.

    Args:
        episodes: Episode of each decision.
        confidence: Two-sided level in (0, 1).
        draws: Bootstrap samples.
        seed: Seed of the resampling.
    """

    episodes: Sequence[str]
    confidence: float = 0.95
    draws: int = 4_000
    seed: int = 0
    _few: bool = field(init=False)
    _codes: npt.NDArray[np.intp] = field(init=False)

    def __post_init__(self) -> None:
        numbers = {name: number for number, name in enumerate(dict.fromkeys(self.episodes))}
        object.__setattr__(self, "_few", len(numbers) < _FEWEST_EPISODES)
        codes = [number if self._few else numbers[name] for number, name in enumerate(self.episodes)]
        object.__setattr__(self, "_codes", np.array(codes))

    @property
    def method(self) -> str:
        """What was resampled, for people."""
        units = f"decisions of fewer than {_FEWEST_EPISODES} episodes" if self._few else "episodes"
        return f"{100 * self.confidence:g} % bootstrap over {units}"

    def interval(self, sums: Floats, counts: Floats) -> tuple[float, float]:
        """Interval of a mean a token."""
        from grape.evaluation.bootstrap import pooled_mean_interval  # scipy, which help pages do without

        unit_sums, unit_counts = (np.bincount(self._codes, weights=values) for values in (sums, counts))
        return pooled_mean_interval(unit_sums, unit_counts, self.confidence, draws=self.draws, seed=self.seed)

    def difference(self, one: Measured, other: Measured) -> tuple[float, tuple[float, float]]:
        """How much less likely ``one`` makes the demonstrations than ``other``, nats a token, with its interval.

        Both are compared decision by decision on the same tokens; on those of the first action where one of them has
        no others.
        """
        if not np.array_equal(one.tokens_each, other.tokens_each):
            one, other = one.first, other.first
        return self.excess(one.nll_each - other.nll_each, one.tokens_each)

    def excess(self, sums: Floats, counts: Floats) -> tuple[float, tuple[float, float]]:
        """A mean a token with its interval."""
        return float(sums.sum() / counts.sum()), self.interval(sums, counts)
