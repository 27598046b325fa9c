"""``grape agree``: how scorers, judges, people and success agree, in figures and on a page."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from grape.agreement import Couples, measure_agreement, read_sources
from grape.core.events import SILENT, Reporter
from grape.core.files import sweep_temporaries, write_json, write_text
from grape.core.preferences import PreferencePair
from grape.core.remote.mirror_names import refuse_beside_mirror
from grape.core.settings import Range, check_ranges, setting
from grape.judges.raters import summaries_of_raters
from grape.judges.votes import usual_votes_folder, votes_identity
from grape.report.gallery import Candidate, PairView, VideoLimits, pair_view, with_known_curves
from grape.report.page import load_jinja, render_template
from grape.store.h264 import load_av

__all__ = ["AgreeSettings", "run_agree"]

FIGURES_FILE, PAGE_FILE = "agreement.json", "agreement.html"
_VIDEO_BUDGET = 9_000_000  # of all videos together
_PAGE = "The page"


@dataclass(frozen=True)
class AgreeSettings:
    """Measure how scorers, judges, people and success agree on which of two episodes is better.

    Compared are all couples of episodes of one initial state. Sources are the terms of the score, the scorers of grape
    score --scorer, the judges of grape pair --judge that were asked about episodes with these scores, and raters.

    Attributes:
        run: Folder that grape score wrote, or one that holds it. Folders of grape pair are looked for in it and beside
            the scores.
        votes: Folder of people's votes, a file a rater.
        out: Folder for agreement.json and agreement.html; by default the folder agreement in that of the scores, which
            then is no address.
        page: Write the page, too; without it the figures alone.
        shown: Couples on which the sources disagree most that the page shows with videos, from 0 to 24.
        video_size: Width of a video in pixels, from 64 to 1024.
    """

    run: Path = setting(identity=False, common=True)
    votes: Path | None = setting(None, common=True)
    out: Path | None = setting(None, common=True)
    page: bool = setting(True, group=_PAGE, common=True)
    shown: int = setting(4, group=_PAGE, range=Range(0, 24), common=True)
    video_size: int = setting(320, group=_PAGE, range=Range(64, 1024))


def run_agree(settings: AgreeSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Measure agreement and write it down; files of an earlier call are replaced.

    Returns:
        Figures as :class:`grape.agreement.MeasuredAgreement` has them, ``repeats`` by rater, number of
        ``disagreements`` that are listed, and the paths ``figures`` and ``page``.

    Raises:
        SettingsError: A setting is out of range, or a package is missing.
        DataError: There are no scores or several, or a file is damaged.
        CompatibilityError: The store has changed since it was scored.
    """
    check_ranges(settings)
    if settings.out is None:
        refuse_beside_mirror(settings.run, "the folder agreement", "--out DIR")
    if settings.page:
        load_jinja()
    couples, sources = read_sources(settings.run, settings.votes, reporter.warn)
    beside = usual_votes_folder(couples.folder)
    if settings.votes is None and votes_identity(beside):
        reporter.info(f"There are votes in {beside}: with --votes {shlex.quote(str(beside))} they are compared, too.")
    measured = measure_agreement(couples, sources)
    repeats = {} if settings.votes is None else _repeats(settings.votes, couples)
    figures = {**measured.figures, "repeats": repeats}
    out = settings.out or couples.folder / "agreement"
    write_json(out / FIGURES_FILE, {**figures, "disagreements": list(measured.disagreements)})
    sweep_temporaries(out)
    summary = {
        **figures,
        "disagreements": len(measured.disagreements),
        "figures": str(out / FIGURES_FILE),
    }
    if settings.page:
        rows = measured.disagreements[: settings.shown]
        page = render_template(
            "agreement.html.j2",
            title=settings.run.resolve().name,
            figures=figures,
            disagreements=measured.disagreements,
            pairs=list(zip(rows, _views(settings, couples, rows, reporter), strict=True)),
        )
        write_text(out / PAGE_FILE, page)
        summary["page"] = str(out / PAGE_FILE)
    return summary


def _repeats(votes: Path, couples: Couples) -> dict[str, dict[str, int]]:
    """Of each rater who was shown couples again: how many, and how many of them were decided alike."""
    raters = summaries_of_raters(votes, couples.store.checksums())
    return {
        name: {"repeated": rater.repeated, "alike": rater.alike} for name, rater in raters.items() if rater.repeated
    }


def _views(
    settings: AgreeSettings, couples: Couples, rows: Sequence[Mapping[str, Any]], reporter: Reporter
) -> list[PairView]:
    """Videos of the couples on which most sources contradict one another."""
    if not rows:
        return []
    load_av("report")
    limits = VideoLimits(settings.video_size, _VIDEO_BUDGET // (2 * len(rows)))
    views = []
    with reporter.progress("videos", len(rows)) as progress:
        for number, row in enumerate(rows, start=1):
            pair = PreferencePair(
                pair_id=str(number),
                task=row["task"],
                initial_state=row["initial_state"],
                chosen=row["a"],
                rejected=row["b"],
                margin=0.0,
                mode="disagreement",
                reason="",
            )
            first, second = couples.scores[row["a"]], couples.scores[row["b"]]
            candidate = Candidate(pair, first, second, "", couples.store, partial(with_known_curves, couples.folder))
            views.append(pair_view(number, candidate, limits, names=("A", "B")))
            progress.advance()
    return views
