"""The settings of ``pair``, and which of them go together."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from grape.core.errors import SettingsError
from grape.core.settings import Range, check_ranges, setting
from grape.judges import JudgeChoice, parse_judge
from grape.preferences.judged import JUDGED_MODES
from grape.preferences.pairing import RANKING, Mode
from grape.preferences.segments import Cut

__all__ = ["PairSettings", "check_pair"]

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
        among_successes: Leave failures out before anything is ranked: pairs say what a success cost, not whether it was
            one. For --objectives efficiency or safety, where most rollouts succeed.
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
            stored), success, random, scorer:SCORER, votes:FOLDER, vlm:FILE, robometer:PYTHON (a learned reward in an
            interpreter of its own), one of an installed package, or the command line of a program that reads and writes
            JSON lines. In the ranking modes all couples of an initial state are judged, in mode random the m drawn
            ones. Votes go with mode random, which draws among the couples that were voted on.
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
    among_successes: bool = setting(False, group=_CHOICE, identity="unless default")
    max_pairs_per_state: int | None = setting(None, group=_NUMBER, range=Range(1), common=True)
    max_pairs: int | None = setting(None, group=_NUMBER, range=Range(1), common=True)
    cut: Cut = setting("none", group=_PARTS, identity="unless default", common=True)
    cut_distance: float = setting(0.05, group=_PARTS, range=Range(0, open_low=True), identity="unless default")
    weight: Literal["none", "margin"] = setting("none", group=_PARTS, identity="unless default", common=True)
    seed: int = setting(0, group=_CHOICE, common=True)
    judge: str = setting("", group=_JUDGE, identity="unless default", common=True)
    both_orders: bool = setting(False, group=_JUDGE, identity="unless default")
    program_timeout: float = setting(600.0, group=_JUDGE, range=Range(0, open_low=True), identity=False)


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
    if settings.among_successes:
        _check_among_successes(settings)
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


def _check_among_successes(settings: PairSettings) -> None:
    """Refuse what needs failures, too."""
    needy = {
        "--mode success-only": settings.mode == "success-only",
        "--mode every-success": settings.mode == "every-success",
        "--require-mixed-outcomes": settings.require_mixed_outcomes,
        "--judge success": bool(settings.judge) and parse_judge(settings.judge).name == "success",
    }
    for other, given in needy.items():
        if given:
            raise SettingsError(
                f"--among-successes leaves all failures out, {other} needs some.", "Leave one of the two out."
            )
