"""A judge's trial on couples of known order, before it is trusted: is it right, and does it contradict itself?

Every couple is shown both ways, so that a preference for one of the two places shows; some are shown again, so that
chance does. Couples of one initial state depend on one another: intervals are clustered by state.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from grape.core.settings import Range, setting
from grape.costs import ReportCard, TrialCheck
from grape.evaluation.bootstrap import pooled_mean_interval
from grape.evaluation.statistics import cluster_sums, clustered_wilson_interval
from grape.judges.asking import AskedJudge, combined
from grape.judges.base import Judge, Judgment
from grape.judges.builtin import ScorerJudge
from grape.judges.known_orders import KnownCouple, known_couples
from grape.store import Episodes

__all__ = ["CRITERIA", "JudgeCriteria", "try_judge"]

CRITERIA = "Criteria"
"""Their group on help pages."""

FEWEST_COUPLES = 5
"""With fewer couples of a kind than this, nothing is said of the judge's accuracy on them."""

_NEEDED = ("answers", "outcomes", "position", "consistency")


@dataclass(frozen=True)
class JudgeCriteria:
    """What a judge must reach to be accepted.

    Attributes:
        min_accuracy: Smallest share (0.5 to 1) of couples of known order that it orders so; a tie counts half.
        min_accuracy_low: What the lower end of that share's 95 % interval must exceed.
        max_position_bias: Largest mean lead (0 to 1) that it gives to whichever is shown first.
        min_consistency: Smallest share (0 to 1) of couples on which its answers to both orders do not contradict
            each other.
        min_repeatability: Smallest share (0 to 1) of couples that it decides alike when they are shown again.
        max_unanswered: Largest share (0 to 1) of questions without an answer.
        couples: Couples of each kind of known order that it is shown (1 or more), each both ways.
        repeats: How many of them it is shown once more (0 or more).
    """

    min_accuracy: float = setting(0.7, group=CRITERIA, range=Range(0.5, 1), common=True)
    min_accuracy_low: float = setting(0.5, group=CRITERIA, range=Range(0, 1))
    max_position_bias: float = setting(0.1, group=CRITERIA, range=Range(0, 1), common=True)
    min_consistency: float = setting(0.8, group=CRITERIA, range=Range(0, 1), common=True)
    min_repeatability: float = setting(0.9, group=CRITERIA, range=Range(0, 1))
    max_unanswered: float = setting(0.05, group=CRITERIA, range=Range(0, 1))
    couples: int = setting(100, group=CRITERIA, range=Range(1), common=True)
    repeats: int = setting(20, group=CRITERIA, range=Range(0))


@dataclass(frozen=True)
class _Shown:
    """A couple and what the judge said when each of its sides came first."""

    couple: KnownCouple
    better_first: Judgment
    worse_first: Judgment

    @property
    def p(self) -> float | None:
        """Probability that the better one is better, from both answers."""
        answers = [self.better_first, self.worse_first]
        return combined(answers, self.couple.better, self.couple.worse).p


def try_judge(
    judge: Judge,
    label: str,
    identity: str,
    episodes: Episodes,
    criteria: JudgeCriteria,
    *,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> ReportCard:
    """Try a judge on recorded episodes.

    Args:
        judge: The judge; it is not closed.
        label: What it is called.
        identity: Hash of what it is.
        episodes: Recordings with known outcomes, of experts of several styles where there are some.
        criteria: What it must reach.
        seed: Of the couples that are drawn.
        advance: Called after each couple.

    Raises:
        ProgramError: An external judge fails at several couples in a row.
    """
    metas = [meta for meta in episodes.metas() if meta.success is not None]
    asked_judge = AskedJudge(judge, episodes, seed=seed)

    def show(couple: KnownCouple) -> _Shown:
        both = asked_judge.answer(couple.better, couple.worse), asked_judge.answer(couple.worse, couple.better)
        advance()
        return _Shown(couple, *both)

    outcomes = [show(couple) for couple in known_couples(metas, "outcomes", criteria.couples, seed)]
    experts = [show(couple) for couple in known_couples(metas, "experts", criteria.couples, seed)]
    everything = list({(item.couple.better, item.couple.worse): item for item in (*outcomes, *experts)}.values())
    return ReportCard(
        source=label,
        hash=identity,
        episodes=len(metas),
        successes=sum(bool(meta.success) for meta in metas),
        states=len({(meta.task, meta.initial_state) for meta in metas}),
        checks=(
            _answers(everything, criteria),
            _accuracy("outcomes", "a success from a failure", outcomes, criteria),
            _accuracy("experts", "an expert from a perturbed one", experts, criteria),
            _position(everything, criteria),
            _consistency(everything, criteria),
            _repeatability(judge, episodes, everything[: criteria.repeats], criteria),
        ),
        needed=_NEEDED,
    )


def _answers(shown: Sequence[_Shown], criteria: JudgeCriteria) -> TrialCheck:
    answers = [judgment for item in shown for judgment in (item.better_first, item.worse_first)]
    if not answers:
        sentence = "There is no couple of known order: give episodes with successes and failures of one initial state."
        return TrialCheck("answers", None, None, criteria.max_unanswered, sentence)
    missing = [judgment for judgment in answers if judgment.p is None]
    share = len(missing) / len(answers)
    sentence = f"It answered {len(answers) - len(missing)} of {len(answers)} questions."
    if missing:
        sentence += f" First without an answer: {missing[0].problem}."
    facts = {"questions": len(answers), "unanswered": len(missing)}
    return TrialCheck("answers", share <= criteria.max_unanswered, share, criteria.max_unanswered, sentence, facts)


def _accuracy(code: str, what: str, shown: Sequence[_Shown], criteria: JudgeCriteria) -> TrialCheck:
    known = [(item.couple.state, p) for item in shown if (p := item.p) is not None]
    if len(known) < FEWEST_COUPLES:
        sentence = f"Whether it tells {what} is not known: {len(known)} such couples, of {FEWEST_COUPLES} at least."
        return TrialCheck(code, None, None, criteria.min_accuracy, sentence, {"couples": len(known)})
    right = [0.5 if p == 0.5 else float(p > 0.5) for _, p in known]
    states: list[Hashable] = [state for state, _ in known]
    share = float(np.mean(right))
    low, high = clustered_wilson_interval(cluster_sums(right, states), cluster_sums(np.ones(len(right)), states))
    passed = share >= criteria.min_accuracy and low > criteria.min_accuracy_low
    sentence = f"It tells {what} in {share:.0%} of {len(right)} couples (95 % interval {low:.0%} to {high:.0%})."
    facts = {"couples": len(right), "ties": right.count(0.5), "interval": [low, high], "states": len(set(states))}
    return TrialCheck(code, passed, share, criteria.min_accuracy, sentence, facts)


def _both(shown: Sequence[_Shown]) -> list[tuple[Hashable, float, float]]:
    """State and both answers, each the probability that the one shown first is better, where there are two."""
    return [
        (item.couple.state, item.better_first.p, item.worse_first.p)
        for item in shown
        if item.better_first.p is not None and item.worse_first.p is not None
    ]


def _position(shown: Sequence[_Shown], criteria: JudgeCriteria) -> TrialCheck:
    answers = _both(shown)
    if not answers:
        sentence = "No couple was answered both ways."
        return TrialCheck("position", None, None, criteria.max_position_bias, sentence)
    leads = [one + other - 1.0 for _, one, other in answers]
    states = [state for state, *_ in answers]
    bias = float(np.mean(leads))
    facts: dict[str, Any] = {"couples": len(leads)}
    if len(set(states)) > 1:
        sums, counts = cluster_sums(leads, states), cluster_sums(np.ones(len(leads)), states)
        facts["interval"] = list(pooled_mean_interval(sums, counts, draws=2000))
    place = "the first" if bias >= 0 else "the second"
    sentence = f"It favors {place} place by {abs(bias):.2f} on average (0 is fair, 1 is always)."
    if not bias:
        sentence = "It favors neither place."
    passed = abs(bias) <= criteria.max_position_bias
    return TrialCheck("position", passed, bias, criteria.max_position_bias, sentence, facts)


def _consistency(shown: Sequence[_Shown], criteria: JudgeCriteria) -> TrialCheck:
    answers = _both(shown)
    if not answers:
        return TrialCheck("consistency", None, None, criteria.min_consistency, "No couple was answered both ways.")
    alike = sum((one > 0.5) - (one < 0.5) == (other < 0.5) - (other > 0.5) for _, one, other in answers)
    share = alike / len(answers)
    sentence = f"Shown both ways, it decides alike in {alike} of {len(answers)} couples."
    return TrialCheck("consistency", share >= criteria.min_consistency, share, criteria.min_consistency, sentence)


def _repeatability(judge: Judge, episodes: Episodes, shown: Sequence[_Shown], criteria: JudgeCriteria) -> TrialCheck:
    """Couples shown once more, to a judge that has no memory of what it answered; no answer says nothing of chance."""
    again = AskedJudge(judge, episodes)
    if isinstance(judge, ScorerJudge):
        judge.forget()
    decisions = [
        (item.better_first.decision, again.answer(item.couple.better, item.couple.worse).decision) for item in shown
    ]
    alike = [one == other for one, other in decisions if one is not None and other is not None]
    if not alike:
        return TrialCheck("repeats", None, None, criteria.min_repeatability, "No couple was shown twice.")
    share = float(np.mean(alike))
    sentence = f"Shown again, it decides alike in {sum(alike)} of {len(alike)} couples."
    return TrialCheck("repeats", share >= criteria.min_repeatability, share, criteria.min_repeatability, sentence)
