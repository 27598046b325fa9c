"""One comparison repeated over several training seeds.

A training run is a lottery of its own. 5 seeds of 100 episodes are not 500 independent episodes: what generalizes to
the next run is judged over the 5 differences, what holds for these 5 pairs of policies over the initial states.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from grape.evaluation.statistics import Interval, sign_flip_test

__all__ = ["OverSeeds", "over_seeds"]


@dataclass(frozen=True)
class OverSeeds:
    """B against A over training seeds, each seed one observation.

    Attributes:
        difference: Mean over seeds.
        interval: Student's t interval of that mean; it speaks of training runs with further seeds. None with one seed,
            or where all agree.
        p_value: Two-sided paired t test: would *further runs* show the difference? None with one seed.
        p_flip: Two-sided exact sign-flip test: no assumption of normality, but never below ``2**(1 - seeds)``, 0.0625
            for five.
    """

    difference: float
    interval: Interval | None
    p_value: float | None
    p_flip: float


def over_seeds(differences: Mapping[int, float], confidence: float = 0.95) -> OverSeeds:
    """Combine the differences of several seeds, all weighing alike.

    The t test over seeds treats every seed as the unit of replication (Colas, Sigaud and Oudeyer 2019,
    arXiv 1904.06979); with few seeds interval estimates say more than p-values (Agarwal et al. 2021, arXiv 2108.13264).

    Args:
        differences: B minus A by seed; A and B of one seed share what came before (data, first policy).
        confidence: Level of the interval, in (0, 1).

    Raises:
        ValueError: There is no seed, or the level is not in (0, 1).
    """
    if not differences:
        raise ValueError("there is no seed to compare")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    values = np.array(list(differences.values()), dtype=np.float64)
    n, mean, p_flip = len(values), float(values.mean()), sign_flip_test(values)
    if n == 1:
        return OverSeeds(mean, None, None, p_flip)
    error = float(values.std(ddof=1)) / math.sqrt(n)
    if error < 1e-12:  # seeds that agree to the last digit leave t undefined; the test without a variance still stands
        return OverSeeds(mean, None, p_flip, p_flip)
    half = float(special.stdtrit(n - 1, (1 + confidence) / 2)) * error
    p_t = 2 * float(special.stdtr(n - 1, -abs(mean) / error))
    return OverSeeds(mean, Interval(mean - half, mean + half), p_t, p_flip)
