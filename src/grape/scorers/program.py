"""The process of an external scorer or judge: JSON lines in, JSON lines out, replaced when it fails.

A program is started without a shell, with standard input and output as pipes. It reads one JSON object a line and
writes one a line: to ``{"request": "hello", "protocol": 1, "kind": "scorer"}`` anything about itself (``"noise"``,
``"needs_images"``, a ``"problem"`` where it cannot work; the rest is provenance), to every other request the reply that
its kind documents, with the same ``"id"``. A program that crashes, hangs or answers anything else is killed, started
again and given the same request. A reply with a ``"refusal"`` says that no further request would fare better, e.g. for
an option that no episode fits.
"""

import contextlib
import json
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

from grape.core.errors import DataError, ProgramError, SettingsError, printable
from grape.core.files import file_hash
from grape.core.reading import open_file, parse_json
from grape.scorers.model_folder import is_model_folder, model_folder_hash

__all__ = [
    "ATTEMPTS",
    "PROTOCOL",
    "ExternalProgram",
    "ProgramRefusalError",
    "argument_vector",
    "program_identity",
]

PROTOCOL = 1

ATTEMPTS = 3
"""How often a request is sent before the program's failure is the answer."""

_MAX_REPLY = 16 * 2**20
_QUOTED = 1000  # characters of standard error that are quoted
_LARGEST_SCRIPT = 64 * 2**20
_SAME_AFTER_RESTART = ("name", "noise")

T = TypeVar("T")


def argument_vector(command: str, flag: str) -> tuple[str, ...]:
    """A command line as an argument vector; no shell ever sees it.

    Args:
        command: What the user wrote.
        flag: How it was given, for messages.

    Raises:
        SettingsError: Quotes do not match, or there is no such program.
    """
    try:
        arguments = tuple(shlex.split(command))
    except ValueError as error:
        raise SettingsError(f"{flag} {command!r} is no command line: {error}.", "Close the quotes.") from error
    if not arguments or shutil.which(arguments[0]) is None:
        name = arguments[0] if arguments else ""
        raise SettingsError(
            f"{flag} {command!r}: there is no program {name!r} that can be run.",
            "Give the path of a program, or an interpreter and a script, e.g. 'python my_scorer.py'.",
        )
    return arguments


def program_identity(arguments: Sequence[str]) -> dict[str, Any]:
    """What a program is: its argument vector, and the hashes of files and folders of weights in it.

    Of programs only scripts are hashed. A path may stand behind ``--option=``, too.
    """
    files = {}
    program = shutil.which(arguments[0])
    with contextlib.suppress(DataError):
        if program is not None and _is_script(Path(program)):
            files[arguments[0]] = file_hash(Path(program), _LARGEST_SCRIPT)
    for argument in arguments[1:]:
        option, _, value = argument.partition("=")
        path = Path(value if option.startswith("-") and value else argument)
        with contextlib.suppress(DataError, ValueError, OSError):
            if path.is_file():
                files[argument] = file_hash(path, _LARGEST_SCRIPT)
            elif argument and is_model_folder(path):
                files[argument] = model_folder_hash(path)
    return {"command": list(arguments), "files": files}


def _is_script(path: Path) -> bool:
    """Whether a program is a text that an interpreter reads; the others are not of one's own making."""
    with open_file(path) as file:
        return file.read(2) == b"#!"


class ProgramRefusalError(ProgramError):
    """A program that cannot work at all, or has become another one: it is asked nothing more."""


class _AttemptError(Exception):
    """What went wrong with one attempt."""


class _ErrorTail:
    """The end of what a process writes to its standard error; whatever came before is dropped as it comes.

    Args:
        pipe: The reading end, which is closed where the last writer has gone.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe, self._end = pipe, b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def quoted(self) -> str:
        """A sentence with the last characters of a process that has ended; empty where it wrote nothing."""
        self._reader.join(timeout=5.0)  # no longer: a child that left the process's group may hold the pipe
        text = self._end.decode("utf-8", "replace").strip()[-_QUOTED:]
        return f" End of its stderr: {text}" if text else ""

    def _read(self) -> None:
        with self._pipe:
            while part := os.read(self._pipe.fileno(), 2**16):
                self._end = (self._end + part)[-4 * _QUOTED :]


class ExternalProgram:
    """A program that answers requests.

    Args:
        arguments: Its argument vector.
        kind: ``"scorer"`` or ``"judge"``.
        timeout: Seconds within which it must start, and answer every request.
        warn: Hears of every replacement.
    """

    def __init__(
        self, arguments: Sequence[str], kind: str, timeout: float, warn: Callable[[str], None] = lambda message: None
    ) -> None:
        self.arguments = tuple(arguments)
        self._kind, self._timeout, self._warn = kind, timeout, warn
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: _ErrorTail | None = None
        self._buffer = b""
        self._count = 0
        self._greeting: Mapping[str, Any] | None = None

    def hello(self) -> Mapping[str, Any]:
        """Start the program; returns what it says of itself.

        Raises:
            ProgramError: It does not start, or answers nonsense, also after its retries.
            ProgramRefusalError: It says that it cannot work.
        """
        about = self.ask({"request": "hello", "protocol": PROTOCOL, "kind": self._kind}, lambda reply: reply)
        self._check_greeting(about)
        self._greeting = about
        return about

    def ask(self, request: Mapping[str, Any], read: Callable[[Mapping[str, Any]], T]) -> T:
        """Send a request and read the reply.

        Args:
            request: JSON values.
            read: Makes something of the reply; a ValueError says that it is nonsense.

        Raises:
            ProgramError: No attempt gave an answer that can be used.
            ProgramRefusalError: It says that it cannot work, also where it was started again, or then calls itself
                otherwise.
            SettingsError: The program cannot be run.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return read(self._exchange(request))
            except (_AttemptError, ValueError) as error:
                errors = self._errors
                self.close()
                problem = f"{str(error).removesuffix('.')}.{'' if errors is None else errors.quoted()}"
                if attempt == ATTEMPTS:
                    raise ProgramError(
                        f"The {self._kind} {shlex.join(self.arguments)!r} failed {ATTEMPTS} times: it {problem}",
                        "Run it by hand with one of its requests on standard input; docs/judges.md has the protocol.",
                    ) from error
                command = shlex.join(self.arguments)
                self._warn(f"The {self._kind} {command!r} failed and is started again: it {printable(problem)}")
        raise AssertionError("an attempt returns or raises")

    def close(self) -> None:
        """End the process and its children."""
        process, self._process, self._buffer = self._process, None, b""
        if process is not None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            process.wait()
        self._errors = None

    def _exchange(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """One request and its reply, in a process that is started where none runs."""
        deadline = time.monotonic() + self._timeout
        if self._process is None:
            self._start()
            if request.get("request") != "hello":
                self._check_greeting(self._exchange({"request": "hello", "protocol": PROTOCOL, "kind": self._kind}))
                deadline = time.monotonic() + self._timeout
        self._count += 1
        self._send(json.dumps({"id": self._count, **request}, allow_nan=False).encode() + b"\n", deadline)
        line = self._receive(deadline)
        try:
            reply = parse_json(line, "the answer")
        except DataError as error:
            raise _AttemptError(f"answered {_shown(line)}: {error.message}") from error
        if not isinstance(reply, dict) or reply.get("id") != self._count:
            raise _AttemptError(
                f"answered something else than an object with the request's id {self._count}: {_shown(line)}"
            )
        if refusal := reply.get("refusal"):
            raise self._refused(f"cannot work: {printable(str(refusal))[:_QUOTED]}")
        return {name: value for name, value in reply.items() if name != "id"}

    def _check_greeting(self, about: Mapping[str, Any]) -> None:
        """Refuse a program that cannot work, and one that was started again and is another one now."""
        if problem := about.get("problem"):
            raise self._refused(f"cannot work: {printable(str(problem))[:_QUOTED]}")
        for name in _SAME_AFTER_RESTART if self._greeting is not None else ():
            before, now = (self._greeting or {}).get(name), about.get(name)
            if before != now:
                raise self._refused(
                    f"was started again and now says {name} = {printable(repr(now))[:80]}, "
                    f"before {printable(repr(before))[:80]}"
                )

    def _refused(self, what: str) -> ProgramRefusalError:
        """The error for a program that is asked nothing more; it is ended."""
        self.close()
        return ProgramRefusalError(
            f"The {self._kind} {shlex.join(self.arguments)!r} {what}.",
            "docs/judges.md says what the programs that come with GRAPE need.",
        )

    def _start(self) -> None:
        inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        try:
            self._process = subprocess.Popen(
                self.arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # Its packages are its own; and what a Python program prints arrives without a flush.
                env=inherited | {"PYTHONUNBUFFERED": "1"},
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            raise SettingsError(
                f"The {self._kind} {shlex.join(self.arguments)!r} cannot be run: {error.strerror or error}.",
                "Give the path of a program, or an interpreter and a script, e.g. 'python my_scorer.py'.",
            ) from error
        assert self._process.stderr is not None
        self._errors = _ErrorTail(self._process.stderr)

    def _send(self, data: bytes, deadline: float) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        pipe = self._process.stdin.fileno()
        os.set_blocking(pipe, False)  # a program that never reads must not stop this one
        view = memoryview(data)
        while view:
            self._wait(pipe, selectors.EVENT_WRITE, deadline)
            try:
                view = view[os.write(pipe, view) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise _AttemptError(self._ending()) from error

    def _receive(self, deadline: float) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            self._wait(pipe, selectors.EVENT_READ, deadline)
            part = os.read(pipe, 2**16)
            if not part:
                raise _AttemptError(self._ending())
            self._buffer += part
            if len(self._buffer) > _MAX_REPLY:
                raise _AttemptError(f"answered a line of more than {_MAX_REPLY:,} bytes")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _wait(self, pipe: int, event: int, deadline: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, event)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise _AttemptError(f"gave no answer for {self._timeout:g} s")

    def _ending(self) -> str:
        """How the process ended; one that only closed its pipe is given a moment to end."""
        assert self._process is not None
        try:
            status = self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            return "closed its standard input or output"
        return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"


def _shown(line: bytes) -> str:
    return repr(line[:120].decode("utf-8", "replace"))
