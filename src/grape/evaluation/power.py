"""Power analysis of comparisons: pairs needed, and the difference that a given number of pairs can detect.

Pairing pays: two policies evaluated on the same initial states differ on few of them, and only those carry noise.
A *pair* is one episode of each policy from the same initial state.
"""

import functools
import math

import numpy as np
import numpy.typing as npt
from scipy import special

__all__ = [
    "detectable_difference",
    "detectable_state_difference",
    "mcnemar_power",
    "paired_episodes_needed",
    "paired_states_needed",
]

# Above this many pairs the normal approximation is exact to well under a percent and enumeration only costs time.
_LARGEST_EXACT = 20_000


def mcnemar_power(pairs: int, difference: float, discordance: float, alpha: float = 0.05) -> float:
    """Probability that the two-sided exact McNemar test rejects, by summation over all outcomes.

    The number of differing pairs is binomial(``pairs``, ``discordance``); given it, the pairs in favor of the better
    policy are binomial with ``(discordance + difference) / (2 discordance)`` (Duffy 1984, Biometrics 40:1005).

    Args:
        pairs: Paired episodes, at most 20000 (beyond that, the normal approximation is used).
        difference: True difference of the success rates, in [-1, 1]; the sign does not matter.
        discordance: Share of pairs in which exactly one policy succeeds, in [abs(difference), 1].
        alpha: Significance level.
    """
    difference = abs(difference)
    _check(difference, discordance, alpha)
    if pairs < 1 or discordance == 0:
        return 0.0
    if pairs > _LARGEST_EXACT:
        reach = difference * math.sqrt(pairs) - _z(1 - alpha / 2) * math.sqrt(discordance)
        return float(special.ndtr(reach / math.sqrt(max(discordance - difference**2, 1e-300))))
    differing = np.arange(pairs + 1)
    share = min((discordance + difference) / (2 * discordance), 1.0)
    critical = _critical(pairs, alpha)
    possible = critical >= 0
    k = np.maximum(critical, 0)
    reject = np.where(
        possible, special.bdtr(k, differing, 1 - share) + special.bdtr(k, differing, share), 0.0
    )  # the better policy wins almost all, or (rarely) loses almost all
    return min(1.0, float(_binomial_pmf(differing, pairs, discordance) @ reject))


@functools.lru_cache(maxsize=64)
def _critical(pairs: int, alpha: float) -> npt.NDArray[np.int64]:
    """Largest k with ``2 P(X <= k) <= alpha`` for X ~ binomial(m, 1/2), or -1, for each m from 0 to ``pairs``."""
    differing = np.arange(pairs + 1)
    start = np.floor(differing / 2 - _z(1 - alpha / 2) * np.sqrt(differing) / 2).astype(np.int64) + 2
    k = np.minimum(start, (differing - 1) // 2)
    while True:
        too_many = (k >= 0) & (2 * special.bdtr(np.maximum(k, 0), differing, 0.5) > alpha)
        if not too_many.any():
            critical = np.maximum(k, -1)
            critical.setflags(write=False)  # one array for all who ask
            return critical
        k = np.where(too_many, k - 1, k)


def _binomial_pmf(k: npt.NDArray[np.int64], n: int, p: float) -> npt.NDArray[np.float64]:
    log_choose = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return np.asarray(np.exp(log_choose + special.xlogy(k, p) + special.xlog1py(n - k, -p)), dtype=np.float64)


def paired_episodes_needed(difference: float, discordance: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Pairs with which the two-sided exact McNemar test finds a difference with the given power.

    Starts from the asymptotic number (Connor 1987, Biometrics 43:207) and goes up until :func:`mcnemar_power` agrees,
    because the exact test is a little stricter than the asymptotic one.

    Args:
        difference: Difference of the success rates to be found, not 0.
        discordance: Share of pairs in which exactly one policy succeeds, in [abs(difference), 1]: take it from an
            earlier comparison of similar policies.
        power: Probability of finding it, in (0, 1).
        alpha: Significance level.

    Raises:
        ValueError: The difference is 0, or a number is out of range.
    """
    difference = abs(difference)
    _check(difference, discordance, alpha)
    if difference == 0:
        raise ValueError("no number of episodes finds a difference of 0")
    needed = _z(1 - alpha / 2) * math.sqrt(discordance)
    needed += _z(power) * math.sqrt(max(discordance - difference**2, 0.0))
    pairs = max(1, math.ceil((needed / difference) ** 2 - 1e-9))
    while pairs <= _LARGEST_EXACT and mcnemar_power(pairs, difference, discordance, alpha) < power:
        pairs += max(1, pairs // 100)
    return pairs


def paired_states_needed(difference: float, deviation: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Initial states needed when each gives several rollouts, by the normal approximation.

    Args:
        difference: Difference of the success rates to be found, not 0.
        deviation: Standard deviation over states of the difference between the two policies' rates on a state.
        power: Probability of finding it, in (0, 1).
        alpha: Significance level.
    """
    if difference == 0 or deviation < 0:
        raise ValueError(f"difference {difference}, deviation {deviation}")
    return max(1, math.ceil(((_z(1 - alpha / 2) + _z(power)) * deviation / difference) ** 2 - 1e-9))


def detectable_state_difference(states: int, deviation: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """Smallest difference that so many initial states with several rollouts find; see :func:`paired_states_needed`."""
    return min(1.0, (_z(1 - alpha / 2) + _z(power)) * deviation / math.sqrt(states))


def detectable_difference(pairs: int, discordance: float, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """Smallest difference of success rates that so many pairs find with the given power.

    Args:
        pairs: Paired episodes.
        discordance: Share of pairs in which exactly one policy succeeds; larger differences raise it as they must.
        power: Probability of finding it, in (0, 1).
        alpha: Significance level of the two-sided exact McNemar test.

    Returns:
        The difference in (0, 1], to a tenth of a point; None where even the largest would not be found.
    """

    def is_detected(difference: float) -> bool:
        return mcnemar_power(pairs, difference, max(discordance, difference), alpha) >= power

    if not is_detected(1.0):
        return None
    low, high = 0.0, 1.0
    while high - low > 0.0005:
        middle = (low + high) / 2
        low, high = (low, middle) if is_detected(middle) else (middle, high)
    return high


def _check(difference: float, discordance: float, alpha: float) -> None:
    if not 0 <= difference <= discordance * (1 + 1e-9) or discordance > 1 or not 0 < alpha < 1:
        raise ValueError(f"difference {difference}, discordance {discordance}, alpha {alpha}")


def _z(probability: float) -> float:
    if not 0 < probability < 1:
        raise ValueError(f"{probability} is no probability between 0 and 1")
    return float(special.ndtri(probability))
