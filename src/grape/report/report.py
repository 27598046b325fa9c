"""The verb ``report``: one page about a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from grape.core.errors import SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.files import sweep_beside, write_text
from grape.core.preferences import Score
from grape.core.remote.mirror_names import refuse_beside_mirror
from grape.core.settings import Range, check_ranges, setting
from grape.preferences import ScoreFile
from grape.report.contents import RunContents, read_contents
from grape.report.figures import Draw, run_figures, write_figures
from grape.report.gallery import Candidate, VideoLimits, choose_pairs, pair_view, with_known_curves
from grape.report.headline import headline_of
from grape.report.page import load_jinja, render_page
from grape.report.plots import load_matplotlib
from grape.report.study_figures import is_study, study_figures
from grape.report.tables import Row
from grape.store.h264 import load_av

__all__ = ["ReportSettings", "run_report"]

# All videos together, as they stand in the page: base64 makes four bytes of three.
_VIDEO_BUDGET = 12_000_000 * 3 // 4


_PAGE = "The page"


@dataclass(frozen=True)
class ReportSettings:
    """Write one self-contained HTML page about a run: results, curves, and preference pairs as videos.

    The page loads nothing from the network. A run that stopped half way, or a folder that holds only some of the verbs'
    output, gives a page of what is there and a list of what is missing. Equal inputs give equal bytes.

    Attributes:
        run: Output folder of grape loop, or any folder with output of grape collect, score, pair, train or evaluate.
        out: File to write; without it, report.html in the run's folder, which then is no address.
        pairs_shown: Preference pairs in the gallery, chosen for variety; 0 leaves the gallery out.
        title: Heading of the page; empty takes the run's own title.
        video_size: Width of a video in pixels, from 64 to 1024.
        figures: Also write a paper's figures (PDF and PNG, one column wide) and tables (CSV) to the folder figures
            beside the page. Of a grape study, whose page is its study.html, only these are written.
    """

    run: Path = setting(common=True)
    out: Path | None = setting(None, identity=False, common=True)
    pairs_shown: int = setting(12, group=_PAGE, range=Range(0), common=True)
    title: str = setting("", group=_PAGE, common=True)
    video_size: int = setting(384, group=_PAGE, range=Range(64, 1024), common=True)
    figures: bool = setting(False, common=True)


def run_report(settings: ReportSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Write the page.

    Returns:
        ``report`` (path of the page), ``bytes``, ``pairs`` (shown), ``pairs_total``, ``missing`` (sentences), where
        policies were evaluated ``success_rate``, ``interval`` and ``verdict``, and with ``figures`` their folder
        (``figures``) and the names of its files (``figure_files``). Of a study only ``report``, ``missing`` and these.

    Raises:
        SettingsError: A setting is out of range, the run does not exist, ``out`` is a folder, or missing where the run
            is at an address, or a package is missing.
        DataError: The folder holds nothing to show.
        GrapeError: The page cannot be written.
    """
    check_ranges(settings)
    if settings.out is not None and settings.out.is_dir():
        raise SettingsError(f"--out {settings.out} is a folder.", "--out is a file to write, e.g. report.html.")
    if settings.figures:
        load_matplotlib()
    if settings.out is None:
        refuse_beside_mirror(settings.run, "the page", "--out FILE, e.g. --out report.html")
    target = settings.out if settings.out is not None else settings.run / "report.html"
    if is_study(settings.run):
        if not settings.figures:
            raise SettingsError(
                f"{settings.run} is the folder of a study, whose page 'grape study' writes: study.html.",
                "Open that page, or add --figures for a paper's figures and tables.",
            )
        own_page: dict[str, Any] = {"report": str(settings.run / "study.html"), "missing": []}
        return own_page | _write_figures(target.parent, *study_figures(settings.run), reporter)
    load_jinja()
    contents = read_contents(settings.run)
    candidates = _candidates(contents)
    chosen = choose_pairs(candidates, settings.pairs_shown)
    views = []
    if chosen:
        load_av("report")
        limits = VideoLimits(settings.video_size, _VIDEO_BUDGET // (2 * len(chosen)))
        with reporter.progress("videos", 2 * len(chosen)) as progress:
            for number, candidate in enumerate(chosen, start=1):
                views.append(pair_view(number, candidate, limits))
                progress.advance(2, candidate.pair.task)
    total = sum(len(item.pairs) for item in contents.rounds)
    page = render_page(contents, views, total, settings.title)
    sweep_beside(target)
    write_text(target, page)
    for sentence in contents.missing:
        reporter.warn(f"Not in the report: {sentence}")
    summary: dict[str, Any] = {
        "report": str(target),
        "bytes": len(page.encode()),
        "pairs": len(views),
        "pairs_total": total,
        "missing": list(contents.missing),
    }
    headline = headline_of(contents)
    if headline is not None:
        summary |= {
            "success_rate": headline.after.rate,
            "interval": [headline.after.low, headline.after.high],
            "verdict": headline.verdict,
        }
    if settings.figures:
        summary |= _write_figures(target.parent, *run_figures(contents), reporter)
    return summary


def _write_figures(
    beside: Path, figures: Mapping[str, Draw], tables: Mapping[str, Sequence[Row]], reporter: Reporter
) -> dict[str, Any]:
    folder = beside / "figures"
    with reporter.progress("figures", len(figures)) as progress:
        names = write_figures(folder, figures, tables, progress.advance)
    return {"figures": str(folder), "figure_files": names}


def _candidates(contents: RunContents) -> list[Candidate]:
    """Every pair whose scores are there."""
    return [
        Candidate(pair, item.scores[pair.chosen], item.scores[pair.rejected], item.round.label, item.store, details)
        for item in contents.rounds
        for details in [None if item.score_file is None else partial(_details, item.score_file)]
        for pair in item.pairs
        if pair.chosen in item.scores and pair.rejected in item.scores
    ]


def _details(scores: ScoreFile, given: Sequence[Score]) -> tuple[list[Score], str]:
    return with_known_curves(scores.folder, [scores[score.episode_id] for score in given])
