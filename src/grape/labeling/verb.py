"""The verb ``label``: serve the page until it is interrupted, then sum up the votes."""

import dataclasses
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.errors import DataError, SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.files import make_folder
from grape.core.remote.mirror_names import refuse_beside_mirror
from grape.core.settings import Range, check_ranges, setting
from grape.judges.votes import count_votes, usual_votes_folder
from grape.labeling.couples import Candidates, candidates_of_scores, candidates_of_store
from grape.labeling.plan_file import shared_plan
from grape.labeling.server import LabelServer
from grape.labeling.session import Labeling
from grape.labeling.videos import EpisodeVideos
from grape.report.videos import images_for_people
from grape.store.h264 import load_av

__all__ = ["LabelSettings", "open_labeling", "run_label"]

_TOKEN_BYTES = 24
_WHICH = "Which couples"


@dataclass(frozen=True)
class LabelSettings:
    """Let people vote on which of two episodes is better, on a page that this machine serves to itself alone.

    The page shows both videos of one initial state, sides drawn, and nothing of scores or outcomes. But an episode
    that ends at success is shorter, so that lengths show outcomes, and couples of which least is known come first.
    Every vote is on the disk before the next couple appears; Ctrl-C ends with a summary.
    The votes serve grape pair --judge votes:FOLDER and grape agree --votes FOLDER.

    Attributes:
        scores: Folder that grape score wrote, or one that holds it: couples on which scores, scorers and judges
            contradict one another, or differ little, come first.
        store: Episode store, or a folder that grape collect wrote, where nothing is scored yet: the order is drawn.
        votes: Folder of votes, a file a rater; by default the folder votes beside that of the scores, or beside the
            store.
        couples: Different couples (1 or more) that each rater is shown.
        repeats: Share of the couples (0 to 1) that come again later, sides exchanged: how consistent a rater is.
        seed: Seed of the sides and of the order of equals, at the first start on a folder of votes: its plan.json
            keeps both for all raters.
        hide_length: The shorter episode holds its last image without a sign that it has ended.
        port: Port of this machine on which the page is served; 0 takes a free one.
        video_size: Width of a video in pixels, from 64 to 1024.
    """

    scores: Path | None = setting(None, common=True)
    store: Path | None = setting(None, common=True)
    votes: Path | None = setting(None, common=True)
    couples: int = setting(100, group=_WHICH, range=Range(1), common=True)
    repeats: float = setting(0.1, group=_WHICH, range=Range(0, 1), common=True)
    seed: int = setting(0, group=_WHICH)
    hide_length: bool = setting(False, group="The page", common=True)
    port: int = setting(0, group="The page", range=Range(0, 65535), common=True)
    video_size: int = setting(384, group="The page", range=Range(64, 1024))


def run_label(settings: LabelSettings, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Serve the page until the process is interrupted.

    Returns:
        The folder of ``votes``, ``cast`` (votes of this run that stand), ``left`` (couples) and ``raters``: the
        figures of :class:`grape.judges.raters.RaterSummary` by rater.

    Raises:
        SettingsError: A setting is missing, out of range or of no use, or a package is missing.
        DataError: Scores, store or votes are missing or damaged, or no initial state has two episodes with images.
        CompatibilityError: The store has changed since it was scored.
    """
    if reporter is SILENT:
        raise SettingsError("Nobody would learn the address of the page.", "Leave --quiet out.")
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    labeling, candidates, folder = open_labeling(settings, token, reporter)
    before = sum(rater.votes for rater in labeling.summary().values())
    with LabelServer(labeling, settings.port, token, reporter.warn) as server:
        reporter.info(
            f"{len(candidates.names):,} couples of {len(set(candidates.states)):,} initial states; votes go to "
            f"{folder}, which holds {before:,} on them. Ctrl-C ends."
        )
        reporter.info(f"Open {server.address}")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            labeling.close()
    raters = labeling.summary()
    return {
        "votes": str(folder),
        "cast": labeling.cast_count,
        "couples": len(candidates.names),
        "raters": {name: dataclasses.asdict(rater) for name, rater in sorted(raters.items())},
    }


def open_labeling(
    settings: LabelSettings, token: str, reporter: Reporter = SILENT
) -> tuple[Labeling, Candidates, Path]:
    """Everything but the server.

    Args:
        settings: Those of the verb.
        token: Secret of this run.
        reporter: Hears of warnings.

    Returns:
        Questions and votes, the couples, and the folder of votes.

    Raises:
        SettingsError: See :func:`run_label`.
        DataError: The same.
        CompatibilityError: The same.
    """
    check_ranges(settings)
    if (settings.scores is None) == (settings.store is None):
        raise SettingsError("'grape label' needs scores or a store.", "Give one of --scores RUN and --store RUN.")
    load_av("report")
    if settings.scores is not None:
        candidates, place = candidates_of_scores(settings.scores, reporter.warn)
    else:
        assert settings.store is not None
        candidates, place = candidates_of_store(settings.store), settings.store
    refuse_beside_mirror(settings.votes or place, "the folder of votes", "--votes DIR")
    folder = settings.votes or usual_votes_folder(place)
    try:
        make_folder(folder)
    except OSError as error:
        raise SettingsError(f"--votes {folder} cannot be a folder: {error.strerror}.", "Choose another one.") from error
    # Warns of what does not count; a damaged file stops its rater alone.
    count_votes(folder, candidates.store.checksums(), reporter.warn, skip_damaged=True)
    _require_images(candidates)
    plan = shared_plan(folder, candidates, settings.couples, settings.repeats, settings.seed, reporter.warn)
    videos = EpisodeVideos(candidates.store, settings.video_size)
    labeling = Labeling(candidates.store, plan, folder, videos, token.encode(), reporter.warn, settings.hide_length)
    return labeling, candidates, folder


def _require_images(candidates: Candidates) -> None:
    """Refuse a store whose first episode has no images: the page would have nothing to show."""
    first = candidates.store.read(candidates.names[0][0], display=True)
    if images_for_people(first) is None:
        raise DataError(f"{candidates.store.path} holds no images.", "Give a store that was collected with images.")
