"""The verb ``pair``: preference pairs from scores."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.errors import DataError, NoPairsError
from grape.core.events import SILENT, Reporter
from grape.core.files import file_hash, write_jsonl
from grape.core.preferences import PreferencePair, Score
from grape.core.runs import is_complete, load_summary, open_run
from grape.preferences.judging import pairs_by_judge, rankings_of
from grape.preferences.noise import ScoreNoise
from grape.preferences.pair_settings import PairSettings, check_pair
from grape.preferences.pairing import RANKING, StateCensus, limit_pairs, pairs_of_states, successes_of
from grape.preferences.records import (
    PAIRS_FILE,
    SCORES_FILE,
    ScoreFile,
    load_scorer_values,
    pair_to_row,
    store_reference,
    stores_of_summary,
)
from grape.preferences.score import warn_of_old_scores
from grape.preferences.segments import cut_pair
from grape.preferences.weights import margin_weights
from grape.scorers import ScorerValues
from grape.store import Episodes, EpisodeStore, open_stores

__all__ = ["SelectedPairs", "run_pair", "select_pairs"]


def run_pair(settings: PairSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Make the pairs.

    Returns:
        Summary: ``pairs``, ``mean_margin``, ``store`` or ``stores`` (as seen from ``out``), ``tasks`` with the census
        of each, and the same ``overall``; ``chosen_success_rate`` and ``rejected_success_rate``; where pairs are cut,
        ``cut`` with how many ``pairs`` were shortened and the ``rejected_decisions`` before and after (``..._kept``);
        ``stage_wise`` and ``weight`` where they were set; with ``among_successes`` how many episodes were ``left_out``,
        which the census counts nevertheless. Margins of stage-wise pairs are in units of cost. ``judge``:
        how many couples it was asked about, and what it answered.

    Raises:
        SettingsError: A setting is out of range, or two contradict each other.
        DataError: The scores are missing or damaged.
        NoPairsError: No pair can be made from them; then nothing is written but the answers of a judge, which belong
            to these settings: others need another ``out`` and ask it again.
        ProgramError: An external judge does not start, or keeps failing.
        CompatibilityError: ``out`` belongs to another run.
    """
    choice = check_pair(settings)
    scored = load_summary(settings.scores, "score")
    scores = ScoreFile(settings.scores / SCORES_FILE)
    warn_of_old_scores(settings.scores, scored, reporter)
    store = open_stores(stores_of_summary(scored, settings.scores, "score"))
    selected, run = None, None
    inputs: dict[str, Any] = {"scores": file_hash(settings.scores / SCORES_FILE)}
    values: Mapping[str, ScorerValues] = {}
    if choice is not None:
        # Its answers may be dear: they are kept in the folder as they come.
        inputs["judge"] = choice.identity()
        values = load_scorer_values(settings.scores, scored)
        run = open_run(settings.out, "pair", settings, inputs)
    if not is_complete(settings.out):
        where = str(settings.scores / "done.json")
        selected = select_pairs(settings, scores, store, scored, where, reporter, values, settings.out)
    # Claimed only now: a folder that could not be filled is free for another try with other settings.
    run = run or open_run(settings.out, "pair", settings, inputs)
    if run.done is not None or selected is None:
        return run.done or {}
    summary = selected.summary(**store_reference(store, settings.out))
    write_jsonl(settings.out / PAIRS_FILE, map(pair_to_row, selected.pairs))
    run.finish(summary)
    return summary


@dataclass(frozen=True)
class SelectedPairs:
    """What pairing gives.

    Attributes:
        pairs: In the order of the file.
        figures: Counts and rates.
        census: What became of the initial states, overall and by task, and what else the summary holds.
    """

    pairs: Sequence[PreferencePair]
    figures: Mapping[str, Any]
    census: Mapping[str, Any]

    def summary(self, **place: Any) -> dict[str, Any]:
        """The summary of ``grape pair``; ``place`` says where the episodes are."""
        return {**self.figures, **place, **self.census}


def select_pairs(
    settings: PairSettings,
    scores: Mapping[str, Score],
    episodes: Episodes,
    scored: Mapping[str, Any],
    where: str,
    reporter: Reporter,
    values: Mapping[str, ScorerValues] | None = None,
    folder: Path | None = None,
) -> SelectedPairs:
    """Make the pairs of scored episodes, weighted and cut as the settings say.

    Args:
        settings: How; paths are not read.
        scores: By episode id; of those in a file, stages are read for what becomes a pair.
        episodes: The episodes that were scored.
        scored: The summary of scoring.
        where: What messages call it.
        reporter: Hears of how many pairs were made.
        values: Of further scorers, by label.
        folder: Where the answers of a judge are kept; None keeps them in memory.

    Raises:
        ProgramError: An external judge does not start, or keeps failing.
        DataError: An episode is missing, or the summary does not say how scores were calibrated.
        NoPairsError: No pair can be made.
    """
    given, scores = scores, scores.brief if isinstance(scores, ScoreFile) else scores
    common: dict[str, Any] = {
        "mode": settings.mode,
        "m": settings.m,
        "margin": settings.margin,
        "require_mixed_outcomes": settings.require_mixed_outcomes,
        "chosen_must_succeed": settings.chosen_must_succeed,
        "among_successes": settings.among_successes,
        "seed": settings.seed,
        "instructions": _instructions(episodes, scores),
        "whole": lambda score: given[score.episode_id],
    }
    noise = ScoreNoise.of_summary(scored, {score.task for score in scores.values()}, where)
    facts: dict[str, Any] = {}
    if settings.judge:
        rankings = rankings_of(scores, noise, values or {})
        groups, census, facts["judge"] = pairs_by_judge(settings, scores, episodes, rankings, common, folder, reporter)
    else:
        groups, census = pairs_of_states(
            scores.values(),
            stage_wise=settings.stage_wise,
            random_rejected=settings.rejected == "random",
            noise=noise,
            **common,
        )
    overall = sum(census.values(), StateCensus())
    if not groups:
        raise _no_pair(settings, overall, facts.get("judge", {}).get("unanswered", 0), kept=folder is not None)
    limited = limit_pairs(groups, per_state=settings.max_pairs_per_state, total=settings.max_pairs, seed=settings.seed)
    read = functools.partial(episodes.read, frames=False)
    parts = given if settings.cut == "stage" else scores
    cut = [
        cut_pair(pair, settings.cut, (parts[pair.chosen], parts[pair.rejected]), read, settings.cut_distance)
        for pair in limited
    ]
    pairs = _weighted(settings, cut)
    figures = {
        "pairs": len(pairs),
        "mode": settings.mode,
        "mean_margin": sum(pair.margin for pair in pairs) / len(pairs),
        "chosen_success_rate": _success_rate(scores[pair.chosen].success for pair in pairs),
        "rejected_success_rate": _success_rate(scores[pair.rejected].success for pair in pairs),
    }
    facts |= {
        "overall": _census(overall, pairs),
        "tasks": {task: _census(item, [pair for pair in pairs if pair.task == task]) for task, item in census.items()},
    }
    if settings.among_successes:
        facts["among_successes"] = True
        facts["left_out"] = len(scores) - len(successes_of(scores.values()))
    if settings.stage_wise:
        facts["stage_wise"] = True
    if settings.weight != "none":
        facts["weight"] = settings.weight
    if settings.cut != "none":
        facts["cut"] = _lengths(limited, cut, scores)
    near = "are ties, or less than the margin apart" if settings.judge else "differ by noise or less than the margin"
    narrow = f"; {overall.narrow} couples {near}" if overall.narrow else ""
    reporter.info(f"{len(pairs)} pairs from {facts['overall']['used']} initial states{narrow}")
    return SelectedPairs(pairs, figures, facts)


def _weighted(settings: PairSettings, pairs: list[PreferencePair]) -> list[PreferencePair]:
    if settings.weight == "none":
        return pairs
    weights = margin_weights([pair.margin for pair in pairs])
    return [dataclasses.replace(pair, weight=weight) for pair, weight in zip(pairs, weights, strict=True)]


def _lengths(
    whole: Sequence[PreferencePair], cut: Sequence[PreferencePair], scores: Mapping[str, Score]
) -> dict[str, int]:
    """How many pairs were cut, and the control steps of all rejected sides before and after."""

    def decisions(pairs: Sequence[PreferencePair]) -> int:
        ranges = [pair.rejected_steps or (0, scores[pair.rejected].steps) for pair in pairs]
        return sum(stop - start for start, stop in ranges)

    shortened = sum(pair != other for pair, other in zip(whole, cut, strict=True))
    return {"pairs": shortened, "rejected_decisions": decisions(whole), "rejected_decisions_kept": decisions(cut)}


def _instructions(episodes: Episodes, scores: Mapping[str, Score]) -> dict[str, str]:
    """What each scored episode's policy was told."""
    instructions = {meta.episode_id: meta.instruction for meta in episodes.metas()}
    missing = [name for name in scores if name not in instructions]
    if missing:
        place = f"Store {episodes.place}" if isinstance(episodes, EpisodeStore) else "What is in memory"
        raise DataError(
            f"{place} lacks {len(missing)} episodes of the scores, the first being {missing[0]}.",
            "Run 'grape collect' and 'grape score' again.",
        )
    return {name: instructions[name] for name in scores}


def _success_rate(outcomes: Iterable[bool | None]) -> float | None:
    """Share of successes among the known outcomes; None without any."""
    known = [outcome for outcome in outcomes if outcome is not None]
    return sum(known) / len(known) if known else None


_ANOTHER_OUT = " --out keeps the answers for these settings alone: others need another --out and ask the judge again."


def _census(census: StateCensus, pairs: list[PreferencePair]) -> dict[str, int]:
    """Counts after the limits."""
    used = len({(pair.task, pair.initial_state) for pair in pairs})
    return vars(dataclasses.replace(census, used=used, pairs=len(pairs)))


def _no_pair(settings: PairSettings, census: StateCensus, unanswered: int, kept: bool) -> NoPairsError:
    """Error that says what the initial states were like and what to try."""
    kinds = {
        "both outcomes": census.mixed,
        "only successes": census.all_successes,
        "only failures": census.all_failures,
        "an unknown outcome": census.unknown,
        "a single episode": census.single,
    }
    listing = ", ".join(f"{count} with {kind}" for kind, count in kinds.items() if count)
    total = sum(kinds.values())
    near = "are ties of the judge or below the margin" if settings.judge else "lie within the margin"
    or_noise = "" if settings.judge else " or noise"
    narrow = f" {census.narrow} pairs {near} {settings.margin:g}{or_noise}." if census.narrow else ""
    failed = f" {census.failed} pairs have a chosen side that did not succeed." if census.failed else ""
    silent = f" The judge has no answer to {unanswered} questions." if unanswered else ""
    seen = census.narrow or census.failed or (settings.require_mixed_outcomes and not census.mixed)
    apart = " No two episodes of one state spent steps in one stage." if settings.stage_wise and not seen else ""
    states = f"{total} initial states ({listing})" if total else "no initial state"
    among = " Only successes count (--among-successes)." if settings.among_successes else ""
    return NoPairsError(
        f"No preference pair can be made from {states}.{narrow}{failed}{silent}{apart}{among}",
        " Otherwise ".join(_advice(settings, census)) + (_ANOTHER_OUT if settings.judge and kept else ""),
    )


def _advice(settings: PairSettings, census: StateCensus) -> list[str]:
    """What to try where no pair was made: a sentence, and the rest of one that "Otherwise" begins where more helps."""
    advice = []
    of_one_kind = 0 if census.mixed else census.all_failures + census.all_successes + census.unknown
    if census.narrow:
        other = "choose another --judge" if settings.judge else "collect with a higher --temperature"
        advice.append("lower --margin" if settings.margin > 0 else other)
    elif settings.require_mixed_outcomes and of_one_kind and settings.mode in RANKING:
        advice.append("pass --no-require-mixed-outcomes to rank by costs and likelihood alone")
    if census.failed:
        advice.append("pass --no-chosen-must-succeed")
    if settings.among_successes:
        advice.append("leave --among-successes out")
    if not census.narrow:
        if census.all_failures >= max(1, census.all_successes + census.unknown):
            advice.append("collect from a better policy or on easier tasks")
        elif census.all_successes:
            advice.append("collect with a higher --temperature or on harder tasks")
    advice.append("collect more --samples of each initial state")
    return [f"{text}." for text in (advice[0][0].upper() + advice[0][1:], *advice[1:2])]
