"""Where the metrics of a run go: ``metrics.jsonl``, ``log.jsonl`` and trackers (through ``accelerate.tracking``).

``metrics.jsonl`` is the record: one row an update and no times, so that equal runs give equal bytes. Speed and memory
go to ``log.jsonl``, and trackers get both. A tracker is a window onto that record: one that fails in the middle of a
run is reported once and left out from then on, and the run goes on. What a tracker needs from its user (an API key, a
server, the name of an entity) it takes from its own environment variables or login; nothing of that passes through
here, and keys found in the environment are redacted in messages. A resumed run goes on in Weights & Biases,
TensorBoard, Trackio, MLflow and DVCLive; the others show it as a run of its own.
"""

import contextlib
import functools
import importlib
import json
import os
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, get_args

from grape.core.errors import DataError, SettingsError, require_known
from grape.core.events import SILENT, Reporter, append_event
from grape.core.files import read_json_mapping, write_json, write_text
from grape.core.reading import parse_json, read_file
from grape.core.settings import settings_to_dict

if TYPE_CHECKING:
    from grape.training.distributed import ProcessGroup
    from grape.training.settings import LoggingSettings

__all__ = ["TRACKERS", "MetricsLogger", "TrackerName", "Trackers", "check_trackers", "open_trackers", "read_metrics"]

TrackerName = Literal["wandb", "tensorboard", "trackio", "mlflow", "comet_ml", "swanlab", "aim", "clearml", "dvclive"]
TRACKERS: tuple[str, ...] = get_args(TrackerName)
"""Names that ``report_to`` may hold."""

PROJECT = "grape"
"""Project (or experiment) that runs belong to where the tracker's own environment variable names no other one."""

_AGAIN = "Delete the run's folder and train again."
_IDENTITY = ".trackers.json"
_WITH_EXTRA = ("wandb", "tensorboard", "trackio")
_PROJECT_VARIABLES = {
    "wandb": "WANDB_PROJECT",
    "trackio": "TRACKIO_PROJECT",
    "mlflow": "MLFLOW_EXPERIMENT_NAME",
    "comet_ml": "COMET_PROJECT_NAME",
    "swanlab": "SWANLAB_PROJECT",
    "clearml": "CLEARML_PROJECT",
}


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

    def __init__(self, settings: "LoggingSettings", done: int, reporter: Reporter, processes: "ProcessGroup") -> None:
        self._settings = settings
        self._reporter = reporter
        self._writes = processes.is_main
        self._device = processes.device
        self._path = settings.out / "metrics.jsonl"
        self.rows: list[dict[str, float]] = read_metrics(settings.out, done)
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


def read_metrics(folder: Path, count: int) -> list[dict[str, float]]:
    """The first rows of a run's ``metrics.jsonl``; none where it is not there.

    Raises:
        DataError: A line is no mapping of names to numbers.
    """
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    data = read_file(path, max_bytes=2**30, within=path.parent)
    rows = []
    for number, line in enumerate(data.splitlines()[:count], start=1):
        row = parse_json(line, f"{path}, line {number}:", hint=_AGAIN)
        if not isinstance(row, dict) or not all(type(value) in (int, float) for value in row.values()):
            raise DataError(f"{path}, line {number}: a row is a mapping of names to numbers.", _AGAIN)
        rows.append(row)
    return rows


def _peak_memory_mb(device: str) -> int:
    """Largest memory so far: of the GPU where one is in use, else of the process."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device) // 2**20)
    import resource

    unit: Any = 2**20 if sys.platform == "darwin" else 2**10
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit)


@dataclass(frozen=True)
class _Destination:
    """One open tracker.

    Attributes:
        name: For messages.
        log: Sends the metrics of an update.
        close: Sends what is left and closes.
    """

    name: str
    log: Callable[[dict[str, float], int], None]
    close: Callable[[], None]


class Trackers:
    """The trackers of one run; none at all is fine.

    Args:
        destinations: Where metrics go.
        folder: The run's folder; its log hears of failures.
        reporter: Hears of failures.
    """

    def __init__(self, destinations: Sequence[_Destination], folder: Path, reporter: Reporter) -> None:
        self._open = list(destinations)
        self._folder = folder
        self._reporter = reporter

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send the metrics of one update; never raises.

        Args:
            metrics: Numbers by name.
            step: Number of updates done, counted from 1 and rising.
        """
        for destination in tuple(self._open):
            self._try(destination, functools.partial(destination.log, dict(metrics), step))

    def close(self) -> None:
        """Send what is left and close; never raises."""
        for destination in tuple(self._open):
            self._try(destination, destination.close)
        self._open.clear()

    def _try(self, destination: _Destination, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # a tracker may raise anything; none of it is worth a training
            self._open.remove(destination)
            message = _without_secrets(f"{type(error).__name__}: {error}")
            with contextlib.suppress(OSError):
                append_event(self._folder, "tracker failed", tracker=destination.name, error=message)
            self._reporter.warn(
                f"{destination.name} takes no more metrics ({message}). Training goes on; "
                f"{self._folder / 'metrics.jsonl'} holds them all."
            )


def check_trackers(names: Sequence[str]) -> None:
    """Import the packages of trackers: a missing one is found before any work.

    Args:
        names: Which ones, of :data:`TRACKERS`.

    Raises:
        SettingsError: A name is unknown, or a package is not installed; the extra that has it is named.
    """
    for name in names:
        require_known("tracker", name, TRACKERS)
        _import_package(name)


def _import_package(name: str) -> None:
    try:
        importlib.import_module("torch.utils.tensorboard" if name == "tensorboard" else name)
    except Exception as error:  # a package that is there and broken may raise anything
        package = f"'grape-vla[{name}]'" if name in _WITH_EXTRA else name
        raise SettingsError(
            f"--report-to {name} needs a package that cannot be imported ({error}).",
            f"pip install {package}, or leave out --report-to {name}.",
        ) from error


def open_trackers(
    names: Sequence[str], run_name: str, settings: Mapping[str, Any], folder: Path, reporter: Reporter = SILENT
) -> Trackers:
    """Open trackers; nothing is imported for none.

    Args:
        names: Which ones, of :data:`TRACKERS`; repetitions count once.
        run_name: What the run is called there.
        settings: The run's settings as plain values (:func:`grape.core.settings.settings_to_dict`), shown beside it.
        folder: The run's output folder; it must exist. TensorBoard's files go to ``folder/tensorboard``.
        reporter: Hears of a tracker that fails later.

    Raises:
        SettingsError: A name is unknown, a package is not installed, or a tracker refuses to start (no login, no
            network): found before any update, with what to do about it.
    """
    check_trackers(names)
    opened: list[_Destination] = []
    try:
        for name in dict.fromkeys(names):
            opened.append(_open(name, run_name, settings, folder))
    except SettingsError:
        Trackers(opened, folder, reporter).close()
        raise
    return Trackers(opened, folder, reporter)


def _open(name: str, run_name: str, settings: Mapping[str, Any], folder: Path) -> _Destination:
    try:
        if name == "tensorboard":
            return _tensorboard(run_name, settings, folder)
        tracker = _tracker(name, *_arguments(name, run_name, settings, folder))
        tracker.start()
        if name not in ("wandb", "trackio"):  # which got them as the run's configuration
            tracker.store_init_configuration(dict(settings))
        if name == "mlflow":
            _remember(folder, name, tracker.tracker.info.run_id)
        elif name == "comet_ml":
            tracker.tracker.set_name(run_name)
    except Exception as error:  # whatever a tracker raises, its user can do something about it
        message = _without_secrets(f"{type(error).__name__}: {error}")
        raise SettingsError(
            f"{name} could not be opened ({message}).",
            "Log in with the tracker's own command or environment variables (offline: e.g. WANDB_MODE=offline), "
            f"or leave out --report-to {name}.",
        ) from error
    return _Destination(name, lambda metrics, step: tracker.log(metrics, step=step), tracker.finish)


def _tracker(name: str, project: str, arguments: Mapping[str, Any]) -> Any:
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState(cpu=True)  # accelerate's logging asks for it; what several processes joined stays as it is
    tracker = LOGGER_TYPE_TO_CLASS[name](project, **arguments)
    tracker.main_process_only = False  # the caller is the main process
    return tracker


def _arguments(name: str, run_name: str, settings: Mapping[str, Any], folder: Path) -> tuple[str, dict[str, Any]]:
    """The project, and what else a tracker takes to open a run or to go on with it."""
    project = os.environ.get(_PROJECT_VARIABLES.get(name, ""), PROJECT)
    arguments: dict[str, Any] = {}
    match name:
        case "wandb":
            arguments = {
                "name": run_name,
                "id": _identity(folder),
                "resume": "allow",
                "dir": str(folder),
                "config": dict(settings),
            }
        case "trackio":  # runs of equal name are one run to Trackio
            arguments = {
                "name": f"{run_name}-{_identity(folder)[:6]}",
                "resume": "allow",
                "config": dict(settings),
            }
        case "mlflow":
            arguments = {"run_name": run_name, "run_id": _records(folder).get(name)}
        case "swanlab":
            arguments = {"experiment_name": run_name, "logdir": str(folder / "swanlab")}
        case "aim":
            arguments = {"logging_dir": str(folder), "experiment": project}
            project = run_name  # accelerate gives it to the run as its name
        case "clearml":
            arguments = {"project_name": project, "task_name": os.environ.get("CLEARML_TASK", run_name)}
        case "dvclive":
            place = folder / "dvclive"
            arguments = {"dir": str(place), "resume": place.exists()}
    return project, arguments


def _tensorboard(run_name: str, settings: Mapping[str, Any], folder: Path) -> _Destination:
    """TensorBoard's files in ``folder/tensorboard``, opened at the first metrics."""
    opened: list[Any] = []

    def log(metrics: dict[str, float], step: int) -> None:
        if not opened:
            # What a killed run wrote after its last checkpoint is written again: hide the first version.
            tracker = _tracker("tensorboard", "tensorboard", {"logging_dir": str(folder), "purge_step": step})
            tracker.start()
            opened.append(tracker)
            text = "".join(f"    {key}: {value}\n" for key, value in settings.items())
            tracker.tracker.add_text(f"settings of {run_name}", text, step)
        opened[0].log(metrics, step=step)

    def close() -> None:
        for tracker in opened:
            tracker.finish()

    return _Destination("tensorboard", log, close)


def _records(folder: Path) -> dict[str, Any]:
    path = folder / _IDENTITY
    return dict(read_json_mapping(path, within=folder)) if path.exists() else {}


def _remember(folder: Path, name: str, value: str) -> None:
    write_json(folder / _IDENTITY, {**_records(folder), name: value})


def _identity(folder: Path) -> str:
    """The run's name for machines, 16 hexadecimal digits: drawn once, so that a resumed run goes on in its tracker."""
    if "run" not in _records(folder):
        _remember(folder, "run", secrets.token_hex(8))
    name = _records(folder)["run"]
    if not isinstance(name, str):
        raise DataError(f"{folder / _IDENTITY} names no run.", "Delete it: the next run of the verb writes it again.")
    return name


def _without_secrets(text: str) -> str:
    """A message without any key, token or password that stands in the environment."""
    for name, value in os.environ.items():
        if len(value) >= 8 and name.upper().endswith(("KEY", "TOKEN", "SECRET", "PASSWORD")):
            text = text.replace(value, f"<{name}>")
    return text
