"""Addresses in a command: what is read is brought up to date once, what is written goes up as it comes."""

import contextlib
import dataclasses
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from grape.core.errors import CompatibilityError, DataError, GrapeError, SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.files import machine_hash
from grape.core.mirrors import Mirror
from grape.core.remote_addresses import RemoteAddress, remote_address

__all__ = ["addresses_in", "mirrored_folder", "publishing", "with_local_folders"]

T = TypeVar("T")

_ROUND = 5.0
"""Seconds between looks for finished files."""
_PAGES = (".html", ".rrd", ".json", ".yaml")
"""What the files end in that a verb may write in the place of a folder."""
_LEASE = ".grape-writer.json"
_RENEWED, _EXPIRED = 60.0, 300.0
"""Seconds after which a writer renews its claim, and after which another one may take it over."""
_SETTLED = 1.0
"""Seconds until two writers that begin at once have both made their claims."""


@dataclasses.dataclass
class _Command:
    """What one command has opened.

    Attributes:
        reporter: Hears of progress and warnings.
        pulled: Mirrors that are up to date, by address.
        writer: Uploads what it writes.
    """

    reporter: Reporter
    pulled: dict[RemoteAddress, Path] = dataclasses.field(default_factory=dict)
    writer: "_Writer | None" = None


_command: ContextVar[_Command | None] = ContextVar("command", default=None)


@contextlib.contextmanager
def publishing(reporter: Reporter = SILENT) -> Iterator[None]:
    """A command: within it an address is brought up to date once; at its end what it wrote is uploaded.

    Raises:
        GrapeError: Something could not be uploaded; it is kept here, and the same command goes on with it.
    """
    if _command.get() is not None:  # a verb within a verb
        yield
        return
    command = _Command(reporter)
    token = _command.set(command)
    try:
        yield
    except BaseException:
        if command.writer is not None:
            command.writer.give_up()
        raise
    else:
        if command.writer is not None:
            command.writer.finish()
    finally:
        _command.reset(token)


def mirrored_folder(address: RemoteAddress) -> Path:
    """The mirror's folder of an address, brought up to date.

    Where another process of this machine is writing the mirror, it is taken as it is: nothing is newer. Where another
    one is fetching it, that is waited for.

    Raises:
        GrapeError: The address cannot be reached. An older mirror is not taken in its place.
        DataError: There is nothing.
    """
    command = _command.get()
    if command is not None and address in command.pulled:
        return command.pulled[address]
    mirror = Mirror(address)
    lock = mirror.lock_transfers(SILENT if command is None else command.reporter)
    if not mirror.is_written():
        mirror.pull(SILENT if command is None else command.reporter)
    del lock
    if not any(path.is_file() for path in mirror.content.rglob("*")):
        raise DataError(f"{address} holds nothing.", "Check bucket and folder.")
    if command is not None:
        command.pulled[address] = mirror.content
    return mirror.content


def with_local_folders(settings: T) -> T:
    """The settings with a mirror's folder for every address; what is written to ``out`` is uploaded.

    What the address of ``out`` holds already is fetched first, so that a run goes on where another machine stopped.

    Raises:
        GrapeError: An address cannot be reached.
        CompatibilityError: Another process writes to ``out``.
        DataError: There is nothing at an address that is to be read.
    """
    changes: dict[str, Any] = {}
    for item in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, item.name)
        if dataclasses.is_dataclass(value):
            local: Any = with_local_folders(value)
        elif item.name == "out":
            local = value if getattr(settings, "dry_run", False) else _local_out(value)
        else:
            local = tuple(map(_local, value)) if isinstance(value, tuple) else _local(value, item.name)
        if local != value:
            changes[item.name] = local
    return dataclasses.replace(settings, **changes) if changes else settings  # type: ignore[type-var]


def addresses_in(settings: Any) -> tuple[str, ...]:
    """Addresses that settings name, at any depth, ``out`` among them."""
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        values: list[Any] = [
            getattr(settings, item.name)
            for item in dataclasses.fields(settings)
            if item.name == "policy" or not isinstance(getattr(settings, item.name), str)
        ]
    elif isinstance(settings, tuple):
        values = list(settings)
    else:
        address = remote_address(settings) if isinstance(settings, Path | str) else None
        return () if address is None else (str(address),)
    return tuple(address for value in values for address in addresses_in(value))


def _local(value: Any, name: str = "") -> Any:
    """A path, or the text that names a policy, with an address replaced by its mirror."""
    if not isinstance(value, Path) and not (name == "policy" and isinstance(value, str)):
        return value
    address = remote_address(value)
    return value if address is None else type(value)(mirrored_folder(address))


def _local_out(out: Any) -> Any:
    """The folder of this machine that a command writes."""
    command = _command.get()
    address = remote_address(out) if isinstance(out, Path) else None
    if address is None or command is None:
        return out
    if out.suffix in _PAGES:
        raise SettingsError(
            f"--out {address} is a file; an address is a folder.", "Write the file here, and copy it there."
        )
    if command.writer is None:
        command.writer = _Writer(address, command.reporter)
        command.pulled[address] = command.writer.mirror.content
    if command.writer.mirror.address != address:
        raise SettingsError(f"{command.writer.mirror.address} is being written already; {address} is a second --out.")
    return command.writer.mirror.content


class _Writer:
    """Uploads the finished files of a mirror while a verb works in it.

    Args:
        address: Where to.
        reporter: Hears of progress and warnings.

    Raises:
        GrapeError: The address cannot be reached.
        CompatibilityError: Another process writes there, here or on another machine.
    """

    def __init__(self, address: RemoteAddress, reporter: Reporter) -> None:
        self.mirror = Mirror(address)
        self._reporter = reporter
        self._lock = self.mirror.lock_content()
        self._claim = _Claim(self.mirror)
        self._claim.make()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._renew, daemon=True)]
        self._threads[0].start()  # before anything is fetched, which may take longer than a claim lasts
        try:
            lock = self.mirror.lock_transfers(reporter)
            self.mirror.pull(reporter)
            del lock
        except BaseException:
            self._end_threads()
            self._claim.end()
            raise
        self._threads.append(threading.Thread(target=self._upload, daemon=True))
        self._threads[1].start()

    def finish(self) -> None:
        """Upload what is left.

        Raises:
            GrapeError: The address cannot be reached.
            CompatibilityError: Another writer has taken over; what is here stays here.
        """
        self._end_threads()
        try:
            self._claim.make()
        except GrapeError as error:
            raise type(error)(error.message, f"{error.hint} {self.mirror.kept}".strip()) from error
        self.mirror.push(self._reporter, compare=True)
        self._claim.end()

    def give_up(self) -> None:
        """Upload what is finished after the verb has failed; a further error is a warning."""
        try:
            self.finish()
        except (GrapeError, OSError) as error:
            self._reporter.warn(f"{_sentence(error)} The run is not whole at {self.mirror.address}.")

    def _end_threads(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _renew(self) -> None:
        while not self._stop.wait(_RENEWED):
            with contextlib.suppress(GrapeError, OSError):  # said where files are uploaded
                self._claim.make()

    def _upload(self) -> None:
        failing = False
        while not self._stop.wait(_ROUND):
            try:
                if not self._claim.is_lost:
                    self.mirror.push()
                failing = False
            except (GrapeError, OSError) as error:
                if not failing:  # once, not every few seconds
                    self._reporter.warn(f"{_sentence(error)} The run goes on here; uploading is tried again.")
                failing = True


def _sentence(error: GrapeError | OSError) -> str:
    return f"{error.message} {error.hint}".strip() if isinstance(error, GrapeError) else f"{error}."


class _Claim:
    """The file at an address that says who writes there.

    Args:
        mirror: Of the address.
    """

    def __init__(self, mirror: Mirror) -> None:
        self.is_lost = False
        self._mirror = mirror
        self._token = secrets.token_hex(8)
        self._made = False
        self._guard = threading.Lock()

    def make(self) -> None:
        """Make the claim, or renew it.

        Raises:
            CompatibilityError: Somebody else writes there.
            GrapeError: The address cannot be reached.
            DataError: The file says something else.
        """
        with self._guard:
            self._refuse_others()
            claim = {
                "host": socket.gethostname(),
                "machine": machine_hash(),
                "process": os.getpid(),
                "time": time.time(),
                "token": self._token,
            }
            self._mirror.write_remote(_LEASE, json.dumps(claim).encode())
            if not self._made:  # of two that begin at once, the later one's claim stands
                time.sleep(_SETTLED)
                self._refuse_others()
            self._made = True

    def end(self) -> None:
        """Withdraw the claim, unless somebody else has made one."""
        with self._guard:
            other = self._read()
            if other is not None and other["token"] == self._token:
                self._mirror.write_remote(_LEASE, None)

    def _refuse_others(self) -> None:
        other = self._read()
        if other is None or other["token"] == self._token:
            return
        age = time.time() - other["time"]
        if not self._made and (age >= _EXPIRED or _ended_here(other)):
            return
        self.is_lost = self._made
        raise CompatibilityError(
            f"{self._mirror.address} is being written by process {other['process']} of {other['host']:.60}, which was "
            f"heard of {max(age, 0):.0f} s ago.",
            f"Wait for it, or choose another --out; {_EXPIRED / 60:.0f} minutes after its end anybody may go on there.",
        )

    def _read(self) -> dict[str, Any] | None:
        recorded = self._mirror.read_remote(_LEASE)
        if recorded is None:
            return None
        try:
            claim = json.loads(recorded)
            return {
                "host": str(claim["host"]),
                "machine": str(claim["machine"]),
                "process": int(claim["process"]),
                "time": float(claim["time"]),
                "token": str(claim["token"]),
            }
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self._mirror.address / _LEASE} does not say who writes there.", "Delete that file."
            ) from error


def _ended_here(claim: Mapping[str, Any]) -> bool:
    """Whether a claim is one of a process of this machine that is no more."""
    if claim["machine"] != machine_hash():
        return False
    try:
        os.kill(claim["process"], 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's process
        return False
    return False
