"""Two evaluations side by side: the same tasks, initial states and samples under policies A and B."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grape.core.errors import CompatibilityError, DataError
from grape.evaluation.bootstrap import DifferenceInterval, paired_difference_interval
from grape.evaluation.results import EpisodeOutcome, EvaluationResults
from grape.evaluation.statistics import (
    Alternative,
    cluster_sums,
    mcnemar_exact,
    sign_flip_test,
)

__all__ = ["Key", "PairedOutcomes", "Pairing", "pair_outcomes", "pair_results"]

Key = tuple[str, int, int]


@dataclass(frozen=True)
class PairedOutcomes:
    """Success of A and B on the same episodes.

    Attributes:
        keys: Task, initial state and sample of each pair, sorted.
        a: Whether A succeeded, one a pair.
        b: Whether B succeeded, one a pair.
    """

    keys: tuple[Key, ...]
    a: tuple[bool, ...]
    b: tuple[bool, ...]

    def __post_init__(self) -> None:
        if not len(self.keys) == len(self.a) == len(self.b):
            raise ValueError("keys, a and b differ in length")

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, sorted."""
        return tuple(sorted({task for task, _, _ in self.keys}))

    @property
    def differences(self) -> npt.NDArray[np.int64]:
        """B minus A, in {-1, 0, 1}, ``(N,)``."""
        return np.array(self.b, dtype=np.int64) - np.array(self.a, dtype=np.int64)

    @property
    def difference(self) -> float:
        """Success rate of B minus that of A, in [-1, 1]."""
        return (sum(self.b) - sum(self.a)) / len(self)

    @property
    def only_a(self) -> tuple[Key, ...]:
        """Pairs in which only A succeeded."""
        return tuple(key for key, a, b in zip(self.keys, self.a, self.b, strict=True) if a and not b)

    @property
    def only_b(self) -> tuple[Key, ...]:
        """Pairs in which only B succeeded."""
        return tuple(key for key, a, b in zip(self.keys, self.a, self.b, strict=True) if b and not a)

    @property
    def states(self) -> tuple[tuple[str, int], ...]:
        """Task and initial state of each pair, ``(N,)``."""
        return tuple((task, state) for task, state, _ in self.keys)

    @property
    def repeated(self) -> bool:
        """Whether some initial state holds more than one pair, so that pairs are not independent."""
        return len(set(self.states)) < len(self)

    def of_task(self, task: str) -> "PairedOutcomes":
        """The pairs of one task."""
        chosen = [i for i, key in enumerate(self.keys) if key[0] == task]
        return PairedOutcomes(
            tuple(self.keys[i] for i in chosen), tuple(self.a[i] for i in chosen), tuple(self.b[i] for i in chosen)
        )

    def p_value(self, alternative: Alternative = "two-sided") -> float:
        """p-value of "A and B are equally good on every initial state".

        Exact McNemar with one pair an initial state; with several, the exact sign-flip test over initial states,
        because rollouts of one state are not independent.
        """
        if self.repeated:
            return sign_flip_test(cluster_sums(self.differences, self.states), alternative)
        return mcnemar_exact(len(self.only_a), len(self.only_b), alternative)

    @property
    def test_name(self) -> str:
        """What :meth:`p_value` does, with the number of units, for people."""
        if self.repeated:
            return f"exact sign-flip test over {len(set(self.states))} initial states, {len(self)} paired episodes"
        return f"exact McNemar on {len(self)} paired episode{'' if len(self) == 1 else 's'}"

    def interval(self, confidence: float = 0.95, *, draws: int = 10_000, seed: int = 0) -> DifferenceInterval:
        """Interval of the difference, see :func:`grape.evaluation.bootstrap.paired_difference_interval`."""
        tasks = [task for task, _, _ in self.keys]
        return paired_difference_interval(self.differences, tasks, self.states, confidence, draws=draws, seed=seed)


@dataclass(frozen=True)
class Pairing:
    """Paired episodes, and those without a partner.

    Attributes:
        pairs: Episodes that both evaluations hold.
        unmatched_a: Episodes that only A's evaluation holds.
        unmatched_b: Episodes that only B's evaluation holds.
    """

    pairs: PairedOutcomes
    unmatched_a: tuple[Key, ...]
    unmatched_b: tuple[Key, ...]


def pair_outcomes(a: Iterable[EpisodeOutcome], b: Iterable[EpisodeOutcome]) -> Pairing:
    """Pair episodes by task, initial state and sample.

    Raises:
        DataError: They have none in common.
    """
    success_a = {outcome.key: outcome.success for outcome in a}
    success_b = {outcome.key: outcome.success for outcome in b}
    common = tuple(sorted(success_a.keys() & success_b.keys()))
    if not common:
        raise DataError(
            "The two evaluations have no task and initial state in common, so nothing can be paired.",
            "Evaluate both policies with the same --tasks and --initial-states.",
        )
    pairs = PairedOutcomes(common, tuple(success_a[key] for key in common), tuple(success_b[key] for key in common))
    return Pairing(pairs, tuple(sorted(success_a.keys() - set(common))), tuple(sorted(success_b.keys() - set(common))))


def pair_results(a: EvaluationResults, b: EvaluationResults) -> Pairing:
    """Pair two evaluations of the same suite.

    Raises:
        CompatibilityError: The suites differ, or what counts as success, or limits that episodes came up against.
        DataError: No task and initial state in common.
    """
    if a.until != b.until:
        raise CompatibilityError(
            f"A's episodes ended at '{a.until}', B's at '{b.until}': success is not the same thing in the two.",
            "Evaluate both policies with the same --until or --protocol.",
        )
    if a.suite != b.suite:
        raise CompatibilityError(
            f"A was evaluated on suite '{a.suite}', B on '{b.suite}': their initial states are not the same.",
            "Evaluate both policies on one suite.",
        )
    pairing = pair_outcomes(a.per_episode, b.per_episode)
    _check_limits(a, b, frozenset(pairing.pairs.keys))
    return pairing


def _check_limits(a: EvaluationResults, b: EvaluationResults, keys: frozenset[Key]) -> None:
    """Refuse two evaluations with different limits of control steps, where the limit affected an outcome.

    Where all pairs were solved within the lower limit, the higher one gave nobody a longer try. (Nothing else limits an
    episode: with a simulator that hangs, it is played again or the evaluation fails.)

    Raises:
        CompatibilityError: The limits of a task differ, and paired episodes came up against the lower one.
    """
    for task in sorted({task for task, _, _ in keys}):
        limit_a, limit_b = _limit(a, task), _limit(b, task)
        known_limits = [limit for limit in (limit_a, limit_b) if limit]
        if limit_a == limit_b or not known_limits:
            continue
        lower = min(known_limits)
        episodes = [one for one in (*a.per_episode, *b.per_episode) if one.task == task and one.key in keys]
        # A limit that is not known shows in episodes that lasted longer than the other, not in failures.
        stopped = sum(one.steps > lower or (len(known_limits) == 2 and not one.success) for one in episodes)
        if not stopped:
            continue
        words = [f"{limit} control steps" if limit else "a limit that is not recorded" for limit in (limit_a, limit_b)]
        raise CompatibilityError(
            f"The limits of {task} differ: A's episodes end after {words[0]}, B's after {words[1]}, and {stopped} of "
            f"{len(episodes)} paired episodes did not succeed within {lower}: success is not the same thing in the "
            "two.",
            "Evaluate both policies with the same --max-steps.",
        )


def _limit(results: EvaluationResults, task: str) -> int:
    """Most control steps of a task's episodes; where they are not recorded, what its failures tell, or else 0."""
    if results.tasks[task].max_steps:
        return results.tasks[task].max_steps
    ended = {
        one.steps for one in results.per_episode if one.task == task and (not one.success or results.until != "success")
    }
    return ended.pop() if len(ended) == 1 else 0
