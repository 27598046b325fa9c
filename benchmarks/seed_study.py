"""One comparison repeated over several training seeds.

A training run is a lottery of its own. 5 seeds of 100 episodes are not 500 independent episodes: what generalizes to
the next run is judged over the 5 differences, what holds for these 5 pairs of policies over the episodes.
"""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from grape.evaluation.pairing import PairedOutcomes
from grape.evaluation.statistics import Interval, cluster_sums, sign_flip_test

__all__ = ["SeedStudy", "seed_study"]


@dataclass(frozen=True)
class SeedStudy:
    """B against A over several training seeds.

    Attributes:
        seeds: The seeds.
        differences: Success rate of B minus that of A, one a seed.
        difference: Mean over seeds.
        interval: Student's t interval of the mean over seeds; it speaks of training runs with further seeds.
        p_seeds: Two-sided paired t test over seeds: would *further runs* of the recipe show the difference?
        p_seeds_flip: Two-sided exact sign-flip test over seeds: no assumption of normality, but never below
            ``2**(1 - seeds)``, 0.0625 for five.
        p_states: Two-sided exact sign-flip test over initial states, the seeds of a state flipped together: do *these*
            trained policies differ on fresh states? It says nothing of further runs.
        pairs: All paired episodes.
    """

    seeds: tuple[Hashable, ...]
    differences: tuple[float, ...]
    difference: float
    interval: Interval
    p_seeds: float
    p_seeds_flip: float
    p_states: float
    pairs: int


def seed_study(outcomes: Mapping[Hashable, PairedOutcomes], confidence: float = 0.95) -> SeedStudy:
    """Combine paired outcomes of several seeds.

    The t test over seeds treats every seed alike, as the unit of replication (Colas, Sigaud and Oudeyer 2019,
    arXiv 1904.06979); with few seeds interval estimates say more than p-values (Agarwal et al. 2021, arXiv 2108.13264).
    Choose which p-value is the headline before looking.

    Args:
        outcomes: Pairs of A and B by seed; A and B of one seed share what came before (data, first policy).
        confidence: Level of the interval, in (0, 1).

    Raises:
        ValueError: There are fewer than two seeds, or one has no pairs.
    """
    if len(outcomes) < 2 or any(len(pairs) == 0 for pairs in outcomes.values()):
        raise ValueError("a study needs at least two seeds, each with pairs")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    values = np.array([pairs.difference for pairs in outcomes.values()])
    n = len(values)
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(n)
    half = float(special.stdtrit(n - 1, (1 + confidence) / 2)) * error
    p_flip = sign_flip_test(values)
    # Seeds that agree to the last digit leave t undefined; the test without a variance still stands.
    p_t = 2 * float(special.stdtr(n - 1, -abs(mean) / error)) if error > 1e-12 else p_flip
    all_differences = np.concatenate([pairs.differences for pairs in outcomes.values()])
    all_states = [state for pairs in outcomes.values() for state in pairs.states]
    return SeedStudy(
        seeds=tuple(outcomes),
        differences=tuple(float(value) for value in values),
        difference=mean,
        interval=Interval(max(-1.0, mean - half), min(1.0, mean + half)),
        p_seeds=p_t,
        p_seeds_flip=p_flip,
        p_states=sign_flip_test(cluster_sums(all_differences, all_states)),
        pairs=sum(len(pairs) for pairs in outcomes.values()),
    )
