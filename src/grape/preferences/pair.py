"""The verb ``pair``: preference pairs from scores."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.errors import DataError, NoPairsError
from grape.core.events import SILENT, Reporter
from grape.core.files import file_hash, write_jsonl
from grape.core.preferences import PreferencePair, Score
from grape.core.runs import load_summary, open_run
from grape.core.settings import Range, check_ranges, setting
from grape.preferences.pairing import Mode, StateCensus, limit_pairs, make_pairs
from grape.preferences.records import PAIRS_FILE, SCORES_FILE, pair_to_row, read_scores, recorded_store
from grape.preferences.score import portable_path, warn_of_old_scores
from grape.store import EpisodeStore

__all__ = ["PairSettings", "check_pair", "run_pair"]

_CHOICE, _NUMBER = "Which pairs", "How many"


@dataclass(frozen=True)
class PairSettings:
    """Make preference pairs: a better and a worse trajectory of the same task and initial state, and why.

    Attributes:
        scores: Folder that grape score wrote.
        out: Folder to write: pairs.jsonl, one pair a line.
        mode: best-worst: highest against lowest R_GCPG of each initial state. top-bottom: rank by rank from both ends,
            best against worst, second best against second worst, up to m pairs. success-only: a random success
            against a random failure, up to m pairs, ignoring the other terms. random: two random episodes in random
            order, up to m pairs, ignoring score and outcome (for controlled comparison).
        m: Most pairs an initial state (1 or more; best-worst makes one).
        margin: Least difference of R_GCPG (0 or more) in the ranking modes; pairs without any are left out anyway.
        require_mixed_outcomes: Use only initial states with both a success and a failure. Otherwise the soft terms
            rank states of one outcome, too.
        chosen_must_succeed: Leave out pairs whose chosen side failed. Training never imitates such a side, it only
            prefers it to the other one.
        max_pairs_per_state: Keep at most so many pairs an initial state, the widest margins first in the ranking
            modes (1 or more); None keeps all.
        max_pairs: Keep at most so many pairs, spread evenly over the initial states (1 or more); None keeps all.
        seed: Seed of what is random.
    """

    scores: Path = setting(identity=False, common=True)
    out: Path = setting(identity=False, common=True)
    mode: Mode = setting("top-bottom", group=_CHOICE, common=True)
    m: int = setting(4, group=_NUMBER, range=Range(1), common=True)
    margin: float = setting(0.0, group=_CHOICE, range=Range(0), common=True)
    require_mixed_outcomes: bool = setting(False, group=_CHOICE, common=True)
    chosen_must_succeed: bool = setting(False, group=_CHOICE, common=True)
    max_pairs_per_state: int | None = setting(None, group=_NUMBER, range=Range(1), common=True)
    max_pairs: int | None = setting(None, group=_NUMBER, range=Range(1), common=True)
    seed: int = setting(0, group=_CHOICE, common=True)


def run_pair(settings: PairSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Make the pairs.

    Returns:
        Summary: ``pairs``, ``mean_margin``, ``store`` (as seen from ``out``), ``tasks`` with the census of each,
        and the same ``overall``; ``chosen_success_rate`` and ``rejected_success_rate``.

    Raises:
        SettingsError: A setting is out of range.
        DataError: The scores are missing or damaged.
        NoPairsError: No pair can be made from them; then nothing is written.
        CompatibilityError: ``out`` belongs to another run.
    """
    check_pair(settings)
    scores = read_scores(settings.scores)
    warn_of_old_scores(settings.scores, load_summary(settings.scores, "score"), reporter)
    store = recorded_store(settings.scores, "score")
    groups, census = make_pairs(
        scores.values(),
        mode=settings.mode,
        m=settings.m,
        margin=settings.margin,
        require_mixed_outcomes=settings.require_mixed_outcomes,
        chosen_must_succeed=settings.chosen_must_succeed,
        seed=settings.seed,
        instructions=_instructions(store, scores),
    )
    overall = sum(census.values(), StateCensus())
    if not groups:
        raise _no_pair(settings, overall)
    # Claimed only now: a folder that could not be filled is free for another try with other settings.
    run = open_run(settings.out, "pair", settings, {"scores": file_hash(settings.scores / SCORES_FILE)})
    if run.done is not None:
        return run.done
    pairs = limit_pairs(groups, per_state=settings.max_pairs_per_state, total=settings.max_pairs, seed=settings.seed)
    write_jsonl(settings.out / PAIRS_FILE, map(pair_to_row, pairs))
    count = len(pairs)
    summary: dict[str, Any] = {
        "pairs": count,
        "mode": settings.mode,
        "mean_margin": sum(pair.margin for pair in pairs) / count,
        "chosen_success_rate": _success_rate(scores[pair.chosen].success for pair in pairs),
        "rejected_success_rate": _success_rate(scores[pair.rejected].success for pair in pairs),
        "store": portable_path(store, settings.out),
        "overall": _census(overall, pairs),
        "tasks": {task: _census(item, [pair for pair in pairs if pair.task == task]) for task, item in census.items()},
    }
    reporter.info(f"{count} pairs from {summary['overall']['used']} initial states")
    run.finish(summary)
    return summary


def _instructions(path: Path, scores: Mapping[str, Score]) -> dict[str, str]:
    """What each scored episode's policy was told."""
    store = EpisodeStore.open(path)
    missing = [name for name in scores if name not in store]
    if missing:
        raise DataError(
            f"Store {path} lacks {len(missing)} episodes of the scores, the first being {missing[0]}.",
            "Run 'grape collect' and 'grape score' again.",
        )
    return {name: store.meta(name).instruction for name in scores}


def _success_rate(outcomes: Iterable[bool | None]) -> float | None:
    """Share of successes among the known outcomes; None without any."""
    known = [outcome for outcome in outcomes if outcome is not None]
    return sum(known) / len(known) if known else None


def check_pair(settings: PairSettings) -> None:
    """Refuse values that make no sense, before anything is read.

    Raises:
        SettingsError: A number is out of range.
    """
    check_ranges(settings)


def _census(census: StateCensus, pairs: list[PreferencePair]) -> dict[str, int]:
    """Counts after the limits."""
    used = len({(pair.task, pair.initial_state) for pair in pairs})
    return vars(dataclasses.replace(census, used=used, pairs=len(pairs)))


def _no_pair(settings: PairSettings, census: StateCensus) -> NoPairsError:
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
    narrow = f" {census.narrow} pairs lie within the margin {settings.margin:g}." if census.narrow else ""
    failed = f" {census.failed} pairs are of two failures." if census.failed else ""
    advice = []
    if census.narrow and settings.margin > 0:
        advice.append("lower --margin")
    if (
        census.all_failures + census.all_successes + census.unknown
        and settings.require_mixed_outcomes
        and not census.mixed
    ):
        rank = settings.mode in ("best-worst", "top-bottom")
        advice += ["pass --no-require-mixed-outcomes to rank by costs and likelihood alone"] if rank else []
    if census.failed:
        advice.append("pass --no-chosen-must-succeed")
    if census.all_failures >= max(1, census.all_successes + census.unknown):
        advice.append("collect from a better policy or easier tasks")
    elif census.all_successes:
        advice.append("collect with a higher --temperature or from harder tasks: there is nothing to prefer")
    advice.append("collect more --samples of each initial state")
    sentence = ", or ".join(advice)
    return NoPairsError(
        f"No preference pair can be made from {total} initial states ({listing}).{narrow}{failed}",
        f"{sentence[0].upper()}{sentence[1:]}.",
    )
