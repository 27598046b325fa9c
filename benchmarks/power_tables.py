"""The tables of docs/statistics.md: how many episodes a comparison needs, and how wide an interval is."""

import math

from scipy import special

from grape.evaluation.power import paired_episodes_needed
from grape.evaluation.statistics import wilson_interval

__all__ = ["interval_table", "planning_table", "unpaired_episodes_needed"]


def unpaired_episodes_needed(rate_a: float, rate_b: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Episodes *of each policy* when initial states cannot be shared (Fleiss, Levin and Paik 2003, ch. 4).

    Args:
        rate_a: Success rate of one policy, in [0, 1].
        rate_b: Success rate of the other, different from ``rate_a``.
        power: Probability of finding the difference, in (0, 1).
        alpha: Two-sided significance level.
    """
    difference = abs(rate_b - rate_a)
    if difference == 0:
        raise ValueError("no number of episodes finds a difference of 0")
    mean = (rate_a + rate_b) / 2
    needed = special.ndtri(1 - alpha / 2) * math.sqrt(2 * mean * (1 - mean))
    needed += special.ndtri(power) * math.sqrt(rate_a * (1 - rate_a) + rate_b * (1 - rate_b))
    return max(1, math.ceil((needed / difference) ** 2 - 1e-9))


def planning_table(power: float = 0.8, alpha: float = 0.05) -> str:
    """Markdown table of the episodes each policy needs, for docs/statistics.md.

    Rows are differences; columns the share of initial states on which the policies disagree, then the unpaired number
    for rates around one half.
    """
    shares = (0.1, 0.2, 0.3, 0.5)
    head = ["difference", *(f"paired, {share:.0%} disagree" for share in shares), "unpaired, around 50 %"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for difference in (0.02, 0.05, 0.1, 0.15, 0.2, 0.3):
        cells = [f"{100 * difference:.0f} points"]
        for share in shares:
            possible = share >= difference
            cells.append(f"{paired_episodes_needed(difference, share, power, alpha)}" if possible else "-")
        cells.append(str(unpaired_episodes_needed(0.5 - difference / 2, 0.5 + difference / 2, power, alpha)))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def interval_table() -> str:
    """Markdown table of 95 % Wilson intervals in percent, for docs/statistics.md."""
    rates = (0.5, 0.8, 0.9, 1.0)
    head = ["episodes", *(f"{rate:.0%} succeed" for rate in rates)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for episodes in (10, 20, 50, 100, 200, 500):
        bounds = [wilson_interval(rate * episodes, episodes) for rate in rates]
        cells = [str(episodes), *(f"{100 * low:.0f} to {100 * high:.0f}" for low, high in bounds)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
