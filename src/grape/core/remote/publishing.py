"""Addresses in a command: what is read is brought up to date once, what is written goes up as it comes."""

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from grape.core.errors import DataError, GrapeError, SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.folder_locks import FolderLock
from grape.core.remote.addresses import RemoteAddress, refuse_unknown_protocol, remote_address
from grape.core.remote.mirrors import Mirror
from grape.core.remote.writer_claims import WriterClaim
from grape.core.settings_values import with_values

__all__ = ["addresses_in", "mirrored_folder", "publishing", "with_local_folders"]

T = TypeVar("T")

_ROUND = 5.0
"""Seconds between looks for finished files."""
_PAGES = (".html", ".rrd", ".json", ".yaml")
"""What the files end in that a verb may write in the place of a folder."""
_RENEWED = 60.0
"""Seconds after which a writer renews its claim."""


@dataclasses.dataclass
class _Command:
    """What one command has opened.

    Attributes:
        reporter: Hears of progress and warnings.
        pulled: Mirrors that are up to date, by address.
        readings: Keep what it reads from being replaced by other commands.
        writer: Uploads what it writes.
    """

    reporter: Reporter
    pulled: dict[RemoteAddress, Path] = dataclasses.field(default_factory=dict)
    readings: list[FolderLock | None] = dataclasses.field(default_factory=list)
    writer: "_Writer | None" = None


_read_for_good: list[FolderLock | None] = []
"""Of what is read outside of commands: nobody says when that ends, before the process does."""
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
    one is fetching it, that is waited for. Until the command ends, others do not replace what it reads.

    Raises:
        GrapeError: The address cannot be reached. An older mirror is not taken in its place.
        CompatibilityError: What has changed there is being read by another process of this machine.
        DataError: There is nothing, or less than a killed run left here.
    """
    command = _command.get()
    if command is not None and address in command.pulled:
        return command.pulled[address]
    mirror = Mirror(address)
    lock = mirror.lock_transfers(SILENT if command is None else command.reporter)
    if not mirror.is_written():
        mirror.pull(SILENT if command is None else command.reporter)
        if ahead := mirror.ahead():
            raise DataError(
                f"{address} lacks what a run wrote here: {ahead[0]} and {len(ahead) - 1} more were never uploaded.",
                f"Run the command that wrote it again, which uploads it; or delete {mirror.folder} for what is there.",
            )
    reading = mirror.lock_reading()
    del lock
    if not any(path.is_file() for path in mirror.content.rglob("*")):
        raise DataError(f"{address} holds nothing.", "Check bucket and folder.")
    if command is None:
        _read_for_good.append(reading)
    else:
        command.pulled[address] = mirror.content
        command.readings.append(reading)
    return mirror.content


def with_local_folders(settings: T) -> T:
    """The settings with a mirror's folder for every address; what is written to ``out`` is uploaded.

    What the address of ``out`` holds already is fetched first, so that a run goes on where another machine stopped.

    Raises:
        GrapeError: An address cannot be reached.
        CompatibilityError: Another process writes to ``out``.
        DataError: There is nothing at an address that is to be read.
    """
    dry_run = getattr(settings, "dry_run", False)

    def local(name: str, value: Any) -> Any:
        if name == "out":
            return value if dry_run else _local_out(value)
        address = _address(name, value)
        return value if address is None else type(value)(mirrored_folder(address))

    return with_values(settings, local)


def addresses_in(settings: Any) -> tuple[str, ...]:
    """Addresses that settings name, at any depth, ``out`` among them."""
    addresses: list[str] = []

    def note(name: str, value: Any) -> Any:
        address = _address(name, value)
        addresses.extend([] if address is None else [str(address)])
        return value

    with_values(settings, note)
    return tuple(addresses)


def _address(name: str, value: Any) -> RemoteAddress | None:
    """The address that a setting holds; texts are addresses where they name a policy."""
    return remote_address(value) if isinstance(value, Path) or (name == "policy" and isinstance(value, str)) else None


def _local_out(out: Any) -> Any:
    """The folder of this machine that a command writes."""
    command = _command.get()
    address = remote_address(out) if isinstance(out, Path) else None
    if isinstance(out, Path):
        refuse_unknown_protocol(out)
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
        self._claim = WriterClaim(self.mirror.remote)
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
                self._claim.refuse_others()
                self.mirror.push()
                failing = False
            except (GrapeError, OSError) as error:
                if not failing:  # once, not every few seconds
                    self._reporter.warn(f"{_sentence(error)} The run goes on here; uploading is tried again.")
                failing = True


def _sentence(error: GrapeError | OSError) -> str:
    return f"{error.message} {error.hint}".strip() if isinstance(error, GrapeError) else f"{error}."
