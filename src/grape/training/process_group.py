"""A training's own process group: starts its ranks, follows them, and ends them together.

This process supervises and does not train. Rank 0 tells what it reports, every rank how it ended, as JSON lines
(:mod:`grape.training.rank` is the program). When one rank fails or dies the others are ended, and one error says what
came first. Ranks end by themselves when this process is gone, however it went.
"""

import contextlib
import gc
import json
import math
import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Literal, Protocol

from grape.core import errors
from grape.core.child_processes import how_it_ended, search_path
from grape.core.errors import GrapeError, SettingsError, TrainingError
from grape.core.events import Progress, Reporter
from grape.core.launched import forget_launcher, launched_process, number_in, variables_of_slurm
from grape.core.runs import is_complete, load_summary
from grape.core.settings import settings_to_dict
from grape.training.settings import SftSettings, TrainSettings

__all__ = [
    "LocalRank",
    "Rank",
    "TrainingVerb",
    "follow",
    "free_port",
    "rank_variables",
    "request_of",
    "start_local_ranks",
]

TrainingVerb = Literal["sft", "train"]

_GRACE_SECONDS = 5.0  # for the other ranks to say how they ended, once one has failed
_END_SECONDS = 15.0  # for a rank that was asked to end
_LOOPBACK = "127.0.0.1"


class Rank(Protocol):
    """A rank under way: a process of this machine, or of another one."""

    number: int

    def fileno(self) -> int:
        """Descriptor from which its messages are read."""

    def stop(self) -> None:
        """Ask it to end."""

    def wait(self, seconds: float) -> None:
        """Let it end, so long at most."""

    def kill(self) -> None:
        """End it, if it has not ended, and release what it holds here."""

    def ending(self) -> str:
        """How it ended, once it has."""


class LocalRank:
    """A rank as a process of this machine.

    Args:
        number: Number among all ranks.
        request: What to do, see :func:`request_of`.
        variables: The variables of a launcher, see :func:`rank_variables`.
        output: Descriptor that its messages go to; None for a pipe that this object reads.
    """

    def __init__(self, number: int, request: bytes, variables: Mapping[str, str], output: int | None = None) -> None:
        self.number = number
        # A group of its own: Ctrl-C reaches this process alone, which ends the ranks in an orderly way.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "grape.training.rank"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if output is None else output,
            env={**forget_launcher(os.environ), **variables, **search_path()},
            process_group=0,
        )
        assert self._process.stdin is not None
        self._stdin: IO[bytes] = self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # it died at once, which its end tells
            self._stdin.write(request)
            self._stdin.flush()

    def fileno(self) -> int:
        """Descriptor of the pipe with its messages."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def stop(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def wait(self, seconds: float) -> None:
        """Let it end, so long at most."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=seconds)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """End it at once and wait until it has."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def ending(self) -> str:
        """How it ended."""
        return how_it_ended(self._process.wait())


def needs_ranks(settings: SftSettings | TrainSettings) -> bool:
    """Whether a training starts ranks: not for its plan, nor to find that its folder is complete.

    Raises:
        SettingsError: A launcher has started a process group already.
    """
    if settings.gpus > 1:
        check_no_launcher(settings.gpus)
    return settings.gpus > 1 and not settings.dry_run and not is_complete(settings.out)


def check_no_launcher(gpus: int) -> None:
    """Refuse ``--gpus`` where a launcher has started processes.

    Raises:
        SettingsError: It has.
    """
    process = launched_process()
    if process.count > 1:
        raise SettingsError(
            f"--gpus {gpus} starts processes of its own, but {process.launcher} started {process.count}.",
            "Leave --gpus out, or start the command without the launcher.",
        )


def plan_processes(settings: SftSettings | TrainSettings) -> dict[str, Any]:
    """The process group of a training and how it is spread, for its plan; nothing for a single process."""
    process, variables = launched_process(), dict(os.environ)
    count = process.count if process.count > 1 else settings.gpus
    if count == 1:
        return {}
    local = settings.gpus
    if process.count > 1:
        variables |= variables_of_slurm(variables) if process.by_slurm else {}
        local = number_in(variables.get("LOCAL_WORLD_SIZE")) or count
    sharded = isinstance(settings, TrainSettings) and settings.sharding == "full"
    return {
        "processes": {
            "count": count,
            "started_by": process.launcher if process.count > 1 else f"--gpus {settings.gpus}",
            "machines": math.ceil(count / max(1, local)),
            "on_each_machine": local,
            "device_of_each": "the CPU" if settings.device == "cpu" else "a GPU of its own",
            "parameters": "spread over all processes (FSDP)" if sharded else "whole in each process",
            "batches": "each process takes its share of every batch; gradients are summed",
        }
    }


def run_in_ranks(verb: TrainingVerb, settings: SftSettings | TrainSettings, reporter: Reporter) -> Mapping[str, Any]:
    """Train in ``settings.gpus`` ranks of this machine; returns the training's summary.

    Raises:
        GrapeError: What a rank raised.
        TrainingError: A rank died.
    """
    with start_local_ranks(verb, settings) as ranks:
        follow(ranks, reporter)
    return summary_of(verb, settings)


def request_of(verb: TrainingVerb, settings: SftSettings | TrainSettings) -> bytes:
    """What a rank is told first, a line of JSON."""
    return json.dumps({"verb": verb, "settings": settings_to_dict(settings)}).encode() + b"\n"


def summary_of(verb: TrainingVerb, settings: SftSettings | TrainSettings) -> Mapping[str, Any]:
    """What the training itself would have returned, from the folder that its ranks completed."""
    return {**load_summary(settings.out, verb), "policy": str(settings.out / "policy")}


def rank_variables(rank: int, count: int, local: int, local_count: int, host: str, port: int) -> dict[str, str]:
    """The variables that torchrun would set for a rank."""
    numbers = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": local, "LOCAL_WORLD_SIZE": local_count}
    return {name: str(number) for name, number in numbers.items()} | {"MASTER_ADDR": host, "MASTER_PORT": str(port)}


def free_port(host: str = "") -> int:
    """A port that nothing listens on now."""
    with socket.create_server((host, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def start_local_ranks(verb: TrainingVerb, settings: SftSettings | TrainSettings) -> Iterator[Sequence[LocalRank]]:
    """Start ``settings.gpus`` ranks on this machine, which meet on loopback; they end with the block."""
    release_gpu_memory()
    request, port, count = request_of(verb, settings), free_port(_LOOPBACK), settings.gpus
    ranks: list[LocalRank] = []
    with ended_together(ranks):
        for number in range(count):
            variables = rank_variables(number, count, number, count, _LOOPBACK, port)
            if sys.platform == "linux":
                variables["GLOO_SOCKET_IFNAME"] = "lo"
            ranks.append(LocalRank(number, request, variables))
        yield ranks


@contextlib.contextmanager
def ended_together(ranks: Sequence[Rank]) -> Iterator[None]:
    """End with the block the ranks that are in the list then; after an exception, ask them to end first."""
    try:
        yield
    except BaseException:
        for rank in ranks:
            rank.stop()
        raise
    finally:
        deadline = time.monotonic() + _END_SECONDS
        for rank in ranks:
            rank.wait(max(0.0, deadline - time.monotonic()))
            rank.kill()


def release_gpu_memory() -> None:
    """Give the GPU memory that PyTorch keeps in this process for later back to the ranks."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


@dataclass
class _Reading:
    """What was read of a rank."""

    rank: Rank
    data: bytes = b""
    outcome: Mapping[str, Any] | None = None
    bars: dict[int, tuple[contextlib.ExitStack, Progress]] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return self.outcome is not None and "done" not in self.outcome


def follow(ranks: Sequence[Rank], reporter: Reporter) -> None:
    """Show what rank 0 reports until all ranks are done.

    Raises:
        GrapeError: What a rank raised; of several errors the one that explains the others.
        TrainingError: A rank died.
    """
    readings = [_Reading(rank) for rank in ranks]
    deadline: float | None = None
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as bars:
        for reading in readings:
            selector.register(reading.rank.fileno(), selectors.EVENT_READ, reading)
        while selector.get_map() and (deadline is None or time.monotonic() < deadline):
            for key, _ in selector.select(None if deadline is None else max(0.0, deadline - time.monotonic())):
                if not _read(key.data, reporter, bars):
                    selector.unregister(key.fd)
            if deadline is None and any(reading.failed for reading in readings):
                deadline = time.monotonic() + _GRACE_SECONDS
    failures = [reading for reading in readings if reading.failed]
    if failures:
        raise _error(failures)


def _read(reading: _Reading, reporter: Reporter, bars: contextlib.ExitStack) -> bool:
    """Take what a rank wrote; whether more may come."""
    try:
        data = os.read(reading.rank.fileno(), 1 << 16)
    except ConnectionError:
        data = b""
    if not data:
        if reading.outcome is None:
            reading.outcome = {"died": reading.rank.ending()}
        return False
    *lines, reading.data = (reading.data + data).split(b"\n")
    for line in lines:
        try:
            message = json.loads(line)
        except ValueError:  # a rank was killed while it wrote
            continue
        kind = message.pop("kind")
        if kind == "outcome":
            reading.outcome = reading.outcome or message
        elif kind == "bar":
            shown = bars.enter_context(contextlib.ExitStack())
            bar = shown.enter_context(reporter.progress(message["title"], message["total"], message["done"]))
            reading.bars[message["bar"]] = shown, bar
        elif kind == "advance":
            reading.bars[message["bar"]][1].advance(message["amount"], message["note"])
        elif kind == "bar over":
            reading.bars.pop(message["bar"])[0].close()
        else:
            (reporter.warn if kind == "warn" else reporter.info)(message["text"])
    return True


def _error(failures: Sequence[_Reading]) -> GrapeError:
    """The error that explains the others: a rank whose peers are gone fails, too."""

    def order(reading: _Reading) -> tuple[int, int]:
        assert reading.outcome is not None
        return ["error", "died", "defect"].index(next(iter(reading.outcome))), reading.rank.number

    first = min(failures, key=order)
    assert first.outcome is not None
    if "error" in first.outcome:
        kind = getattr(errors, first.outcome["error"], GrapeError)
        error: GrapeError = kind(first.outcome["message"], first.outcome["hint"])
        return error
    what = first.outcome.get("died") or f"failed: {first.outcome['defect']}"
    trace = f"\n{first.outcome['traceback']}" if "traceback" in first.outcome else ""
    return TrainingError(
        f"Rank {first.rank.number} of the training {what}; the others were ended.",
        f"Run the same command again: it goes on from the last checkpoint.{trace}",
    )
