"""How well costs tell successes from failures: the area under the ROC curve, with an interval.

The area is the chance that a success costs less than a failure (ties count half). Episodes from one initial state
resemble one another, so the variance is that of clustered data (Obuchowski 1997, "Nonparametric analysis of clustered
ROC curve data", Biometrics 53:567; without clusters it is that of DeLong et al. 1988).
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Auc", "area_under_curve", "concordance"]

Floats = npt.NDArray[np.float64]

_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Auc:
    """An area under the ROC curve.

    Attributes:
        value: Chance that a success costs less than a failure, in [0, 1].
        low: Lower end of the 95 % interval.
        high: Upper end.
        successes: Number of successes.
        failures: Number of failures.
        clusters: Number of initial states.
    """

    value: float
    low: float
    high: float
    successes: int
    failures: int
    clusters: int


def area_under_curve(costs: Sequence[float], success: Sequence[bool], cluster: Sequence[Hashable]) -> Auc | None:
    """Area under the ROC curve of ``costs``, where successes should cost less; None without both outcomes.

    The interval is symmetric on the logit scale. Where no pair, or every pair, is in order the clustered variance is 0;
    then the interval is Newcombe's (2006, Stat. Med. 25:559, method 5), with the number of initial states that have
    successes and failures as the numbers of independent observations.

    Args:
        costs: ``sum_i C_i`` of each episode.
        success: I_success of each episode.
        cluster: Its initial state.
    """
    cost, solved = np.asarray(costs, dtype=np.float64), np.asarray(success, dtype=bool)
    codes = np.unique([repr(item) for item in cluster], return_inverse=True)[1]
    m, n = int(solved.sum()), int((~solved).sum())
    if not m or not n:
        return None
    order = _order(cost[solved], cost[~solved])
    value = float(order.mean())
    clusters = int(codes.max()) + 1
    of_success, of_failure = codes[solved], codes[~solved]
    variance = _variance(order, of_success, of_failure, clusters)
    if variance > 0.0 and 0.0 < value < 1.0:
        spread = _Z95 * math.sqrt(variance) / (value * (1.0 - value))
        center = math.log(value / (1.0 - value))
        low, high = (1.0 / (1.0 + math.exp(-max(-700.0, center + sign * spread))) for sign in (-1, 1))
    else:
        low, high = _newcombe(value, len(set(of_success.tolist())), len(set(of_failure.tolist())))
    return Auc(value, low, high, m, n, clusters)


def concordance(
    costs: Sequence[float], success: Sequence[bool], cluster: Sequence[Hashable]
) -> tuple[float | None, int]:
    """Share of success and failure pairs of one initial state in which the success costs less, and their number."""
    cost, solved = np.asarray(costs, dtype=np.float64), np.asarray(success, dtype=bool)
    codes = np.unique([repr(item) for item in cluster], return_inverse=True)[1]
    same = codes[solved][:, None] == codes[~solved][None, :]
    count = int(same.sum())
    return (float(_order(cost[solved], cost[~solved])[same].mean()) if count else None), count


def _order(successes: Floats, failures: Floats) -> Floats:
    """1 where a success costs less than a failure, 0.5 where they cost the same, ``(m, n)``."""
    one, other = successes[:, None], failures[None, :]
    order: Floats = (one < other) + 0.5 * (one == other)
    return order


def _variance(order: Floats, of_success: npt.NDArray[np.intp], of_failure: npt.NDArray[np.intp], count: int) -> float:
    """Obuchowski's variance of the area; 0 where one cluster alone cannot tell."""
    m, n, value = len(of_success), len(of_failure), float(order.mean())
    excess_success = np.bincount(of_success, order.mean(axis=1) - value, minlength=count)
    excess_failure = np.bincount(of_failure, order.mean(axis=0) - value, minlength=count)
    with_success, with_failure = len(set(of_success.tolist())), len(set(of_failure.tolist()))
    if min(with_success, with_failure) < 2:
        return 0.0
    s10 = with_success / ((with_success - 1) * m) * float(excess_success @ excess_success)
    s01 = with_failure / ((with_failure - 1) * n) * float(excess_failure @ excess_failure)
    s11 = count / (count - 1) * float(excess_success @ excess_failure)
    return max(0.0, s10 / m + s01 / n + 2.0 * s11 / (m * n))


def _newcombe(value: float, m: int, n: int) -> tuple[float, float]:
    """Interval of an area from the variance that it would have at each end."""

    def deviation(theta: float) -> float:
        spread = (m + n) / 2.0 - 1.0
        inflation = 1.0 + spread * ((1.0 - theta) / (2.0 - theta) + theta / (1.0 + theta))
        return _Z95 * math.sqrt(theta * (1.0 - theta) * inflation / (m * n))

    def end(outer: float) -> float:
        inner = value
        for _ in range(60):
            middle = (inner + outer) / 2.0
            inside = abs(value - middle) < deviation(middle)
            inner, outer = (middle, outer) if inside else (inner, middle)
        return (inner + outer) / 2.0

    return (0.0 if value == 0.0 else end(0.0)), (1.0 if value == 1.0 else end(1.0))
