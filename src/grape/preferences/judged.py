"""Pairs by the word of a judge: which couples of an initial state are judged, and what becomes of the answers.

In the ranking modes every couple of an initial state is judged, and an episode's rank is the mean probability with
which it is better than the others (a Borda count; equals by their ids). Then couples stand as always: best against
worst, or rank by rank from both ends. In mode ``random`` up to ``m`` couples are drawn, and only those are judged: the
way to go where a judgment costs money or a person's time. A judge that knows certain couples alone, as votes do, is
asked about these: drawn in random order until they made ``m`` pairs, so that an episode may be in several of them.

The margin of a pair is ``2 p - 1``, where ``p`` is the judge's probability that the chosen side of this very couple is
better. A tie makes no pair, nor does a couple on which the judge contradicts its own ranking.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

from grape.core.preferences import PreferencePair, Score
from grape.core.seeds import derive_rng
from grape.judges import Judgment
from grape.preferences.pairing import RANKING, Mode, StateCensus, Whole, kind_of_state, states_of, successes_of
from grape.preferences.reasons import judged_reason

__all__ = ["JUDGED_MODES", "judged_pairs"]

JUDGED_MODES: tuple[Mode, ...] = (*RANKING, "random")
"""Modes in which a judge can say who is chosen."""

Compare = Callable[[str, str], Judgment]


def judged_pairs(
    scores: Iterable[Score],
    compare: Compare,
    label: str,
    *,
    mode: Mode,
    m: int,
    margin: float,
    require_mixed_outcomes: bool,
    chosen_must_succeed: bool,
    among_successes: bool,
    seed: int,
    instructions: Mapping[str, str],
    known: frozenset[frozenset[str]] | None = None,
    advance: Callable[[], None] = lambda: None,
    whole: Whole = lambda score: score,
) -> tuple[list[list[PreferencePair]], dict[str, StateCensus]]:
    """Pairs of each initial state that gives any, and the census of each task.

    Args:
        scores: In any order; who is chosen does not depend on them.
        compare: The judge.
        label: What the judge is called.
        mode: See the module's text.
        m: Most pairs a state.
        margin: Least margin, in [0, 1].
        require_mixed_outcomes: Whether states without both a success and a failure are left out.
        chosen_must_succeed: Whether pairs are left out whose chosen side is not known to have succeeded.
        among_successes: Whether failures are left out of each state before it is judged.
        seed: For what is random.
        instructions: What each episode's policy was told, by episode id.
        known: The couples about which the judge can be asked; None for any.
        advance: Called once a state.
        whole: Gives the stages of scores that come without them.
    """
    groups: list[list[PreferencePair]] = []
    census: dict[str, StateCensus] = {}
    numbers: dict[str, int] = {}
    for (task, initial_state, _), members in states_of(scores, instructions).items():
        kind = kind_of_state([score.success for score in members])
        if among_successes:
            members = successes_of(members)
        eligible = len(members) > 1 and (kind == "mixed" or not require_mixed_outcomes)
        by_id = {score.episode_id: score for score in sorted(members, key=lambda score: score.episode_id)}
        pairs: list[PreferencePair] = []
        narrow = failed = 0
        place = (seed, task, initial_state)
        for first, second in _couples(list(by_id), compare, mode, m, place, known) if eligible else ():
            if len(pairs) == m:
                break
            judgment = compare(first, second)
            if judgment.p is None:
                continue  # no tie: the judge says nothing
            lead = 2.0 * judgment.p - 1.0
            # In the ranking modes the ranking says who is chosen, else the judgment itself.
            chosen, rejected = (first, second) if mode in RANKING or lead > 0 else (second, first)
            lead = lead if mode in RANKING else abs(lead)
            if lead <= 0.0 or lead < margin:
                narrow += 1
            elif chosen_must_succeed and by_id[chosen].success is not True:
                failed += 1
            else:
                name = f"{task}-s{initial_state:05d}"
                pair_id = f"{name}-p{numbers.setdefault(name, 0):02d}"
                numbers[name] += 1
                sides = whole(by_id[chosen]), whole(by_id[rejected])
                pairs.append(_pair(pair_id, *sides, lead, label, mode, judgment.reason))
        count = StateCensus(**{kind: 1}, used=int(bool(pairs)), narrow=narrow, failed=failed, pairs=len(pairs))
        census[task] = census.get(task, StateCensus()) + count
        if pairs:
            groups.append(pairs)
        advance()
    return groups, census


def _couples(
    names: Sequence[str],
    compare: Compare,
    mode: Mode,
    m: int,
    place: tuple[int, str, int],
    known: frozenset[frozenset[str]] | None,
) -> list[tuple[str, str]]:
    """Couples of one state; in the ranking modes the better ranked one comes first."""
    if mode == "random":
        seed, task, initial_state = place
        rng = derive_rng(seed, "pair", task, initial_state)
        if known is not None:
            couples = [couple for couple in itertools.combinations(names, 2) if frozenset(couple) in known]
            return [couples[index] for index in rng.permutation(len(couples))]
        order = rng.permutation(len(names))
        shuffled = [names[index] for index in order]
        return list(zip(shuffled[::2], shuffled[1::2], strict=False))[:m]
    shares: dict[str, list[float]] = {}
    for one, other in itertools.combinations(names, 2):
        p = compare(one, other).p
        if p is not None:
            shares.setdefault(one, []).append(p)
            shares.setdefault(other, []).append(1.0 - p)
    ranked = sorted(shares, key=lambda name: (-sum(shares[name]) / len(shares[name]), name))
    if len(ranked) < 2:
        return []
    if mode == "best-worst":
        return [(ranked[0], ranked[-1])]
    return [(ranked[rank], ranked[-1 - rank]) for rank in range(min(m, len(ranked) // 2))]


def _pair(
    pair_id: str, chosen: Score, rejected: Score, lead: float, label: str, mode: Mode, reason: str
) -> PreferencePair:
    return PreferencePair(
        pair_id=pair_id,
        task=chosen.task,
        initial_state=chosen.initial_state,
        chosen=chosen.episode_id,
        rejected=rejected.episode_id,
        margin=lead,
        mode=f"{mode} by judge {label}",
        reason=judged_reason(chosen, rejected, label, (1.0 + lead) / 2.0, reason),
        terms={"judge": lead},
    )
