"""Krippendorff's alpha: agreement of several raters beyond chance (Krippendorff 2019, Content Analysis, chapter 12).

``alpha = 1 - D_o / D_e``: the disagreement observed within couples over that expected if all given values were
shuffled. 1 is perfect agreement, 0 that of chance; below 0 raters contradict one another. Values may be missing.
Krippendorff asks for 0.8, and 0.667 where only tentative conclusions are drawn.

A couple's two sides have no order of their own, so each couple counts in both: otherwise alpha would depend on which
side happens to be called first. The values are -1, 0 (tie) and 1, and their distance is squared; with both orders
counted Krippendorff's ordinal distance is proportional to it, so that alpha is the ordinal one, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.evaluation.statistics import cluster_codes

__all__ = ["FEWEST_STATES", "Reliability", "krippendorff_alpha", "reliability_of"]

Floats = npt.NDArray[np.float64]

FEWEST_STATES = 5
"""Initial states below which no interval is given."""

_DRAWS = 1000
_ORDERS = np.array([-1.0, 0.0, 1.0])


@dataclass(frozen=True)
class Reliability:
    """Alpha of several sources.

    Attributes:
        alpha: Krippendorff's alpha; None where no couple has two values, or all values are ties.
        interval: 95 % bootstrap interval over initial states; None with fewer than :data:`FEWEST_STATES`.
        couples: Couples with at least two values.
        states: Initial states these are from.
    """

    alpha: float | None
    interval: tuple[float, float] | None
    couples: int
    states: int

    def to_dict(self) -> dict[str, Any]:
        """JSON value."""
        interval = None if self.interval is None else list(self.interval)
        return {"alpha": self.alpha, "interval": interval, "couples": self.couples, "states": self.states}


def krippendorff_alpha(values: npt.ArrayLike) -> float | None:
    """Alpha of numeric values under the squared distance.

    Args:
        values: One row a unit, one column a rater, NaN where there is no value, ``(U, R)``.

    Returns:
        Alpha; None where no unit has two values, or no two values differ.
    """
    table = np.asarray(values, dtype=np.float64)
    categories = np.unique(table[np.isfinite(table)])
    alphas = _alphas(_coincidences(table, categories).sum(axis=0)[None], categories)
    return None if np.isnan(alphas[0]) else float(alphas[0])


def reliability_of(orders: Floats, states: Sequence[int], seed: int = 0) -> Reliability:
    """Alpha of sources that order couples.

    Args:
        orders: Order of each couple by each source, 1, 0 or -1; NaN where it is not known, ``(C, R)``.
        states: Initial state of each couple, ``(C,)``.
        seed: Of the bootstrap.
    """
    several = np.isfinite(orders).sum(axis=1) > 1
    if not several.any():
        return Reliability(None, None, 0, 0)
    matrices = _coincidences(orders[several], _ORDERS)
    matrices = (matrices + matrices[:, ::-1, ::-1]) / 2.0
    codes = cluster_codes([state for state, chosen in zip(states, several, strict=True) if chosen])
    n_states = int(codes.max()) + 1
    of_states = np.zeros((n_states, 3, 3))
    np.add.at(of_states, codes, matrices)
    alpha = _alphas(of_states.sum(axis=0)[None], _ORDERS)[0]
    interval = None
    if n_states >= FEWEST_STATES and np.isfinite(alpha):
        rng = np.random.default_rng(seed)
        weights = rng.multinomial(n_states, np.full(n_states, 1 / n_states), _DRAWS).astype(np.float64)
        draws = _alphas(np.tensordot(weights, of_states, axes=1), _ORDERS)
        low, high = np.nanquantile(draws, (0.025, 0.975))
        interval = (float(low), float(high))
    return Reliability(None if np.isnan(alpha) else float(alpha), interval, int(several.sum()), n_states)


def _coincidences(table: Floats, categories: Floats) -> Floats:
    """Coincidence matrix of each unit, ``(U, K, K)``: pairs of values, each unit counting as often as it has values."""
    counts = (table[:, :, None] == categories).sum(axis=1).astype(np.float64)
    number = counts.sum(axis=1)
    pairs = counts[:, :, None] * counts[:, None, :]
    diagonal = np.arange(len(categories))
    pairs[:, diagonal, diagonal] -= counts
    coincidences: Floats = np.where(number > 1, 1.0 / np.maximum(number - 1.0, 1.0), 0.0)[:, None, None] * pairs
    return coincidences


def _alphas(coincidences: Floats, categories: Floats) -> Floats:
    """Alpha of each of several coincidence matrices, ``(B,)``; NaN where it is not defined."""
    distances = (categories[:, None] - categories[None, :]) ** 2
    of_value = coincidences.sum(axis=2)
    number = of_value.sum(axis=1)
    observed = (coincidences * distances).sum(axis=(1, 2))
    expected = np.einsum("bc,ck,bk->b", of_value, distances, of_value) / np.maximum(number - 1.0, 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        alphas: Floats = np.where(expected > 0, 1.0 - observed / expected, np.nan)
    return alphas
