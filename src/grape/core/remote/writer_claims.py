"""Claims to write at an address: of two writers, on whatever machines, one is refused."""

import contextlib
import hashlib
import json
import math
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any, TypedDict

from grape.core.errors import CompatibilityError, DataError
from grape.core.files import machine_hash
from grape.core.reading import parse_json
from grape.core.remote.folders import RemoteFolder

__all__ = ["WriterClaim"]

_FILE = ".grape-writer.json"
_EXPIRED = 300.0
"""Seconds after which a claim that was not renewed may be taken over."""
_SETTLED = 1.0
"""Seconds until two writers that begin at once have both made their claims, where a protocol cannot keep one of them
from replacing the other's."""
_MACHINE_FILES = "/etc/machine-id", "/proc/sys/kernel/random/boot_id"
"""What tells machines of one name apart; process numbers begin anew when a machine starts."""


class _Claim(TypedDict):
    host: str
    machine: str
    process: int
    time: float
    token: str


class WriterClaim:
    """The file at an address that says who writes there.

    Args:
        remote: The folder there.
    """

    def __init__(self, remote: RemoteFolder) -> None:
        self._remote = remote
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
            other = self._refuse_others()
            claim = _Claim(
                host=socket.gethostname(), machine=_machine(), process=os.getpid(), time=time.time(), token=self._token
            )
            content = json.dumps(claim).encode()
            if self._made:
                self._remote.write(_FILE, content)
                return
            if other is not None:  # it has expired, or its process has ended
                self._remote.write(_FILE, None)
            if self._remote.create(_FILE, content):
                time.sleep(_SETTLED)
            elif self._refuse_others() is None:  # another one was withdrawn this moment
                self._remote.write(_FILE, content)
            self._refuse_others()
            self._made = True

    def refuse_others(self) -> None:
        """See that nobody has taken over.

        Raises:
            CompatibilityError: Somebody has.
            GrapeError: The address cannot be reached.
            DataError: The file says something else.
        """
        with self._guard:
            self._refuse_others()

    def end(self) -> None:
        """Withdraw the claim, unless somebody else has made one."""
        with self._guard:
            other = self._read()
            if other is not None and other["token"] == self._token:
                self._remote.write(_FILE, None)

    def _refuse_others(self) -> _Claim | None:
        """The claim that is there, which is no obstacle."""
        other = self._read()
        if other is None or other["token"] == self._token:
            return other
        age = time.time() - other["time"]
        if not self._made and (age >= _EXPIRED or _ended_here(other)):
            return other
        raise CompatibilityError(
            f"{self._remote.address} is being written by process {other['process']} of {other['host']:.60}, which was "
            f"heard of {max(age, 0):.0f} s ago.",
            f"Wait for it, or choose another --out; {_EXPIRED / 60:.0f} minutes after its end anybody may go on there.",
        )

    def _read(self) -> _Claim | None:
        recorded = self._remote.read(_FILE)
        if recorded is None:
            return None
        place = f"{self._remote.address / _FILE}"
        claim: Any = parse_json(recorded, place, hint="Delete that file.")
        match claim:
            case {
                "host": str(host),
                "machine": str(machine),
                "process": int(process),
                "time": float(at),
                "token": str(token),
            } if math.isfinite(at) and 0 < process < 2**31:
                return _Claim(host=host, machine=machine, process=process, time=at, token=token)
        raise DataError(f"{place} does not say who writes there.", "Delete that file.")


def _machine() -> str:
    """Hash of what numbers processes: the machine, since it was started."""
    words = [machine_hash()]
    for name in _MACHINE_FILES:
        with contextlib.suppress(OSError):
            words.append(Path(name).read_text(encoding="ascii", errors="replace").strip())
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:16]


def _ended_here(claim: _Claim) -> bool:
    """Whether a claim is one of a process of this machine that is no more."""
    if claim["machine"] != _machine():
        return False
    try:
        os.kill(claim["process"], 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's process
        return False
    return False
