"""The judge of ``grape pair``: opened with the recorded scores at hand, asked, and what it answered in numbers."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grape.core.errors import SettingsError
from grape.core.events import Reporter
from grape.core.preferences import PreferencePair, Score
from grape.judges import AskedJudge, JudgeContext, open_judge, parse_judge
from grape.judges.asking import JUDGMENTS_FILE
from grape.judges.builtin import Difference
from grape.judges.registry import R_GCPG
from grape.preferences.judged import judged_pairs
from grape.preferences.noise import ScoreNoise
from grape.preferences.pairing import RANKING, StateCensus, states_of, successes_of
from grape.scorers import ScorerValues
from grape.store import Episodes, EpisodeStore

if TYPE_CHECKING:
    from grape.preferences.pair_settings import PairSettings

__all__ = ["pairs_by_judge", "rankings_of"]


def rankings_of(
    scores: Mapping[str, Score], noise: ScoreNoise, values: Mapping[str, ScorerValues]
) -> dict[str, Difference]:
    """By how much one episode is better than another, by each recorded value: R_GCPG and all further scorers.

    Args:
        scores: By episode id.
        noise: Of R_GCPG.
        values: Of further scorers, by label.
    """

    def of_score(one: str, other: str) -> float | None:
        lead = scores[one].gcpg - scores[other].gcpg
        return lead if abs(lead) >= noise.between(scores[one], scores[other]) else 0.0

    return {label: _of_values(item) for label, item in values.items()} | {R_GCPG: of_score}


def _of_values(values: ScorerValues) -> Difference:
    by_episode = values.by_episode()

    def difference(one: str, other: str) -> float | None:
        first, second = by_episode.get(one), by_episode.get(other)
        if first is None or second is None:
            return None
        return first - second if abs(first - second) > values.noise else 0.0

    return difference


def pairs_by_judge(
    settings: "PairSettings",
    scores: Mapping[str, Score],
    episodes: Episodes,
    rankings: Mapping[str, Difference],
    common: Mapping[str, Any],
    folder: Path | None,
    reporter: Reporter,
) -> tuple[list[list[PreferencePair]], dict[str, StateCensus], dict[str, Any]]:
    """Pairs by the judge of the settings.

    Args:
        settings: Those of the verb.
        scores: By episode id.
        episodes: The episodes that were scored.
        rankings: Recorded values that a judge may rank by.
        common: Arguments of :func:`grape.preferences.judged.judged_pairs`.
        folder: Where answers are kept; None keeps them in memory.
        reporter: Hears of progress and warnings.

    Returns:
        Pairs by initial state, the census, and what the judge answered.

    Raises:
        SettingsError: The judge answered nothing at all.
        ProgramError: An external judge does not start, or keeps failing.
    """
    choice = parse_judge(settings.judge)
    checksums = episodes.checksums() if isinstance(episodes, EpisodeStore) else {}
    context = JudgeContext(rankings, checksums, settings.seed, settings.program_timeout, reporter, folder)
    judge = open_judge(choice, context)
    try:
        log = None if folder is None else folder / JUDGMENTS_FILE
        recorded = AskedJudge(judge, episodes, seed=settings.seed, both_orders=settings.both_orders, log=log)
        states = len({(score.task, score.initial_state) for score in scores.values()})
        with reporter.progress(f"judging by {choice.label}", states) as progress:
            known = recorded.known_couples
            if known is not None:
                _say_what_is_known(choice.label, known, scores, common, reporter)
            groups, census = judged_pairs(
                scores.values(), recorded.compare, choice.label, known=known, advance=progress.advance, **common
            )
        provenance = dict(judge.provenance())
    finally:
        judge.close()
    answers = recorded.answers
    unanswered = [answer for answer in answers if answer.p is None]
    if answers and len(unanswered) == len(answers):
        raise SettingsError(
            f"Judge '{choice.label}' has no answer to any of {len(answers)} couples; first: {unanswered[0].problem}.",
            "Choose another judge.",
        )
    if groups:
        # Without pairs the run is not over, and what a program failed at is tried again.
        recorded.finish()
    if unanswered:
        reporter.warn(
            f"Judge '{choice.label}' has no answer to {len(unanswered)} of {len(answers)} couples, first "
            f"{unanswered[0].a} and {unanswered[0].b}: {unanswered[0].problem}."
        )
    facts = {
        "label": choice.label,
        "answers": len(answers),
        "ties": sum(answer.p == 0.5 for answer in answers),
        "unanswered": len(unanswered),
        "provenance": provenance,
    }
    return groups, census, facts


def _say_what_is_known(
    label: str,
    known: frozenset[frozenset[str]],
    scores: Mapping[str, Score],
    common: Mapping[str, Any],
    reporter: Reporter,
) -> None:
    """Warn of a ranking by a judge that knows but some of the couples to be ranked.

    Raises:
        SettingsError: It knows none of them.
    """
    counted = successes_of(scores.values()) if common["among_successes"] else scores.values()
    couples = [
        frozenset((one.episode_id, other.episode_id))
        for members in states_of(counted, common["instructions"]).values()
        for one, other in itertools.combinations(members, 2)
    ]
    count = sum(couple in known for couple in couples)
    if couples and not count:
        raise SettingsError(
            f"Judge '{label}' knows none of the {len(couples)} couples that could be paired.",
            "Vote on episodes of these scores (grape label --scores), or choose another judge.",
        )
    if common["mode"] in RANKING and count < len(couples):
        reporter.warn(
            f"Judge '{label}' knows {count} of {len(couples)} couples, and --mode {common['mode']} ranks by all of "
            "them: most of what it knows makes no pair. --mode random pairs by the couples that it knows."
        )
