"""Which trajectories are compared: pure functions from scores to pairs.

A pair's trajectories share task, instruction and initial state, always. Within one initial state the episodes stand in
an order: by R_GCPG, equals by their ids. With ``n`` episodes, rank 1 being the best:

``best-worst``
    One pair: rank 1 against rank ``n``.
``top-bottom``
    Rank by rank from both ends: 1 against ``n``, 2 against ``n - 1``, ... up to ``m`` pairs. No episode is in two
    pairs, so none is chosen here and rejected there.
``success-only``
    Up to ``m`` pairs of a random success and a random failure, each episode at most once; the other terms are
    ignored. This is what the paper's ablation calls random pairs of successes and failures (34.6 against 43.1).
``random``
    Up to ``m`` pairs from a random permutation (1st against 2nd, 3rd against 4th, ...): which one is chosen depends
    neither on the score nor on the outcome. The null hypothesis of a controlled comparison: training on it shows what
    the mere exposure to these trajectories does.

Randomness is a function of the seed, the task and the initial state alone, never of the order of the scores.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from grape.core.preferences import PreferencePair, Score
from grape.core.seeds import derive_rng
from grape.preferences.reasons import reason_for

__all__ = ["Mode", "StateCensus", "limit_pairs", "make_pairs", "states_of"]

Mode = Literal["best-worst", "top-bottom", "success-only", "random"]

ROUNDING = 1e-9
"""Differences of R_GCPG below this are rounding errors of the sum of its terms: no reason to prefer anything."""

State = tuple[str, int, str]
"""Task, initial state and instruction: what trajectories must share to be compared."""


@dataclass(frozen=True)
class StateCensus:
    """What became of the initial states of one task, or of all.

    Attributes:
        mixed: States with successes and failures.
        all_successes: States with at least two episodes, all successful.
        all_failures: States with at least two episodes, none successful.
        single: States with one episode.
        unknown: States with at least two episodes, of one of which the outcome is unknown.
        used: States that gave a pair.
        narrow: Pairs left out because R_GCPG differs by less than the margin, or not at all.
        failed: Pairs left out because both sides failed and the chosen one must succeed.
        pairs: Pairs made.
    """

    mixed: int = 0
    all_successes: int = 0
    all_failures: int = 0
    single: int = 0
    unknown: int = 0
    used: int = 0
    narrow: int = 0
    failed: int = 0
    pairs: int = 0

    def __add__(self, other: "StateCensus") -> "StateCensus":
        return StateCensus(**{name: value + getattr(other, name) for name, value in vars(self).items()})


def states_of(scores: Iterable[Score], instructions: Mapping[str, str] | None = None) -> dict[State, list[Score]]:
    """Scores by (task, initial state, instruction), sorted; within a state best first, equals by id.

    Args:
        scores: In any order.
        instructions: By episode id, where they are known; without, the instruction counts as empty.
    """
    states: dict[State, list[Score]] = {}
    for score in scores:
        instruction = (instructions or {}).get(score.episode_id, "")
        states.setdefault((score.task, score.initial_state, instruction), []).append(score)
    return {
        state: sorted(members, key=lambda score: (-score.gcpg, score.episode_id))
        for state, members in sorted(states.items())
    }


def make_pairs(
    scores: Iterable[Score],
    *,
    mode: Mode,
    m: int = 4,
    margin: float = 0.0,
    require_mixed_outcomes: bool = True,
    chosen_must_succeed: bool = False,
    seed: int = 0,
    instructions: Mapping[str, str] | None = None,
) -> tuple[list[list[PreferencePair]], dict[str, StateCensus]]:
    """Pairs of each initial state that gives any, and the census of each task.

    Args:
        scores: In any order.
        mode: See the module's text.
        m: Most pairs a state (``best-worst`` makes one).
        margin: Least difference of R_GCPG in the ranking modes, where it must also exceed :data:`ROUNDING`.
        require_mixed_outcomes: Whether states without both a success and a failure are left out, in all modes; states
            with an unknown outcome are, too.
        chosen_must_succeed: Whether pairs are left out whose chosen side failed, in all modes.
        seed: For the random modes.
        instructions: What each episode's policy was told, by episode id: only equal ones are compared.
    """
    found: list[list[PreferencePair]] = []
    census: dict[str, StateCensus] = {}
    numbers: dict[tuple[str, int], int] = {}
    for (task, initial_state, _), members in states_of(scores, instructions).items():
        kind = _kind([score.success for score in members])
        pairs: list[PreferencePair] = []
        narrow = failed = 0
        first = numbers.get((task, initial_state), 0)  # of states that differ in the instruction alone
        if len(members) > 1 and (kind == "mixed" or not require_mixed_outcomes):
            for chosen, rejected in _couples(members, mode, m, seed):
                if chosen_must_succeed and chosen.success is not True:
                    failed += 1
                    continue
                gap = chosen.gcpg - rejected.gcpg
                if mode in ("best-worst", "top-bottom") and gap < max(margin, ROUNDING):
                    narrow += 1
                    continue
                pairs.append(_pair(chosen, rejected, mode, f"{task}-s{initial_state:05d}-p{first + len(pairs):02d}"))
        numbers[task, initial_state] = first + len(pairs)
        count = StateCensus(**{kind: 1}, used=int(bool(pairs)), narrow=narrow, failed=failed, pairs=len(pairs))
        census[task] = census.get(task, StateCensus()) + count
        if pairs:
            found.append(pairs)
    return found, census


def limit_pairs(
    groups: Sequence[Sequence[PreferencePair]], *, per_state: int | None, total: int | None, seed: int
) -> list[PreferencePair]:
    """At most so many pairs, as evenly over the initial states as possible.

    Args:
        groups: Pairs of each state, most telling first.
        per_state: Most pairs a state; None for no limit.
        total: Most pairs; None for no limit. First pairs of all states (in a random order) go before second ones.
        seed: For that order.
    """
    kept = [list(group[:per_state]) for group in groups]
    if total is not None and sum(map(len, kept)) > total:
        order = derive_rng(seed, "pair", "limit").permutation(len(kept))
        turns = sorted(
            (rank, int(order[number]), number) for number, group in enumerate(kept) for rank in range(len(group))
        )
        left = {(number, rank) for rank, _, number in turns[:total]}
        kept = [
            [pair for rank, pair in enumerate(group) if (number, rank) in left] for number, group in enumerate(kept)
        ]
    return [pair for group in kept for pair in group]


def _kind(
    outcomes: Sequence[bool | None],
) -> Literal["mixed", "all_successes", "all_failures", "single", "unknown"]:
    if len(outcomes) == 1:
        return "single"
    if None in outcomes:
        return "unknown"
    if not any(outcomes):
        return "all_failures"
    return "all_successes" if all(outcomes) else "mixed"


def _couples(members: Sequence[Score], mode: Mode, m: int, seed: int) -> list[tuple[Score, Score]]:
    """(chosen, rejected) of one state whose members stand best first."""
    if mode == "best-worst":
        return [(members[0], members[-1])]
    if mode == "top-bottom":
        return [(members[rank], members[-1 - rank]) for rank in range(min(m, len(members) // 2))]
    rng = derive_rng(seed, "pair", members[0].task, members[0].initial_state)
    by_id = sorted(members, key=lambda score: score.episode_id)
    shuffled = [by_id[index] for index in rng.permutation(len(by_id))]
    if mode == "random":
        return list(zip(shuffled[::2], shuffled[1::2], strict=False))[:m]
    won = [score for score in shuffled if score.success]
    lost = [score for score in shuffled if score.success is False]
    return list(zip(won, lost, strict=False))[:m]


def _pair(chosen: Score, rejected: Score, mode: Mode, pair_id: str) -> PreferencePair:
    terms: Mapping[str, float] = {name: value - rejected.terms[name] for name, value in chosen.terms.items()}
    return PreferencePair(
        pair_id=pair_id,
        task=chosen.task,
        initial_state=chosen.initial_state,
        chosen=chosen.episode_id,
        rejected=rejected.episode_id,
        margin=chosen.gcpg - rejected.gcpg,
        mode=mode,
        reason=reason_for(chosen, rejected, mode),
        terms=terms,
    )
