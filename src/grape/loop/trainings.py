"""Where a loop trains: in this process or one that it starts, or in all processes that a launcher started.

Under a launcher the main process runs the loop. The others start no stage and take no lock: they connect to the main
process, by a file in the loop's folder, and for each training start a rank where they are.
"""

import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from grape.cluster.links import Door, Invitation, connect
from grape.core.errors import GrapeError, SettingsError
from grape.core.events import Reporter
from grape.core.files import atomic_writer, read_json_mapping
from grape.core.launched import LaunchedProcess, forget_launcher, launched_process, number_in, variables_of_slurm
from grape.core.runs import is_complete
from grape.loop.job_ending import failure_left_behind, leave_ending, read_ending
from grape.training.process_group import (
    LocalRank,
    Rank,
    TrainingVerb,
    ended_together,
    follow,
    free_port,
    rank_variables,
    release_gpu_memory,
    request_of,
    summary_of,
)
from grape.training.settings import SftSettings, TrainSettings

__all__ = ["JobTrainings", "Trainings", "open_trainings", "serve_trainings", "tell_failure"]

Summary = Mapping[str, Any]

_FILE = ".process-group"
_JOB = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
"""Variables that tell one start of a launcher from another."""
_PATIENCE_SECONDS = 600.0  # until the main process has begun, which checks settings first
_ARRIVAL_SECONDS = 600.0  # until all others are connected
_FAREWELL_SECONDS, _HASTY_FAREWELL_SECONDS = 30.0, 2.0  # for those that have not connected yet
_RETRY_SECONDS = 0.5
_CHECK_SECONDS = 0.2


class Trainings:
    """Runs the trainings of a loop as the verbs do: in this process, or with ``gpus`` in ranks of this machine."""

    def sft(self, settings: SftSettings, reporter: Reporter) -> Summary:
        """Fine-tune on demonstrations."""
        from grape.training import run_sft

        return run_sft(settings, reporter)

    def train(self, settings: TrainSettings, reporter: Reporter) -> Summary:
        """Train on preferences."""
        from grape.training import run_train

        return run_train(settings, reporter)


class JobTrainings(Trainings):
    """Runs them in ranks beside all processes of a job; this one is the main process.

    Args:
        out: The loop's folder.
        variables: The launcher's variables, as torchrun sets them.
        by_slurm: Whether the launcher is ``srun``, which lets the others run on when this process has ended.
    """

    def __init__(self, out: Path, variables: Mapping[str, str], *, by_slurm: bool = False) -> None:
        self._job, self._by_slurm = _job(variables), by_slurm
        self._count = int(variables["WORLD_SIZE"])
        self._local_count = number_in(variables.get("LOCAL_WORLD_SIZE")) or self._count
        self._local = number_in(variables.get("LOCAL_RANK"))
        self._on_one_machine = self._local_count >= self._count
        self._host = "127.0.0.1" if self._on_one_machine else variables["MASTER_ADDR"]
        self._links: dict[int, socket.socket] = {}
        self._file = out / _FILE
        # The launcher's name of this machine need not be an address of this machine alone: the key keeps others out.
        self._door = Door(self._host if self._on_one_machine else "")
        invitation = self._door.invite(0)
        facts = {"host": self._host, "port": invitation.port, "key": invitation.key.hex(), "job": self._job}
        with atomic_writer(self._file) as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(json.dumps(facts).encode())

    def sft(self, settings: SftSettings, reporter: Reporter) -> Summary:
        """Fine-tune on demonstrations in all processes."""
        return super().sft(settings, reporter) if is_complete(settings.out) else self._run("sft", settings, reporter)

    def train(self, settings: TrainSettings, reporter: Reporter) -> Summary:
        """Train on preferences in all processes."""
        if is_complete(settings.out):
            return super().train(settings, reporter)
        return self._run("train", settings, reporter)

    def _run(self, verb: TrainingVerb, settings: SftSettings | TrainSettings, reporter: Reporter) -> Summary:
        self._admit(_ARRIVAL_SECONDS)
        missing = self._count - 1 - len(self._links)
        if missing:
            raise GrapeError(
                f"{missing} of the job's {self._count} processes did not connect within {_ARRIVAL_SECONDS:g} s.",
                "Look at what they wrote; all of them must see the loop's folder. Run the same command again to go on.",
            )
        release_gpu_memory()
        request, port = request_of(verb, settings), free_port()
        ranks: list[Rank] = []
        with ended_together(ranks):
            for number, link in self._links.items():
                ranks.append(_RemoteRank(number, link))
                meeting = {"rank": number, "count": self._count, "host": self._host, "port": port}
                with contextlib.suppress(OSError):  # it is gone, which its end tells
                    link.sendall(json.dumps({"train": meeting}).encode() + b"\n" + request)
            self._links = {}
            variables = rank_variables(0, self._count, self._local, self._local_count, self._host, port)
            ranks.append(LocalRank(0, request, variables))
            follow(ranks, reporter)
        return summary_of(verb, settings)

    def _admit(self, seconds: float) -> None:
        """Let the others in, until all are there or so much time has passed."""
        deadline = time.monotonic() + seconds
        while True:
            for number, link in self._door.admit().items():
                self._links[number] = link
            if len(self._links) == self._count - 1 or time.monotonic() > deadline:
                return
            select.select(self._door.sockets, [], [], _CHECK_SECONDS)

    def close(self, seconds: float, *, succeeded: bool = False) -> None:
        """Tell the others that the loop is over; wait so long at most for those that have not connected."""
        self._admit(seconds)
        if succeeded and self._by_slurm and len(self._links) < self._count - 1:
            leave_ending(self._file.parent, self._job)
        for link in self._links.values():
            with contextlib.suppress(OSError):
                link.sendall(b'{"over": true}\n')
            link.close()
        self._door.close()
        self._file.unlink(missing_ok=True)


class _RemoteRank:
    """A rank beside another process of the job.

    Args:
        number: Its number.
        link: The connection to that process, on which the rank's messages come.
    """

    def __init__(self, number: int, link: socket.socket) -> None:
        self.number = number
        self._link = link

    def fileno(self) -> int:
        """Descriptor of the connection."""
        return self._link.fileno()

    def stop(self) -> None:
        """Let the other process end it."""
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_WR)

    def wait(self, seconds: float) -> None:
        """Let it end, so long at most."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(OSError):
            while (left := deadline - time.monotonic()) > 0:
                self._link.settimeout(left)
                if not self._link.recv(1 << 16):
                    return

    def kill(self) -> None:
        """Close the connection, at which the other process ends it."""
        self._link.close()

    def ending(self) -> str:
        """How it ended: its process would have told more."""
        return "was lost with the process that started it"


@contextlib.contextmanager
def open_trainings(out: Path) -> Iterator[Trainings]:
    """Where the loop in a folder trains; under a launcher nothing else of this process is one of several from here on.

    Args:
        out: The loop's folder, which this process holds.
    """
    process = launched_process()
    if process.count == 1:
        yield Trainings()
        return
    variables = _variables(process)
    forgotten = {name: os.environ.pop(name) for name in set(os.environ) - set(forget_launcher(os.environ))}
    trainings = JobTrainings(out, variables, by_slurm=process.by_slurm)
    succeeded = False
    try:
        yield trainings
        succeeded = True
    finally:
        trainings.close(_FAREWELL_SECONDS if succeeded else _HASTY_FAREWELL_SECONDS, succeeded=succeeded)
        os.environ.update(forgotten)


def tell_failure(out: Path) -> contextlib.AbstractContextManager[None]:
    """In the main process of a job of SLURM: tell the others the error that ends the block, whenever they come.

    Other launchers end all processes when one fails.

    Args:
        out: The loop's folder.
    """
    process = launched_process()
    if process.count == 1 or not process.by_slurm:
        return contextlib.nullcontext()
    return failure_left_behind(out, _job(_variables(process)))


def serve_trainings(out: Path) -> None:
    """Start a rank for each training of the loop that the job's main process runs, until it is over.

    Args:
        out: The loop's folder.

    Raises:
        SettingsError: The main process does not begin: it ended, or its folder is not this one.
        GrapeError: The main process is gone, or failed before this process was connected.
    """
    process = launched_process()
    variables = _variables(process)
    invitation: Invitation | None = None
    while True:
        if invitation is None:
            connection = _first_connection(out, process, variables)
            if connection is None:
                return
            invitation, link = connection
        else:
            try:
                link = connect(invitation)
            except OSError as error:
                if read_ending(out, _job(variables), process.rank):
                    return
                raise _gone() from error
        with link, link.makefile("rb") as lines:
            line = lines.readline()
            if not line:
                raise _gone()
            message = json.loads(line)
            if "over" in message:
                return
            _train_beside(link, lines.readline(), message["train"], variables)


def _train_beside(
    link: socket.socket, request: bytes, meeting: Mapping[str, Any], variables: Mapping[str, str]
) -> None:
    """Run one rank, whose messages go through the connection, until it or the connection ends."""
    local_count = number_in(variables.get("LOCAL_WORLD_SIZE")) or meeting["count"]
    numbers = meeting["rank"], meeting["count"], number_in(variables.get("LOCAL_RANK")), local_count
    given = rank_variables(*numbers, meeting["host"], meeting["port"])
    ranks = [LocalRank(meeting["rank"], request, given, output=link.fileno())]
    with contextlib.suppress(ConnectionError), ended_together(ranks):
        while not ranks[0].has_ended:
            if select.select([link], [], [], _CHECK_SECONDS)[0]:
                raise ConnectionError  # nothing is sent here while a rank runs: the connection is over
    with contextlib.suppress(OSError):
        text = f"{ranks[0].ending()} on {socket.gethostname()}"
        link.sendall(b"\n" + json.dumps({"kind": "outcome", "died": text}).encode() + b"\n")


def _first_connection(
    out: Path, process: LaunchedProcess, variables: Mapping[str, str]
) -> tuple[Invitation, socket.socket] | None:
    """Connect to the main process once it has begun; None where it is done already."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if read_ending(out, _job(variables), process.rank):
            return None
        with contextlib.suppress(GrapeError, OSError, KeyError, TypeError, ValueError):  # not there, or of an older job
            facts = read_json_mapping(out / _FILE, within=out)
            if facts["job"] == _job(variables):
                invitation = Invitation(facts["host"], facts["port"], bytes.fromhex(facts["key"]), process.rank)
                return invitation, connect(invitation)
        time.sleep(_RETRY_SECONDS)
    raise SettingsError(
        f"Process {process.rank}: the job's main process did not begin within {_PATIENCE_SECONDS:g} s.",
        f"Look at what it wrote; all processes must see the folder {out}.",
    )


def _gone() -> GrapeError:
    return GrapeError("The job's main process is gone.", "Start the job again: the loop goes on where it stopped.")


def _variables(process: LaunchedProcess) -> dict[str, str]:
    """The launcher's variables, as torchrun sets them."""
    variables = {name: value for name, value in os.environ.items() if name not in forget_launcher(os.environ)}
    kept = {name: os.environ[name] for name in _JOB if name in os.environ}
    return variables | kept | (variables_of_slurm(os.environ) if process.by_slurm else {})


def _job(variables: Mapping[str, str]) -> list[str]:
    return [variables.get(name, "") for name in _JOB]
