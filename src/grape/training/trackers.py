"""Sending metrics to experiment trackers: Weights & Biases, TensorBoard, Trackio.

``metrics.jsonl`` is the record; a tracker is a window onto it. So a tracker that fails in the middle of a run is
reported once and left out from then on, and the run goes on. What a tracker needs from its user (an API key, a server,
the name of an entity) it takes from its own environment variables or login; nothing of that passes through here, and
keys found in the environment are blotted out of messages. A resumed run goes on in the tracker, too.
"""

import contextlib
import functools
import importlib
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from grape.core.errors import DataError, SettingsError, require_known
from grape.core.events import SILENT, Reporter, append_event
from grape.core.files import read_json_mapping, write_json

__all__ = ["TRACKERS", "TrackerName", "Trackers", "check_trackers", "open_trackers"]

TrackerName = Literal["wandb", "tensorboard", "trackio"]

PROJECT = "grape"
"""Project that runs belong to where the environment (WANDB_PROJECT, TRACKIO_PROJECT) names no other one."""

_IDENTITY = ".trackers.json"


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
            said = _without_secrets(f"{type(error).__name__}: {error}")
            with contextlib.suppress(OSError):
                append_event(self._folder, "tracker failed", tracker=destination.name, error=said)
            self._reporter.warn(
                f"{destination.name} takes no more metrics ({said}). Training goes on; "
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
        _package(name)


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(_OPENERS[name][0])
    except Exception as error:  # a package that is there and broken may raise anything
        raise SettingsError(
            f"--report-to {name} needs a package that cannot be imported ({error}).",
            f"pip install 'grape-vla[{name}]', or leave out --report-to {name}.",
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
    _, opener, advice = _OPENERS[name]
    module = _package(name)
    try:
        return opener(module, run_name, settings, folder)
    except Exception as error:  # whatever a tracker raises, its user can do something about it
        said = _without_secrets(f"{type(error).__name__}: {error}")
        raise SettingsError(f"{name} could not be opened ({said}).", advice) from error


def _open_wandb(wandb: ModuleType, run_name: str, settings: Mapping[str, Any], folder: Path) -> _Destination:
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=run_name,
        id=_identity(folder),
        resume="allow",
        dir=str(folder),
        config=dict(settings),
    )
    return _Destination("wandb", lambda metrics, step: run.log(metrics, step=step), run.finish)


def _open_tensorboard(
    tensorboard: ModuleType, run_name: str, settings: Mapping[str, Any], folder: Path
) -> _Destination:
    writers: list[Any] = []

    def log(metrics: dict[str, float], step: int) -> None:
        if not writers:
            # What a killed run wrote after its last checkpoint is written again: hide the first version.
            writers.append(tensorboard.SummaryWriter(log_dir=str(folder / "tensorboard"), purge_step=step))
            text = "".join(f"    {key}: {value}\n" for key, value in settings.items())
            writers[0].add_text(f"settings of {run_name}", text, step)
        for key, value in metrics.items():
            writers[0].add_scalar(key, value, step)

    def close() -> None:
        for writer in writers:
            writer.close()

    return _Destination("tensorboard", log, close)


def _open_trackio(trackio: ModuleType, run_name: str, settings: Mapping[str, Any], folder: Path) -> _Destination:
    run = trackio.init(
        project=os.environ.get("TRACKIO_PROJECT", PROJECT),
        name=f"{run_name}-{_identity(folder)[:6]}",  # runs of equal name are one run to Trackio
        resume="allow",
        config=dict(settings),
    )
    return _Destination("trackio", lambda metrics, step: run.log(metrics, step=step), trackio.finish)


_OPENERS: Mapping[str, tuple[str, Callable[[ModuleType, str, Mapping[str, Any], Path], _Destination], str]] = {
    "wandb": ("wandb", _open_wandb, "Log in with 'wandb login', or set WANDB_MODE=offline, or leave out --report-to."),
    "tensorboard": ("torch.utils.tensorboard", _open_tensorboard, "Leave out --report-to."),
    "trackio": ("trackio", _open_trackio, "Look into the message, or leave out --report-to."),
}

TRACKERS = tuple(_OPENERS)
"""Names that ``report_to`` may hold."""


def _identity(folder: Path) -> str:
    """The run's name for machines, 16 hexadecimal digits: drawn once, so that a resumed run goes on in its tracker."""
    path = folder / _IDENTITY
    if not path.exists():
        write_json(path, {"run": secrets.token_hex(8)})
    name = read_json_mapping(path, within=folder).get("run")
    if not isinstance(name, str):
        raise DataError(f"{path} names no run.", "Delete it: the next run of the verb writes it again.")
    return name


def _without_secrets(text: str) -> str:
    """A message without any key, token or password that stands in the environment."""
    for name, value in os.environ.items():
        if len(value) >= 8 and name.upper().endswith(("KEY", "TOKEN", "SECRET", "PASSWORD")):
            text = text.replace(value, f"<{name}>")
    return text
