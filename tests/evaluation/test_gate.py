"""The gate of a loop: losses of single tasks, margins, and what its rule is worth over several noisy candidates."""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from scipy import special

from grape.evaluation import PairedOutcomes, best_on_validation, gate_decision
from grape.evaluation.bootstrap import DifferenceInterval
from grape.evaluation.statistics import holm, mcnemar_exact


def pairs(**tasks: tuple[int, int, int, int]) -> PairedOutcomes:
    """Outcomes of tasks by name: how many pairs both solved, only A, only B, and neither."""
    rows = [
        (task, number, a, b)
        for task, counts in tasks.items()
        for number, (a, b) in enumerate(
            itertools.chain.from_iterable(
                [outcome] * count for outcome, count in zip(((1, 1), (1, 0), (0, 1), (0, 0)), counts, strict=True)
            )
        )
    ]
    return PairedOutcomes(
        tuple((task, number, 0) for task, number, _, _ in rows),
        tuple(bool(a) for _, _, a, _ in rows),
        tuple(bool(b) for _, _, _, b in rows),
    )


def test_a_worse_estimate_does_not_pass_however_uncertain() -> None:
    decision = gate_decision(pairs(push=(40, 3, 2, 5)))
    assert not decision.accepted
    assert decision.reason.startswith("rejected: its estimate is lower (-2.0 points on 50 pairs, one-sided p = 0.500")
    assert gate_decision(pairs(push=(40, 3, 2, 5)), tolerate_losses=True).accepted


def test_equal_policies_pass_so_that_failures_alone_can_teach() -> None:
    nothing = gate_decision(pairs(push=(0, 0, 0, 50)))
    assert nothing.accepted
    assert nothing.reason.startswith("accepted: its estimate is not lower (+0.0 points on 50 pairs")


def test_a_gain_on_one_task_does_not_pay_for_the_loss_of_another() -> None:
    """.88 -> .20 on the drawer beside .20 -> .80 on the faucet and .40 -> .60 on the door: better in the mean."""
    paired_outcomes = pairs(door=(10, 0, 5, 10), drawer=(5, 17, 0, 3), faucet=(5, 0, 15, 5))
    decision = gate_decision(paired_outcomes)
    assert decision.difference > 0
    assert not decision.accepted
    assert decision.worse_tasks == ("drawer",)
    p = holm([1.0, mcnemar_exact(17, 0, "less"), 1.0])[1]
    assert p == 3 * 2**-17
    assert "significantly worse on drawer (-68.0 points on 25 pairs, one-sided p = 0.000)" in decision.reason
    assert "adjusted for 3 tasks (over all: +4.0 points on 75 pairs)" in decision.reason
    assert gate_decision(paired_outcomes, tolerate_losses=True).accepted


def test_many_tasks_do_not_stop_a_policy_by_chance() -> None:
    """A loss that is significant alone is none among ten tasks: five of five differing pairs, p = .03 and .31."""
    alone, others = {"a0": (10, 5, 0, 5)}, {f"a{i}": (10, 0, 1, 9) for i in range(1, 10)}
    assert gate_decision(pairs(**alone, **others)).worse_tasks == ()
    assert gate_decision(pairs(**alone)).worse_tasks == ("a0",)
    assert gate_decision(pairs(**alone, **others)).accepted


def test_a_margin_comes_on_top() -> None:
    assert not gate_decision(pairs(push=(20, 5, 5, 20)), margin=0.05).accepted
    assert gate_decision(pairs(push=(20, 5, 5, 20)), margin=0.2).accepted
    slightly = pairs(push=(450, 24, 22, 4))
    assert not gate_decision(slightly, margin=0.05).accepted
    assert gate_decision(slightly, margin=0.05, tolerate_losses=True).accepted


def test_the_result_is_the_best_and_among_equals_the_earliest() -> None:
    assert best_on_validation([0.5, 0.7, 0.6]) == 1
    assert best_on_validation([0.6, 0.7, 0.7]) == 1
    assert best_on_validation([0.4]) == 0


Flags = npt.NDArray[np.bool_]
Rule = Callable[[Flags, Flags], Flags]


@dataclass(frozen=True)
class Candidates:
    """Loops whose candidates change the policy at random: what training gives, as the loop sees it.

    A policy is a success probability a task. Every candidate adds to it a normal number of this mean and deviation,
    and one more for each task alone. Outcomes on the validation states of two policies go together (a state is hard
    for both), as strongly as to differ on about 30 % of them.
    """

    mean: float
    deviation: float
    of_task: float
    loops: int = 4000
    start: float = 0.7
    tasks: int = 2
    states: int = 25
    number: int = 3

    def results(self, accepts: Rule, *, best: bool) -> npt.NDArray[np.float64]:
        """True success of each loop's final policy, ``(L,)``.

        Args:
            accepts: From outcomes of the old and the new policy, ``(L, T, S)``, whether the new one goes on, ``(L,)``.
            best: Whether the result is the best of the policies that went on, and not the last of them.
        """
        rng = np.random.default_rng(0)
        shape = (self.loops, self.tasks, self.states)
        hard = rng.normal(size=shape) * np.sqrt(0.5)

        def played(policy: npt.NDArray[np.float64]) -> Flags:
            luck = rng.normal(size=shape) * np.sqrt(0.5)
            return np.asarray(hard + luck < special.ndtri(policy)[..., None], dtype=np.bool_)

        policy = np.full(shape[:2], self.start)
        outcomes = played(policy)
        policies, seen = [policy], [outcomes.mean((1, 2))]
        for _ in range(self.number):
            change = rng.normal(self.mean, self.deviation, (self.loops, 1))
            candidate = np.clip(policy + change + rng.normal(0, self.of_task, shape[:2]), 0.01, 0.99)
            tried = played(candidate)
            passes = accepts(outcomes, tried)
            policy = np.where(passes[:, None], candidate, policy)
            outcomes = np.where(passes[:, None, None], tried, outcomes)
            policies.append(policy)
            seen.append(outcomes.mean((1, 2)))
        rates = np.stack(seen, axis=1)
        chosen = [best_on_validation(row) if best else self.number for row in rates.tolist()]
        return np.stack(policies, axis=1)[np.arange(self.loops), chosen].mean(axis=1)


def better(old: Flags, new: Flags) -> Flags:
    """Take the better on validation."""
    return np.asarray(new.sum((1, 2)) > old.sum((1, 2)), dtype=np.bool_)


def gate(tolerate_losses: bool) -> Rule:
    """The loop's gate; outcomes with equal counts get one decision."""

    @functools.cache
    def accepted(counts: tuple[tuple[int, int], ...], states: int) -> bool:
        tasks = {f"t{i}": (0, a, b, states - a - b) for i, (a, b) in enumerate(counts)}
        return gate_decision(pairs(**tasks), tolerate_losses=tolerate_losses).accepted

    def accepts(old: Flags, new: Flags) -> Flags:
        counts = np.stack([(old & ~new).sum(2), (new & ~old).sum(2)], axis=2)
        rows = [tuple((int(a), int(b)) for a, b in row) for row in counts.tolist()]
        return np.array([accepted(row, old.shape[2]) for row in rows])

    return accepts


@pytest.mark.slow
@pytest.mark.parametrize("candidates", [Candidates(-0.011, 0.056, 0.0), Candidates(0.01, 0.05, 0.05)], ids=str)
def test_the_rule_gives_at_least_what_taking_the_better_gives(
    candidates: Candidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first model is fitted to what was measured: release 0.1's rule ends at .685, the better of two at .726.

    In the second, candidates help in the mean and do more for one task than for another.
    """
    # No rule without a margin looks at the interval, whose bootstrap would take minutes here.
    monkeypatch.setattr(PairedOutcomes, "interval", lambda *_, **__: DifferenceInterval(-1.0, 1.0, "none", 1))
    monkeypatch.setattr("grape.evaluation.gate.detectable_difference", lambda *_, **__: 0.0)  # decides nothing
    old = candidates.results(gate(tolerate_losses=True), best=False)
    simple = candidates.results(better, best=False)
    ours = candidates.results(gate(tolerate_losses=False), best=True)
    print(f"0.1 {old.mean():.4f}, the better {simple.mean():.4f}, ours {ours.mean():.4f}")
    if candidates.mean < 0:
        assert old.mean() == pytest.approx(0.685, abs=0.004)
        assert simple.mean() == pytest.approx(0.726, abs=0.004)
    assert ours.mean() >= simple.mean() > old.mean() + 0.01
