"""``python -m grape.training.rank``: one rank of a training that another process supervises.

Reads what to do as a line of JSON from standard input, where nothing follows: its end means that the supervisor is
gone. Writes JSON lines to standard output: what rank 0 reports, and how the training ended.
"""

import contextlib
import itertools
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any

from grape.core.errors import GrapeError, SettingsError
from grape.core.events import SILENT, Progress, Reporter
from grape.core.settings import settings_from_dict
from grape.training.settings import SftSettings, TrainSettings

__all__ = ["main"]


class _Channel:
    """Standard output, kept for messages alone: what libraries print goes to standard error."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def send(self, kind: str, **message: Any) -> None:
        """Send a message."""
        self._file.write(json.dumps({"kind": kind, **message}) + "\n")
        self._file.flush()


class _SentProgress:
    def __init__(self, channel: _Channel, bar: int) -> None:
        self._channel, self._bar = channel, bar

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Send the count."""
        self._channel.send("advance", bar=self._bar, amount=amount, note=note)


class _SentReporter:
    """Sends what it hears to the supervisor."""

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel
        self._numbers = itertools.count()

    @contextlib.contextmanager
    def progress(self, title: str, total: int, done: int = 0) -> Iterator[Progress]:
        """Announce a bar and its end."""
        number = next(self._numbers)
        self._channel.send("bar", bar=number, title=title, total=total, done=done)
        yield _SentProgress(self._channel, number)
        self._channel.send("bar over", bar=number)

    def info(self, message: str) -> None:
        """Send the message."""
        self._channel.send("info", text=message)

    def warn(self, message: str) -> None:
        """Send the warning."""
        self._channel.send("warn", text=message)


def main() -> None:
    """Train as one rank, then leave."""
    signal.signal(signal.SIGTERM, _leave)
    channel = _Channel()
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_leave_with_supervisor, daemon=True).start()
    reporter: Reporter = _SentReporter(channel) if os.environ["RANK"] == "0" else SILENT
    try:
        _train(request["verb"], request["settings"], reporter)
    except SystemExit:  # asked to end: what the training held is closed
        pass
    except GrapeError as error:
        channel.send("outcome", error=type(error).__name__, message=error.message, hint=error.hint)
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        # Not printed here: where a peer is gone every rank fails, and one error is to be told.
        channel.send("outcome", defect=text, traceback=traceback.format_exc())
    else:
        channel.send("outcome", done=True)
        return
    # The peers may wait for this rank in a reduction that never comes: leaving the process group would wait for them.
    sys.stderr.flush()
    os._exit(1)


def _train(verb: str, values: Any, reporter: Reporter) -> None:
    if verb == "sft":
        from grape.training.sft import run_sft

        settings = settings_from_dict(SftSettings, values)
        _choose_device(settings)
        run_sft(settings, reporter)
    else:
        from grape.training.tpo import run_train

        chosen = settings_from_dict(TrainSettings, values)
        _choose_device(chosen)
        run_train(chosen, reporter)


def _choose_device(settings: SftSettings | TrainSettings) -> None:
    """Give this rank a GPU: that of its number, or where each rank sees GPUs of its own, the first of them.

    Raises:
        SettingsError: The machine has fewer GPUs than ``--gpus`` says.
    """
    import torch

    if settings.device == "cpu":
        return
    visible = torch.cuda.device_count()
    if visible < settings.gpus and settings.gpus > 1:
        raise SettingsError(
            f"--gpus {settings.gpus}: PyTorch sees {visible or 'no'} GPU{'s' if visible > 1 else ''} on this machine.",
            "Give fewer; or --device cpu for as many processes without GPUs, to try it out.",
        )
    if visible:
        os.environ["LOCAL_RANK"] = str(int(os.environ["LOCAL_RANK"]) % visible)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _leave_with_supervisor() -> None:
    """End this process when standard input ends, whatever its other threads wait for."""
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
