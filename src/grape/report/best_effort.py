"""Reading of a run that may be incomplete or damaged: problems become notes on the page instead of errors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grape.agreement import judge_folders, measure_agreement, read_sources
from grape.core.errors import GrapeError
from grape.core.files import read_jsonl
from grape.core.preferences import PreferencePair
from grape.core.runs import RunFolder
from grape.evaluation import EvaluationResults, read_results
from grape.preferences import ScoreFile, open_scores, read_pairs
from grape.report.curves import Training
from grape.report.folders import Folder
from grape.store import EpisodeStore, open_stores

__all__ = ["BestEffortReader"]


class BestEffortReader:
    """Reader of runs whose files may be missing or damaged.

    Attributes:
        missing: What could not be read, one sentence each, in the order of reading.
    """

    def __init__(self) -> None:
        self.missing: list[str] = []

    def note(self, sentence: str) -> None:
        """Add a note once."""
        if sentence not in self.missing:
            self.missing.append(sentence)

    def results(self, path: Path, name: str) -> EvaluationResults | None:
        """Results of an evaluation; ``name`` says whose in the note."""
        try:
            return read_results(path)
        except GrapeError as error:
            self.note(f"{name}: {error.message}")
            return None

    def store(self, paths: Sequence[Path], name: str) -> EpisodeStore | None:
        """An episode store, or several as one; ``name`` says whose in the note."""
        if not paths:
            return None
        try:
            return open_stores(paths)
        except GrapeError as error:
            self.note(f"{name}: {error.message}")
            return None

    def agreement(self, scores: Folder | None, label: str) -> Mapping[str, Any] | None:
        """How scorers and judges of a folder of scores agree; None where there is none beside success and the score."""
        if scores is None or not scores.product:
            return None
        try:
            if not (scores.path / "scorers").is_dir() and not judge_folders(scores.path, scores.path):
                return None
            # Judges of other scores, such as those of the other iterations of a loop, are no problem of this table.
            couples, sources = read_sources(scores.path)
        except GrapeError as error:
            self.note(f"{label}: {error.message}")
            return None
        if not any(source.kind in ("scorer", "judge") for source in sources):
            return None
        return measure_agreement(couples, sources).figures

    def training(self, folder: Folder | None, label: str) -> Training | None:
        """Metrics of a training that has begun."""
        if folder is None or not folder.product:
            return None
        try:
            rows = read_jsonl(folder.path / "metrics.jsonl", within=folder.path, allow_nonfinite=True)
            summary = RunFolder(folder.path, folder.verb).done or {}
        except GrapeError as error:
            self.note(f"{folder.name}: {error.message}")
            return None
        alarm = summary.get("alarm")
        return Training(label, [row for row in rows if isinstance(row, dict)], alarm if isinstance(alarm, str) else "")

    def scores(self, folder: Folder | None) -> ScoreFile | None:
        """Scores of a finished scoring."""
        if folder is None or not (folder.product and folder.complete):
            return None
        try:
            return open_scores(folder.path)
        except GrapeError as error:
            self.note(f"{folder.name}: {error.message}")
            return None

    def pairs(self, folder: Folder | None) -> tuple[PreferencePair, ...]:
        """Pairs of a finished pairing."""
        if folder is None or not (folder.product and folder.complete):
            return ()
        try:
            return read_pairs(folder.path)
        except GrapeError as error:
            self.note(f"{folder.name}: {error.message}")
            return ()
