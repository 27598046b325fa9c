"""A client's connection to a policy server: opened, found again where it was lost, and given up in the end.

A question holds all that its answer depends on, seeds included, so it may be asked again: an answer that was lost on
the way costs time and nothing else. A server that comes back must serve the same policy as before.
"""

import contextlib
import random
import ssl
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NoReturn

from grape.core.errors import CompatibilityError, DataError, GrapeError, PolicyError, SettingsError
from grape.core.packages import load_package
from grape.core.secrets import Secret
from grape.policies.remote.address import TOKEN, TOKEN_FILE, ServerAddress
from grape.policies.remote.messages import ServerFacts, raise_error, read_facts
from grape.policies.remote.packing import EXTRA_NEED, pack, unpack

__all__ = ["MOST_MESSAGE_BYTES", "PolicyConnection"]

MOST_MESSAGE_BYTES = 256 * 2**20
"""Of a server's answer."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_HANDSHAKE_SECONDS = 10.0
_PING_TIMEOUT = 60.0
_PASSING = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
_TOO_LARGE = 1009  # close code of a message above the receiver's limit
_KEPT = "What was finished is kept: run the same command again when it is back."


class _LostError(Exception):
    """The server cannot be reached now, and perhaps later; the text says why."""


class PolicyConnection:
    """A connection to a policy server that is found again where it was lost.

    Args:
        address: Where the server is.
        token: What it asks for; empty for none.
        clock: Seconds; tests have their own.
        sleep: Waits.
    """

    def __init__(
        self,
        address: ServerAddress,
        token: Secret,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._address, self._token = address, token
        self._clock, self._sleep = clock, sleep
        self._client = load_package("websockets.sync.client", EXTRA_NEED, "serve")
        self._errors = load_package("websockets.exceptions", EXTRA_NEED, "serve")
        self._open = contextlib.ExitStack()
        weakref.finalize(self, self._open.close)  # a process that ends says goodbye
        self._socket: Any = None
        self._facts: ServerFacts | None = None
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where the server is."""
        return self._address.url

    def facts(self) -> ServerFacts:
        """What the server says of its policy; it is connected to at the first call.

        Raises:
            SettingsError: The token is wrong, or nobody answers there.
            CompatibilityError: The server speaks another protocol.
            DataError: What it says cannot be read.
        """
        with self._lock:
            if self._facts is None:
                self._persevere(self._connect, self._address.open_seconds, opening=True)
            assert self._facts is not None
            return self._facts

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer to a question, which is asked again where the connection is lost.

        Raises:
            PolicyError: The server does not come back in time, or cannot decide.
            CompatibilityError: It came back with another policy.
            DataError: The question is too large for it, or its answer cannot be read.
        """
        self.facts()
        with self._lock:
            message = pack(question)
            assert self._facts is not None
            if len(message) > self._facts.message_bytes:
                raise DataError(
                    f"A question of {len(message):,} bytes is more than the server at {self.url} takes "
                    f"({self._facts.message_bytes:,}).",
                    "Give fewer --lanes, or start the server with a larger --message-mb.",
                )
            answer: Any = self._persevere(lambda: self._exchange(message), self._address.wait_seconds)
        if isinstance(answer, str):
            raise_error(answer, self.url)
        value = unpack(answer)
        if not isinstance(value, dict):
            raise DataError(f"The server at {self.url} answered with no map.", "Is it a server of GRAPE's?")
        if "error" in value:
            raise_error(value["error"], self.url)
        return value

    def close(self) -> None:
        """End the connection."""
        self._open.close()
        self._socket = None

    def _persevere(self, attempt: Callable[[], Any], seconds: float, *, opening: bool = False) -> Any:
        """What an attempt gives, repeated with growing pauses as long as the server is lost."""
        deadline, pause = None, _FIRST_PAUSE
        while True:
            try:
                return attempt()
            except _LostError as error:
                self._drop()
                if deadline is None:
                    deadline = self._clock() + seconds
                    if not opening:
                        warnings.warn(
                            f"The policy server at {self.url} was lost ({error}). Trying again for {seconds:g} s.",
                            stacklevel=4,
                        )
                remaining = deadline - self._clock()
                if remaining <= 0:
                    self._give_up(str(error), seconds, opening)
                self._sleep(min(remaining, pause * random.uniform(0.5, 1.0)))
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _give_up(self, reason: str, seconds: float, opening: bool) -> NoReturn:
        again = f"{self.url}?wait={max(60, int(10 * seconds))}"
        if opening:
            raise SettingsError(
                f"No policy server answers at {self.url} within {seconds:g} s: {reason}.",
                f"Start it there: grape serve --policy DIR. For one that is still starting: --policy {again}",
            )
        raise PolicyError(
            f"The policy server at {self.url} was lost and did not come back within {seconds:g} s: {reason}.",
            f"{_KEPT} To wait longer: --policy {again}",
        )

    def _exchange(self, message: bytes) -> Any:
        if self._socket is None:
            self._connect()
        try:
            self._socket.send(message)
            return self._socket.recv(timeout=self._address.answer_seconds)
        except TimeoutError as error:
            raise _LostError(f"no answer within {self._address.answer_seconds:g} s") from error
        except (self._errors.ConnectionClosed, OSError) as error:
            self._refuse_size(error)
            raise _LostError(_first_line(error)) from error

    def _refuse_size(self, error: Exception) -> None:
        """Raise where a message was too large for one of the two: it would be so again."""
        for close, side in ((getattr(error, "rcvd", None), "question"), (getattr(error, "sent", None), "answer")):
            if close is not None and close.code == _TOO_LARGE:
                raise DataError(
                    f"A {side} is larger than what {'the server' if side == 'question' else 'this client'} takes.",
                    "Give fewer --lanes, or start the server with a larger --message-mb.",
                ) from error

    def _connect(self) -> None:
        """Connect and take what the server says first."""
        secret = self._token.reveal()
        try:
            socket = self._open.enter_context(
                self._client.connect(
                    self.url,
                    additional_headers={"Authorization": f"Bearer {secret}"} if secret else None,
                    compression=None,
                    proxy=None if self._address.is_local else True,
                    open_timeout=_HANDSHAKE_SECONDS,
                    ping_timeout=_PING_TIMEOUT,
                    close_timeout=1.0,
                    max_size=MOST_MESSAGE_BYTES,
                )
            )
            first = socket.recv(timeout=_HANDSHAKE_SECONDS)
        except self._errors.InvalidStatus as error:
            self._refused(error.response.status_code)
        except self._errors.InvalidHandshake as error:
            if isinstance(error.__cause__, EOFError | ConnectionError):
                raise _LostError(
                    "it closes the connection before it answers as a WebSocket server (is it another service, or one "
                    "with TLS, wss://?)"
                ) from error
            raise self._foreign(_first_line(error)) from error
        except self._errors.ConnectionClosed as error:
            raise _LostError(_first_line(error)) from error
        except (self._errors.InvalidURI, self._errors.InvalidProxy, UnicodeError) as error:
            raise SettingsError(f"{self.url} cannot be connected to: {_first_line(error)}.", "Check it.") from error
        except TimeoutError as error:
            raise _LostError("it accepts the connection and says nothing") from error
        except ssl.SSLCertVerificationError as error:
            raise SettingsError(
                f"The certificate of {self.url} is not trusted: {error.verify_message}.",
                "Set SSL_CERT_FILE to the certificate of the authority that signed it.",
            ) from error
        except OSError as error:
            raise _LostError(error.strerror or _first_line(error)) from error
        self._socket = socket
        self._compare(self._first_facts(first))

    def _first_facts(self, first: Any) -> ServerFacts:
        if isinstance(first, str):
            raise self._foreign("it begins with a text message")
        try:
            return read_facts(unpack(first), self.url)
        except GrapeError:
            self._drop()
            raise

    def _compare(self, facts: ServerFacts) -> None:
        """Refuse a server that came back with another policy."""
        before, self._facts = self._facts, self._facts or facts
        if before is None or facts.spec == before.spec:
            return
        self._drop()
        names = [name for name, value in vars(facts.spec).items() if value != getattr(before.spec, name)]
        name = "policy_hash" if "policy_hash" in names else names[0]
        raise CompatibilityError(
            f"The server at {self.url} came back with another policy: {name} was "
            f"{str(getattr(before.spec, name))[:16]} and is {str(getattr(facts.spec, name))[:16]}.",
            "What was finished is kept. Serve the first policy again and run the same command, or take another --out.",
        )

    def _refused(self, status: int) -> NoReturn:
        if status in _PASSING:
            raise _LostError(f"it answers {status} ({HTTPStatus(status).phrase})")
        if status == HTTPStatus.UNAUTHORIZED:
            sent = "the token is wrong" if self._token else "it asks for a token"
            raise SettingsError(
                f"The server at {self.url} does not let this client in: {sent}.",
                f"Set {TOKEN}, or {TOKEN_FILE} with the name of a file, as where the server was started.",
            )
        raise self._foreign(f"it answers with HTTP status {status}")

    def _foreign(self, reason: str) -> CompatibilityError:
        self._drop()
        return CompatibilityError(
            f"What listens at {self.url} is no policy server: {reason}.", "Check host and port: grape serve --port"
        )

    def _drop(self) -> None:
        with contextlib.suppress(Exception):  # a broken connection may fail to close; another one is made
            self._open.close()
        self._socket = None


def _first_line(error: Exception) -> str:
    """What an exception says, without a full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".") or type(error).__name__
