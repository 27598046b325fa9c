"""Where the metrics of a run go: ``metrics.jsonl``, ``log.jsonl`` and trackers.

``metrics.jsonl`` has one row an update and no times, so that equal runs give equal bytes; speed and memory go to
``log.jsonl``; trackers get both.
"""

import json
import os
import resource
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from grape.core.errors import DataError
from grape.core.events import Reporter, append_event
from grape.core.files import write_text
from grape.core.reading import parse_json, read_file
from grape.core.settings import settings_to_dict
from grape.training.distributed import SINGLE_PROCESS, ProcessGroup
from grape.training.settings import LoggingSettings
from grape.training.trackers import open_trackers

__all__ = ["MetricsLogger"]

_HINT = "Delete the run's folder and train again."


class MetricsLogger:
    """The metrics of one run; a context.

    Args:
        settings: The run's settings.
        done: Updates that the checkpoint holds: what a killed run wrote after them is cut off and comes again.
        reporter: Hears of trackers that fail.
        processes: Process 0 writes; the others only remember.

    Attributes:
        rows: All rows so far, those of earlier runs first.
    """

    def __init__(
        self, settings: LoggingSettings, done: int, reporter: Reporter, processes: ProcessGroup = SINGLE_PROCESS
    ) -> None:
        self._settings = settings
        self._reporter = reporter
        self._writes = processes.is_main
        self._device = processes.device
        self._path = settings.out / "metrics.jsonl"
        self.rows: list[dict[str, float]] = _rows_of(self._path, done) if self._path.exists() else []
        self._kept = "".join(json.dumps(row) + "\n" for row in self.rows)

    def __enter__(self) -> "MetricsLogger":
        if self._writes:
            write_text(self._path, self._kept)
            self._file = self._path.open("a", encoding="utf-8")
            self._trackers = open_trackers(
                self._settings.report_to,
                self._settings.out.name,
                settings_to_dict(self._settings),
                self._settings.out,
                self._reporter,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writes:
            self._file.close()
            self._trackers.close()

    def write(self, row: dict[str, float], frames: int, seconds: float) -> None:
        """Add an update's row.

        Args:
            row: Finite numbers by name, among them ``update``.
            frames: Steps that went through the network.
            seconds: Time the update took.
        """
        self.rows.append(row)
        if not self._writes:
            return
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        speed = {
            "frames_per_second": round(frames / max(seconds, 1e-9), 1),
            "peak_memory_mb": _peak_memory_mb(self._device),
        }
        append_event(self._settings.out, "update", update=row["update"], seconds=round(seconds, 3), **speed)
        self._trackers.log({**row, **speed}, int(row["update"]))

    def sync(self) -> None:
        """Make sure that what was written survives the machine."""
        if self._writes:
            os.fsync(self._file.fileno())


def _rows_of(path: Path, count: int) -> list[dict[str, float]]:
    """The first rows of a file of metrics.

    Raises:
        DataError: A line is no mapping of names to numbers.
    """
    data = read_file(path, max_bytes=2**30, within=path.parent)
    rows = []
    for number, line in enumerate(data.splitlines()[:count], start=1):
        row = parse_json(line, f"{path}, line {number}:", hint=_HINT)
        if not isinstance(row, dict) or not all(type(value) in (int, float) for value in row.values()):
            raise DataError(f"{path}, line {number}: a row is a mapping of names to numbers.", _HINT)
        rows.append(row)
    return rows


def _peak_memory_mb(device: str) -> int:
    """Largest memory so far: of the GPU where one is in use, else of the process."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device) // 2**20)
    unit: Any = 2**20 if sys.platform == "darwin" else 2**10
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit)
