"""The verb ``pair``: preference pairs from scores."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from grape.core.errors import DataError, NoPairsError, SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.files import file_hash, write_jsonl
from grape.core.preferences import PreferencePair, Score
from grape.core.runs import is_complete, load_summary, open_run
from grape.core.settings import Range, check_ranges, setting
from grape.judges import JudgeChoice, parse_judge
from grape.preferences.judged import JUDGED_MODES
from grape.preferences.judging import pairs_by_judge, rankings_of
from grape.preferences.noise import ScoreNoise
from grape.preferences.pairing import RANKING, Mode, StateCensus, limit_pairs, pairs_of_states
from grape.preferences.records import (
    PAIRS_FILE,
    SCORES_FILE,
    load_scorer_values,
    load_scores,
    pair_to_row,
    store_of_summary,
)
from grape.preferences.score import portable_path, warn_of_old_scores
from grape.preferences.segments import Cut, cut_pair
from grape.preferences.weights import margin_weights
from grape.scorers import ScorerValues
from grape.store import Episodes, EpisodeStore

__all__ = ["PairSettings", "SelectedPairs", "check_pair", "run_pair", "select_pairs"]

_CHOICE, _NUMBER, _PARTS, _JUDGE = "Which pairs", "How many", "What of them counts", "The judge"


@dataclass(frozen=True)
class PairSettings:
    """Make preference pairs: a better and a worse trajectory of the same task and initial state, and why.

    Attributes:
        scores: Folder that grape score wrote.
        out: Folder to write: pairs.jsonl, one pair a line.
        mode: best-worst: highest against lowest R_GCPG of each initial state. top-bottom: rank by rank from both ends,
            best against worst, second best against second worst, up to m pairs. success-only: a random success
            against a random failure, up to m pairs, ignoring the other terms. random: two random episodes in random
            order, up to m pairs, ignoring score and outcome (for controlled comparison). every-success: each success
            once, against a random failure if there is one (for filtered BC, which imitates chosen sides alone).
        stage_wise: Compare segments instead of whole episodes: the control steps of one stage in two episodes that both
            entered it, ranked by what that stage cost them (not for success-only). The other settings hold for each
            stage: which outcomes count, and that the chosen side's episode must have succeeded.
        rejected: ranked: the mode says which. random: the ranking modes keep their chosen sides, but the other side is
            drawn at random among all other episodes of the initial state (for controlled comparison).
        m: Most pairs an initial state, or a stage of it (1 or more; best-worst makes one, every-success all).
        margin: Least difference (0 or more) in the ranking modes: of R_GCPG, or stage-wise of the stage's cost. Pairs
            that differ by no more than measurement noise are left out anyway.
        require_mixed_outcomes: Use only initial states with both a success and a failure. Otherwise the soft terms
            rank states of one outcome, too.
        chosen_must_succeed: Leave out pairs whose chosen side failed. Training never imitates such a side, it only
            prefers it to the other one.
        max_pairs_per_state: Keep at most so many pairs an initial state, the widest margins first in the ranking
            modes (1 or more); None keeps all.
        max_pairs: Keep at most so many pairs, spread evenly over the initial states (1 or more); None keeps all.
        cut: Which control steps of the rejected side count, from its first on; the chosen side stays whole. stage: as
            many as until the sides' progress through the stages differs. distance: until its keypoints are further than
            --cut-distance from all states of the chosen side. length: no more than the chosen side has. Stage-wise
            pairs can be cut by length only.
        cut_distance: Largest distance of a keypoint, in meters, at which states count as near, above 0; only with
            --cut distance.
        weight: none: all pairs count equally. margin: pairs weigh in proportion to their margins, between 1/4 and 4
            and 1 on average; for the ranking modes.
        seed: Seed of what is random.
        judge: Who says which side is better, in place of R_GCPG: score (or score:LABEL, a scorer that grape score
            stored), success, random, scorer:SCORER, votes:FOLDER, vlm:FILE, one of an installed package, or the command
            line of a program that reads and writes JSON lines. In the ranking modes all couples of an initial state are
            judged, in mode random the m drawn ones.
        both_orders: Show the judge each couple both ways; contradicting answers are a tie.
        program_timeout: Seconds (above 0) within which an external judge must start, and answer each request. One that
            does not is started again; after three attempts the couple has no answer.
    """

    scores: Path = setting(identity=False, common=True)
    out: Path = setting(identity=False, common=True)
    mode: Mode = setting("top-bottom", group=_CHOICE, common=True)
    stage_wise: bool = setting(False, group=_CHOICE, identity="unless default", common=True)
    rejected: Literal["ranked", "random"] = setting("ranked", group=_CHOICE, identity="unless default")
    m: int = setting(4, group=_NUMBER, range=Range(1), common=True)
    margin: float = setting(0.0, group=_CHOICE, range=Range(0), common=True)
    require_mixed_outcomes: bool = setting(False, group=_CHOICE, common=True)
    chosen_must_succeed: bool = setting(False, group=_CHOICE, common=True)
    max_pairs_per_state: int | None = setting(None, group=_NUMBER, range=Range(1), common=True)
    max_pairs: int | None = setting(None, group=_NUMBER, range=Range(1), common=True)
    cut: Cut = setting("none", group=_PARTS, identity="unless default", common=True)
    cut_distance: float = setting(0.05, group=_PARTS, range=Range(0, open_low=True), identity="unless default")
    weight: Literal["none", "margin"] = setting("none", group=_PARTS, identity="unless default", common=True)
    seed: int = setting(0, group=_CHOICE, common=True)
    judge: str = setting("", group=_JUDGE, identity="unless default", common=True)
    both_orders: bool = setting(False, group=_JUDGE, identity="unless default")
    program_timeout: float = setting(600.0, group=_JUDGE, range=Range(0, open_low=True), identity=False)


def run_pair(settings: PairSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Make the pairs.

    Returns:
        Summary: ``pairs``, ``mean_margin``, ``store`` (as seen from ``out``), ``tasks`` with the census of each,
        and the same ``overall``; ``chosen_success_rate`` and ``rejected_success_rate``; where pairs are cut, ``cut``
        with how many ``pairs`` were shortened and the ``rejected_decisions`` before and after (``..._kept``);
        ``stage_wise`` and ``weight`` where they were set. Margins of stage-wise pairs are in units of cost. ``judge``:
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
    scores = load_scores(settings.scores / SCORES_FILE)
    warn_of_old_scores(settings.scores, scored, reporter)
    store = EpisodeStore.open(store_of_summary(scored, settings.scores, "score"))
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
    summary = selected.summary(store=portable_path(store.path, settings.out))
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

    def summary(self, **place: str) -> dict[str, Any]:
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
        scores: By episode id.
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
    common: dict[str, Any] = {
        "mode": settings.mode,
        "m": settings.m,
        "margin": settings.margin,
        "require_mixed_outcomes": settings.require_mixed_outcomes,
        "chosen_must_succeed": settings.chosen_must_succeed,
        "seed": settings.seed,
        "instructions": _instructions(episodes, scores),
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
    cut = [
        cut_pair(pair, settings.cut, (scores[pair.chosen], scores[pair.rejected]), read, settings.cut_distance)
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
        place = f"Store {episodes.path}" if isinstance(episodes, EpisodeStore) else "What is in memory"
        raise DataError(
            f"{place} lacks {len(missing)} episodes of the scores, the first being {missing[0]}.",
            "Run 'grape collect' and 'grape score' again.",
        )
    return {name: instructions[name] for name in scores}


def _success_rate(outcomes: Iterable[bool | None]) -> float | None:
    """Share of successes among the known outcomes; None without any."""
    known = [outcome for outcome in outcomes if outcome is not None]
    return sum(known) / len(known) if known else None


def check_pair(settings: PairSettings) -> JudgeChoice | None:
    """Refuse values that make no sense, before anything is read; returns the judge, if there is one.

    Raises:
        SettingsError: A number is out of range, a judge is unknown, or two settings contradict each other.
    """
    check_ranges(settings)
    if settings.cut != "distance" and settings.cut_distance != PairSettings.cut_distance:
        raise SettingsError(
            "--cut-distance has no meaning without --cut distance.", "Give --cut distance, or leave --cut-distance out."
        )
    if settings.stage_wise and settings.mode in ("success-only", "every-success"):
        raise SettingsError(
            f"--stage-wise ranks by what a stage cost, --mode {settings.mode} ignores costs.",
            "Choose --mode top-bottom, best-worst or, as a control, random.",
        )
    if settings.stage_wise and settings.cut not in ("none", "length"):
        raise SettingsError(
            f"--stage-wise compares segments of one stage, which --cut {settings.cut} cannot cut.",
            "Choose --cut length or none, or leave --stage-wise out.",
        )
    if settings.rejected == "random" and (settings.mode not in RANKING or settings.stage_wise):
        other = "--stage-wise" if settings.stage_wise else f"--mode {settings.mode}"
        raise SettingsError(
            f"--rejected random keeps the chosen sides of a ranking of whole episodes, which {other} is not.",
            f"Choose --mode {' or '.join(RANKING)} without --stage-wise, or leave --rejected out.",
        )
    if settings.rejected == "random" and settings.weight == "margin":
        raise SettingsError(
            "--weight margin needs margins that say which side is better; with --rejected random they do not.",
            "Leave one of them out.",
        )
    if settings.weight == "margin" and settings.mode not in RANKING and not settings.judge:
        raise SettingsError(
            f"--weight margin needs margins that say which side is better; --mode {settings.mode} ignores them.",
            f"Choose --mode {' or '.join(RANKING)}, or leave --weight out.",
        )
    if settings.both_orders and not settings.judge:
        raise SettingsError("--both-orders has no meaning without --judge.", "Give --judge, or leave it out.")
    if not settings.judge:
        return None
    if settings.mode not in JUDGED_MODES or settings.stage_wise or settings.rejected == "random":
        other = "--stage-wise" if settings.stage_wise else "--rejected random"
        other = f"--mode {settings.mode}" if settings.mode not in JUDGED_MODES else other
        raise SettingsError(
            f"--judge compares whole episodes and says which side is chosen, {other} does otherwise.",
            f"Choose --mode {', '.join(JUDGED_MODES)} without --stage-wise and --rejected, or leave --judge out.",
        )
    if settings.margin > 1:
        raise SettingsError(f"--margin is {settings.margin}.", "With --judge margins are 2 p - 1, at most 1.")
    return parse_judge(settings.judge)


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
    return NoPairsError(
        f"No preference pair can be made from {total} initial states ({listing}).{narrow}{failed}{silent}{apart}",
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
    if not census.narrow:
        if census.all_failures >= max(1, census.all_successes + census.unknown):
            advice.append("collect from a better policy or on easier tasks")
        elif census.all_successes:
            advice.append("collect with a higher --temperature or on harder tasks")
    advice.append("collect more --samples of each initial state")
    return [f"{text}." for text in (advice[0][0].upper() + advice[0][1:], *advice[1:2])]
