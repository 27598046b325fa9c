"""Whether a new policy may replace the old one.

Two questions that are easily confused. "Not significantly worse" lets a candidate pass unless the data speak against
it: with few episodes almost everything passes, and a chain of small losses can pass one by one. "Non-inferior by a
margin" lets it pass only if the data exclude a loss larger than the margin: with few episodes almost nothing passes.
"""

from dataclasses import dataclass

from grape.core.errors import SettingsError
from grape.evaluation.pairing import PairedOutcomes
from grape.evaluation.power import detectable_difference

__all__ = ["GateDecision", "gate_decision"]


@dataclass(frozen=True)
class GateDecision:
    """The gate's verdict and what it rests on.

    Attributes:
        accepted: Whether the new policy may replace the old one.
        difference: Success rate of the new policy minus that of the old one.
        p_worse: One-sided p-value against "not worse".
        low: One-sided lower confidence bound of the difference, at level ``1 - alpha``.
        detectable: Loss that this many pairs would notice 4 times in 5; None where no loss would be noticed.
        reason: One sentence for people.
    """

    accepted: bool
    difference: float
    p_worse: float
    low: float
    detectable: float | None
    reason: str


def gate_decision(
    outcomes: PairedOutcomes, *, alpha: float = 0.05, margin: float | None = None, seed: int = 0
) -> GateDecision:
    """Decide from paired outcomes, A being the old and B the new policy.

    Args:
        outcomes: The pairs.
        alpha: One-sided significance level, in (0, 0.5).
        margin: None asks that B is not significantly worse (one-sided exact test). A number in (0, 1) asks more: that
            a loss of that much can be excluded, i.e. that the one-sided lower bound of the difference lies above
            ``-margin``.
        seed: Seed of the bootstrap for the lower bound.

    Raises:
        SettingsError: A number is out of range.
    """
    if not 0 < alpha < 0.5:
        raise SettingsError(f"The gate's alpha is {alpha}.", "Choose a number between 0 and 0.5, e.g. 0.05.")
    if margin is not None and not 0 < margin < 1:
        raise SettingsError(f"The gate's margin is {margin}.", "Choose a number between 0 and 1, e.g. 0.05.")
    p_worse = outcomes.p_value("less")
    low = outcomes.interval(1 - 2 * alpha, seed=seed).low
    discordance = max((len(outcomes.only_a) + len(outcomes.only_b)) / len(outcomes), 1 / len(outcomes))
    # A one-sided test at alpha rejects where the two-sided one at twice the level does, on that side.
    detectable = detectable_difference(len(outcomes), discordance, alpha=2 * alpha)
    facts = f"{100 * outcomes.difference:+.1f} points on {len(outcomes)} pairs, one-sided p = {p_worse:.3f}"
    if p_worse < alpha:
        accepted, reason = False, f"rejected: significantly worse ({facts})"
    elif margin is None and (p_better := outcomes.p_value("greater")) < alpha:
        gain = f"{100 * outcomes.difference:+.1f} points on {len(outcomes)} pairs, one-sided p = {p_better:.3f}"
        accepted, reason = True, f"accepted: significantly better ({gain})"
    elif margin is None:
        accepted, reason = True, f"accepted: not significantly worse ({facts})"
    elif low > -margin:
        accepted, reason = True, f"accepted: a loss of {100 * margin:.1f} points is excluded ({facts})"
    else:
        accepted = False
        reason = (
            f"rejected: a loss of {100 * margin:.1f} points cannot be excluded ({facts}; at worst {100 * low:+.1f})"
        )
    return GateDecision(accepted, outcomes.difference, p_worse, low, detectable, reason)
