"""Claims to write at an address: of two writers, on whatever machines, one is refused."""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

from grape.core.errors import CompatibilityError, DataError
from grape.core.files import machine_hash
from grape.core.mirrors import Mirror

__all__ = ["WriterClaim"]

_FILE = ".grape-writer.json"
_EXPIRED = 300.0
"""Seconds after which a claim that was not renewed may be taken over."""
_SETTLED = 1.0
"""Seconds until two writers that begin at once have both made their claims."""


class WriterClaim:
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
            self._mirror.write_remote(_FILE, json.dumps(claim).encode())
            if not self._made:  # of two that begin at once, the later one's claim stands
                time.sleep(_SETTLED)
                self._refuse_others()
            self._made = True

    def end(self) -> None:
        """Withdraw the claim, unless somebody else has made one."""
        with self._guard:
            other = self._read()
            if other is not None and other["token"] == self._token:
                self._mirror.write_remote(_FILE, None)

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
        recorded = self._mirror.read_remote(_FILE)
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
                f"{self._mirror.address / _FILE} does not say who writes there.", "Delete that file."
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
