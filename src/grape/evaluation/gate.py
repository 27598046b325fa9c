"""Whether a new policy may replace the old one, and which of several policies is the result.

The estimate itself decides: a candidate with less success on the validation states does not pass, however uncertain its
loss is, because "not significantly worse" lets almost everything pass with few episodes, and a chain of small losses
passes one by one. A guard looks at every task: a gain on one must not pay for a certain loss on another. A margin asks
for proof as well: that a loss larger than the margin can be excluded, which with few episodes almost nothing can.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from grape.core.errors import SettingsError
from grape.evaluation.pairing import PairedOutcomes
from grape.evaluation.power import detectable_difference
from grape.evaluation.statistics import holm

__all__ = ["GateDecision", "best_on_validation", "gate_decision"]


@dataclass(frozen=True)
class GateDecision:
    """The gate's verdict and what it rests on.

    Attributes:
        accepted: Whether the new policy may replace the old one.
        difference: Success rate of the new policy minus that of the old one.
        p_worse: One-sided p-value against "not worse".
        low: One-sided lower confidence bound of the difference, at level ``1 - alpha``.
        detectable: Loss that this many pairs would notice 4 times in 5; None where no loss would be noticed.
        worse_tasks: Tasks on which the new policy is significantly worse, adjusted by Holm for their number.
        reason: One sentence for people.
    """

    accepted: bool
    difference: float
    p_worse: float
    low: float
    detectable: float | None
    worse_tasks: tuple[str, ...]
    reason: str


def gate_decision(
    outcomes: PairedOutcomes,
    *,
    alpha: float = 0.05,
    margin: float | None = None,
    seed: int = 0,
    tolerate_losses: bool = False,
) -> GateDecision:
    """Decide from paired outcomes, A being the old and B the new policy.

    B passes if its success rate over the pairs is not below A's and no task speaks against it: the one-sided exact
    test of a task, adjusted by Holm for the number of tasks, must not reject "not worse" at ``alpha``.

    Args:
        outcomes: The pairs.
        alpha: One-sided significance level, in (0, 0.5).
        margin: A number in (0, 1) asks more: that a loss of that much can be excluded, i.e. that the one-sided lower
            bound of the difference lies above ``-margin``.
        seed: Seed of the bootstrap for the lower bound.
        tolerate_losses: The rule of release 0.1, which loops begun with it keep: B passes unless it is significantly
            worse over all pairs; tasks are not looked at.

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
    p_tasks = _task_p_values(outcomes)
    worse_tasks = tuple(task for task, p in p_tasks.items() if p < alpha)
    size = f"{100 * outcomes.difference:+.1f} points on {len(outcomes)} pairs"
    facts = f"{size}, one-sided p = {p_worse:.3f}"
    accepted = False
    if p_worse < alpha:
        reason = f"rejected: significantly worse ({facts})"
    elif not tolerate_losses and outcomes.difference < 0:
        reason = f"rejected: its estimate is lower ({facts})"
    elif not tolerate_losses and worse_tasks:
        losses = "; ".join(_task_sentence(outcomes.of_task(task), task, p_tasks[task]) for task in worse_tasks)
        tasks = f", p adjusted for {len(p_tasks)} tasks" if len(p_tasks) > 1 else ""
        reason = f"rejected: significantly worse on {losses}{tasks} (over all: {size})"
    elif margin is not None and low <= -margin:
        reason = (
            f"rejected: a loss of {100 * margin:.1f} points cannot be excluded ({facts}; at worst {100 * low:+.1f})"
        )
    elif margin is not None:
        accepted, reason = True, f"accepted: a loss of {100 * margin:.1f} points is excluded ({facts})"
    elif (p_better := outcomes.p_value("greater")) < alpha:
        accepted, reason = True, f"accepted: significantly better ({size}, one-sided p = {p_better:.3f})"
    else:
        verdict = "not significantly worse" if tolerate_losses else "its estimate is not lower"
        accepted, reason = True, f"accepted: {verdict} ({facts})"
    return GateDecision(accepted, outcomes.difference, p_worse, low, detectable, worse_tasks, reason)


def best_on_validation(success_rates: Sequence[float]) -> int:
    """Which of several policies is the result of a loop: the one with the highest success on the validation states.

    Args:
        success_rates: Of the policies in the order in which they were made, on the same states; at least one.

    Returns:
        Its place; among equals the earliest, which moved least from where the loop began.
    """
    return max(range(len(success_rates)), key=lambda place: (success_rates[place], -place))


def _task_p_values(outcomes: PairedOutcomes) -> dict[str, float]:
    """One-sided p-value against "not worse" of each task, adjusted for the number of tasks."""
    tasks = outcomes.tasks
    return dict(zip(tasks, holm([outcomes.of_task(task).p_value("less") for task in tasks]), strict=True))


def _task_sentence(outcomes: PairedOutcomes, task: str, p: float) -> str:
    return f"{task} ({100 * outcomes.difference:+.1f} points on {len(outcomes)} pairs, one-sided p = {p:.3f})"
