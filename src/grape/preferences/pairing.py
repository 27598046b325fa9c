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
``every-success``
    Every success once, against a failure drawn at random where the state has one, else against another success. For
    filtered behavior cloning, which looks at chosen sides alone: it then imitates all successes.
``random``
    Up to ``m`` pairs from a random permutation (1st against 2nd, 3rd against 4th, ...): which one is chosen depends
    neither on the score nor on the outcome. The null hypothesis of a controlled comparison: training on it shows what
    the mere exposure to these trajectories does.

Stage-wise (arXiv 2512.05107, STARE-VLA), segments are compared instead of whole episodes: in every stage, those of the
episodes of one initial state that spent control steps in it, ranked by what the stage cost them. ``best-worst``,
``top-bottom`` and ``random`` then apply to each stage of each initial state, margins are differences of the stage's
cost, and pairs of one initial state stand in the order of their margins (drawn ones stage by stage). ``success-only``
knows no stages.

With ``random_rejected`` the ranking modes keep their chosen sides, and the other side is drawn at random from the rest
of the initial state: a control that tells what the choice of the rejected side is worth. Its margins may be negative.

Couples that differ by noise only (:mod:`grape.preferences.noise`) make no pair in the ranking modes.

Randomness is a function of the seed, the task and the initial state (and stage) alone, never of the order of the
scores.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from grape.core.preferences import PreferencePair, Score, StageScore
from grape.core.seeds import derive_rng
from grape.preferences.noise import COST_NOISE, ScoreNoise
from grape.preferences.reasons import reason_for, stage_reason
from grape.preferences.segments import stage_members, steps_of

__all__ = [
    "RANKING",
    "Mode",
    "StateCensus",
    "Whole",
    "kind_of_state",
    "limit_pairs",
    "pairs_of_states",
    "states_of",
    "successes_of",
]

Mode = Literal["best-worst", "top-bottom", "success-only", "random", "every-success"]

RANKING: tuple[Mode, ...] = ("best-worst", "top-bottom")
"""Modes in which the score decides who is chosen."""

T = TypeVar("T")

Whole = Callable[[Score], Score]

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
        narrow: Pairs left out because R_GCPG, or the stage's cost, differs by less than the margin or by noise only.
        failed: Pairs left out because the chosen side must succeed and is not known to have.
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


def pairs_of_states(
    scores: Iterable[Score],
    *,
    mode: Mode,
    m: int = 4,
    margin: float = 0.0,
    require_mixed_outcomes: bool = True,
    chosen_must_succeed: bool = False,
    among_successes: bool = False,
    stage_wise: bool = False,
    random_rejected: bool = False,
    seed: int = 0,
    instructions: Mapping[str, str] | None = None,
    noise: ScoreNoise | None = None,
    whole: Whole = lambda score: score,
) -> tuple[list[list[PreferencePair]], dict[str, StateCensus]]:
    """Pairs of each initial state that gives any, and the census of each task.

    Args:
        scores: In any order.
        mode: See the module's text.
        m: Most pairs a state, or a stage of a state (``best-worst`` makes one, ``every-success`` all).
        margin: Least difference of R_GCPG, or of the stage's cost, in the ranking modes, where it must also exceed the
            noise.
        require_mixed_outcomes: Whether states without both a success and a failure are left out, in all modes; states
            with an unknown outcome are, too.
        chosen_must_succeed: Whether pairs are left out whose chosen side is not known to have succeeded, in all modes.
        among_successes: Whether failures are left out of each state before anything is ranked; the census counts the
            states as they were.
        stage_wise: Compare segments of stages instead of whole episodes.
        random_rejected: Draw the rejected side of each pair from all other episodes of the state, whatever their scores
            (ranking modes, whole episodes). Which couples are left out is decided before.
        seed: For what is random.
        instructions: What each episode's policy was told, by episode id: only equal ones are compared.
        noise: Of the scores; None is rounding alone.
        whole: Gives scores that come without stages theirs; called for what becomes a pair, and stage-wise for all.
    """
    groups: list[list[PreferencePair]] = []
    census: dict[str, StateCensus] = {}
    numbers: dict[str, int] = {}
    for (task, initial_state, _), members in states_of(scores, instructions).items():
        kind = kind_of_state([score.success for score in members])
        if among_successes:
            members = successes_of(members)
        pairs: list[PreferencePair] = []
        narrow = failed = 0
        eligible = len(members) > 1 and (kind == "mixed" or not require_mixed_outcomes)
        couples = _stage_couples if stage_wise else _episode_couples
        if stage_wise and eligible:
            members = [whole(score) for score in members]
        for couple in couples(members, mode, m, seed, noise or ScoreNoise()) if eligible else ():
            if chosen_must_succeed and couple.chosen.success is not True:
                failed += 1
            elif mode in RANKING and couple.margin < max(margin, couple.noise):
                narrow += 1
            else:
                # Counted over states that differ in the instruction alone.
                if random_rejected:
                    couple = _with_random_rejected(couple, members, seed)
                if not stage_wise:
                    couple = replace(couple, chosen=whole(couple.chosen), rejected=whole(couple.rejected))
                place = "-".join([task, f"s{initial_state:05d}", *([couple.stages[0].name] if couple.stages else [])])
                pairs.append(_pair(couple, mode, f"{place}-p{numbers.setdefault(place, 0):02d}"))
                numbers[place] += 1
        if stage_wise and mode in RANKING:
            pairs.sort(key=lambda pair: -pair.margin)
        count = StateCensus(**{kind: 1}, used=int(bool(pairs)), narrow=narrow, failed=failed, pairs=len(pairs))
        census[task] = census.get(task, StateCensus()) + count
        if pairs:
            groups.append(pairs)
    return groups, census


def successes_of(members: Iterable[Score]) -> list[Score]:
    """Those that are known to have succeeded, in their order."""
    return [score for score in members if score.success is True]


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


def kind_of_state(
    outcomes: Sequence[bool | None],
) -> Literal["mixed", "all_successes", "all_failures", "single", "unknown"]:
    """How the outcomes of one initial state are mixed: the name of its count in :class:`StateCensus`."""
    if len(outcomes) == 1:
        return "single"
    if None in outcomes:
        return "unknown"
    if not any(outcomes):
        return "all_failures"
    return "all_successes" if all(outcomes) else "mixed"


@dataclass(frozen=True)
class _Couple:
    """Two episodes, or segments of one stage of them, that could become a pair.

    Attributes:
        chosen: Score of the preferred one.
        rejected: Score of the other.
        margin: By how much the chosen one is better, negative where it is not.
        noise: Margins below this say nothing.
        stages: The stage on both sides; empty for whole episodes.
    """

    chosen: Score
    rejected: Score
    margin: float
    noise: float
    stages: tuple[StageScore, ...] = ()


def _episode_couples(members: Sequence[Score], mode: Mode, m: int, seed: int, noise: ScoreNoise) -> list[_Couple]:
    """Couples of one state whose members stand best first."""
    return [
        _Couple(chosen, rejected, chosen.gcpg - rejected.gcpg, noise.between(chosen, rejected))
        for chosen, rejected in _choose(members, members, mode, m, seed)
    ]


def _with_random_rejected(couple: _Couple, members: Sequence[Score], seed: int) -> _Couple:
    """The couple with another rejected side, drawn from all members but the chosen one."""
    chosen = couple.chosen
    others = sorted((other for other in members if other is not chosen), key=lambda score: score.episode_id)
    rng = derive_rng(seed, "pair", "rejected", chosen.episode_id)
    rejected = others[int(rng.integers(len(others)))]
    return replace(couple, rejected=rejected, margin=chosen.gcpg - rejected.gcpg)


def _stage_couples(members: Sequence[Score], mode: Mode, m: int, seed: int, noise: ScoreNoise) -> list[_Couple]:
    """Couples of every stage of one state; what costs are measured with does not depend on the calibration."""
    couples = []
    for name, entered in stage_members(members).items():
        if len(entered) > 1:
            for (chosen, best), (rejected, worst) in _choose(entered, [e[0] for e in entered], mode, m, seed, name):
                couples.append(_Couple(chosen, rejected, worst.cost - best.cost, COST_NOISE, (best, worst)))
    return couples


def _choose(
    ranked: Sequence[T], scores: Sequence[Score], mode: Mode, m: int, seed: int, *stage: str
) -> list[tuple[T, T]]:
    """(chosen, rejected) among what stands best first; ``scores`` are the episodes in the same order."""
    if mode == "best-worst":
        return [(ranked[0], ranked[-1])]
    if mode == "top-bottom":
        return [(ranked[rank], ranked[-1 - rank]) for rank in range(min(m, len(ranked) // 2))]
    rng = derive_rng(seed, "pair", scores[0].task, scores[0].initial_state, *stage)
    by_id = sorted(range(len(ranked)), key=lambda index: scores[index].episode_id)
    shuffled = [by_id[index] for index in rng.permutation(len(by_id))]
    if mode == "random":
        drawn = list(zip(shuffled[::2], shuffled[1::2], strict=False))
    else:
        successes = [index for index in shuffled if scores[index].success]
        failures = [index for index in shuffled if scores[index].success is False]
        if mode == "every-success":
            return [
                (ranked[chosen], ranked[_drawn(failures or [one for one in successes if one != chosen], rng)])
                for chosen in successes
                if failures or len(successes) > 1
            ]
        drawn = list(zip(successes, failures, strict=False))
    return [(ranked[chosen], ranked[rejected]) for chosen, rejected in drawn[:m]]


def _drawn(indices: Sequence[int], rng: np.random.Generator) -> int:
    return indices[int(rng.integers(len(indices)))]


def _pair(couple: _Couple, mode: Mode, pair_id: str) -> PreferencePair:
    chosen, rejected = couple.chosen, couple.rejected
    whole = PreferencePair(
        pair_id=pair_id,
        task=chosen.task,
        initial_state=chosen.initial_state,
        chosen=chosen.episode_id,
        rejected=rejected.episode_id,
        margin=couple.margin,
        mode=mode,
        reason="",
    )
    if not couple.stages:
        terms = {name: value - rejected.terms[name] for name, value in chosen.terms.items()}
        return replace(whole, reason=reason_for(chosen, rejected, mode), terms=terms)
    best, worst = couple.stages
    return replace(
        whole,
        mode=f"stage-wise {mode}",
        reason=stage_reason(best, worst, mode),
        terms={"stage": couple.margin},
        chosen_steps=steps_of(best),
        rejected_steps=steps_of(worst),
    )
