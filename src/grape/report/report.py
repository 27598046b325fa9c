"""The verb ``report``: one page about a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grape.core.errors import SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.files import write_text
from grape.core.temporary_files import sweep_beside
from grape.report.contents import RunContents, read_contents
from grape.report.gallery import Candidate, VideoLimits, choose_pairs, pair_view
from grape.report.headline import headline_of
from grape.report.page import load_jinja, render_page
from grape.store.h264 import load_av

__all__ = ["ReportSettings", "run_report"]

# All videos together, as they stand in the page: base64 makes four bytes of three.
_VIDEO_BUDGET = 12_000_000 * 3 // 4


@dataclass(frozen=True)
class ReportSettings:
    """Write one self-contained HTML page about a run: results, curves, and preference pairs as videos.

    The page loads nothing from anywhere. A run that stopped half way, or a folder that holds only some of the verbs'
    output, gives a page of what is there and a list of what is missing. Equal inputs give equal bytes.

    Attributes:
        run: Output folder of grape loop, or any folder with output of grape collect, score, pair, train or evaluate.
        out: File to write; without it, report.html in the run's folder.
        pairs_shown: Preference pairs in the gallery, chosen for variety; 0 leaves the gallery out.
        title: Heading of the page; empty takes the run's own title.
        video_size: Width of a video in pixels, from 64 to 1024.
    """

    run: Path
    out: Path | None = field(default=None, metadata={"identity": False})
    pairs_shown: int = 12
    title: str = ""
    video_size: int = 384


def run_report(settings: ReportSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Write the page.

    Returns:
        ``report`` (path of the page), ``bytes``, ``pairs`` (shown), ``pairs_total``, ``missing`` (sentences), and where
        policies were evaluated ``success_rate``, ``interval`` and ``verdict``.

    Raises:
        SettingsError: A setting is out of range, the run does not exist, or a package is missing.
        DataError: The folder holds nothing to show.
        GrapeError: The page cannot be written.
    """
    if settings.pairs_shown < 0:
        raise SettingsError(f"--pairs-shown is {settings.pairs_shown}.", "Give 0 or more.")
    if not 64 <= settings.video_size <= 1024:
        raise SettingsError(f"--video-size is {settings.video_size}.", "Give a width from 64 to 1024 pixels.")
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
    target = settings.out if settings.out is not None else settings.run / "report.html"
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
    return summary


def _candidates(contents: RunContents) -> list[Candidate]:
    """Every pair whose scores are there."""
    return [
        Candidate(pair, item.scores[pair.chosen], item.scores[pair.rejected], item.round.label, item.store)
        for item in contents.rounds
        for pair in item.pairs
        if pair.chosen in item.scores and pair.rejected in item.scores
    ]
