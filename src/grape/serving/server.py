"""A policy behind a WebSocket: who is let in, what is asked, what is answered."""

import asyncio
import hmac
import logging
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from grape.core.errors import DataError, GrapeError, PolicyError
from grape.core.packages import load_package
from grape.core.secrets import Secret
from grape.policies.base import Policy
from grape.policies.remote.messages import (
    ServerFacts,
    check_text,
    decision_message,
    error_message,
    facts_message,
    read_observations,
    read_sampling,
)
from grape.policies.remote.packing import EXTRA_NEED, pack, unpack
from grape.serving.batching import Batcher
from grape.serving.metrics import ServerMetrics
from grape.serving.observations import ObservationKeys, action_answer
from grape.serving.settings import ServeSettings

__all__ = ["PolicyServer"]

Log = Callable[[str, Mapping[str, Any]], None]
"""Receives an event's name and its facts."""

_GOING_AWAY = 1001
_DRAIN_SECONDS = 10.0
_PING_TIMEOUT = 60.0
_QUEUED_FRAMES = 2
"""Frames of a connection that are read ahead: a client waits for its answer before it asks again."""


class PolicyServer:
    """Speaks with the clients of one policy, until it is told to stop.

    Args:
        policy: The policy.
        facts: What clients are told of it.
        settings: How it is served.
        token: What clients must send; empty lets all in.
        log: Receives events.
    """

    def __init__(self, policy: Policy, facts: ServerFacts, settings: ServeSettings, token: Secret, log: Log) -> None:
        self._policy, self._facts, self._settings, self._token, self._log = policy, facts, settings, token, log
        self._keys = ObservationKeys.of(settings, facts.spec)
        self._welcome = pack(facts_message(facts, self._keys.to_json()))
        self.metrics = ServerMetrics(
            {"release": facts.release, "type": facts.type, "policy_hash": facts.spec.policy_hash}
        )
        self._stopping = asyncio.Event()
        self._closed: Any = load_package("websockets.exceptions", EXTRA_NEED, "serve").ConnectionClosed

    def stop(self) -> None:
        """Answer what is asked by now, and end; to be called on the server's event loop."""
        self._stopping.set()

    async def run(self, listener: socket.socket) -> None:
        """Serve until :meth:`stop`.

        Args:
            listener: A bound socket; it is closed at the end.
        """
        serve = load_package("websockets.asyncio.server", EXTRA_NEED, "serve").serve
        silent = logging.getLogger("grape.serving.handshakes")  # foreign connections are counted, not explained
        silent.disabled = True
        window = self._settings.window_ms / 1000
        self._batcher = Batcher(self._policy, self._facts.spec, self._settings.batch, window, self.metrics)
        deciding = asyncio.create_task(self._batcher.run())
        try:
            async with serve(
                self._serve_client,
                sock=listener,
                process_request=self._admit,
                origins=[None],  # a browser names one: no web page may talk to a robot's policy
                compression=None,
                max_size=self._facts.message_bytes,
                max_queue=_QUEUED_FRAMES,
                ping_timeout=_PING_TIMEOUT,
                logger=silent,
                server_header=None,
            ) as server:
                await self._stopping.wait()
                await self._drain()
                server.close()
        finally:
            deciding.cancel()
            await asyncio.to_thread(self._batcher.close)

    async def _drain(self) -> None:
        """Give connections the time to take the answers that are under way."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        while self.metrics.answering and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    def _admit(self, connection: Any, request: Any) -> Any:
        """Answer ``/healthz`` and ``/metrics``, and refuse who may not come in; None lets in."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            if self._stopping.is_set():
                return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "the server stops\n")
            return connection.respond(HTTPStatus.OK, "OK\n")
        if not self._knows_token(request.headers.get_all("Authorization")):
            self.metrics.rejected += 1
            self._log("rejected", {"client": _client(connection), "reason": "no token, or a wrong one"})
            response = connection.respond(HTTPStatus.UNAUTHORIZED, "a token is needed: Authorization: Bearer ...\n")
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        if path == "/metrics":
            return connection.respond(HTTPStatus.OK, self.metrics.text())
        if self._stopping.is_set() or self.metrics.connections >= self._settings.clients:
            self.metrics.rejected += 1
            reason = "the server stops" if self._stopping.is_set() else f"{self.metrics.connections} clients are here"
            self._log("rejected", {"client": _client(connection), "reason": reason})
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, f"{reason}\n")
        return None

    def _knows_token(self, sent: list[str]) -> bool:
        """Whether the header's token is the server's, compared in constant time; openpi's clients say ``Api-Key``."""
        if not self._token:
            return True
        scheme, _, token = sent[0].strip().partition(" ") if len(sent) == 1 else ("", "", "")
        equal = hmac.compare_digest(token.strip().encode("utf-8", "replace"), self._token.reveal().encode())
        return equal and scheme.lower() in ("bearer", "api-key")

    async def _serve_client(self, connection: Any) -> None:
        """One client, from its connection to its end."""
        client, requests = _client(connection), 0
        self.metrics.connections += 1
        self.metrics.connections_total += 1
        self._log("connected", {"client": client})
        try:
            await connection.send(self._welcome)
            total_ms = None
            async for message in connection:
                start_time = time.perf_counter()
                requests += 1
                self.metrics.answering += 1
                try:
                    answer = await self._answer(message, client, total_ms)
                    await connection.send(answer)
                finally:
                    self.metrics.answering -= 1
                total_ms = 1000 * (time.perf_counter() - start_time)
                if self._stopping.is_set():
                    await connection.close(_GOING_AWAY, "the server stops")
        except self._closed:
            pass  # a client that goes away is no fault; how it went is logged below
        finally:
            self.metrics.connections -= 1
            facts = {"client": client, "requests": requests}
            self._log("disconnected", facts | _closing(connection))

    async def _answer(self, message: str | bytes, client: str, total_ms: float | None) -> str | bytes:
        """The answer to one message; never an exception, so that one request cannot end the others."""
        start_time, own, outcome, rows = time.perf_counter(), False, "answered", 1
        try:
            value = self._question(message)
            own = "grape" in value
            answer, rows = await (self._answer_own(value) if own else self._answer_robot(value))
            timing = {"infer_ms": 1000 * (time.perf_counter() - start_time)}
            if total_ms is not None:
                timing["prev_total_ms"] = total_ms
            packed: str | bytes = pack({**answer, "server_timing": timing})
        except GrapeError as error:
            outcome = "failed" if isinstance(error, PolicyError) else "refused"
            self._log(outcome, {"client": client, "error": error.message})
            packed = pack(error_message(error)) if own else str(error)
        except Exception as error:
            outcome, reason = "failed", f"{type(error).__name__}: {' '.join(str(error).split())}"
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}, line {place.lineno}"
            self._log(outcome, {"client": client, "error": reason, "place": where})
            failure = PolicyError(f"The server failed with {reason}.", "Its log says where.")
            packed = pack(error_message(failure)) if own else str(failure)
        seconds = time.perf_counter() - start_time
        self.metrics.request(outcome, seconds)
        if self._settings.log_requests and outcome == "answered":
            self._log("answered", {"client": client, "observations": rows, "ms": round(1000 * seconds, 3)})
        return packed

    def _question(self, message: str | bytes) -> dict[str, Any]:
        value = None if isinstance(message, str) else unpack(message)
        if not isinstance(value, dict):
            kind = "text" if isinstance(message, str) else type(value).__name__
            raise DataError(f"A message is {kind}, not a map in msgpack.", "Use openpi's client, or GRAPE's.")
        return value

    async def _answer_own(self, question: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        """The answer to GRAPE's own client, and the number of its observations."""
        if question["grape"] == "prompt":
            return {"prompt": await self._batcher.prompt(check_text(question.get("instruction")))}, 0
        if question["grape"] != "decide":
            raise DataError(f"The question {str(question['grape'])[:40]!r} is unknown.", "Known: decide, prompt.")
        observations = read_observations(question, self._facts.spec)
        temperature, seeds = read_sampling(question, len(observations))
        self._check_sampling(temperature)
        batch = await self._batcher.decide(observations, temperature, seeds, shared=False)
        return decision_message(batch), len(observations)

    async def _answer_robot(self, message: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        """The answer to a robot, and the number of its observations."""
        observation = self._keys.read(message, self._facts.spec)
        given = {"temperature": message.get("temperature", 0.0)}
        given |= {"seeds": [message["seed"]]} if "seed" in message else {}
        temperature, seeds = read_sampling(given, 1)
        self._check_sampling(temperature)
        return action_answer(await self._batcher.decide([observation], temperature, seeds, shared=True)), 1

    def _check_sampling(self, temperature: float) -> None:
        if temperature > 0 and not self._facts.spec.support:
            raise DataError(
                f"The policy has no action tokens and cannot sample; the temperature is {temperature:g}.", "Send 0."
            )


def _client(connection: Any) -> str:
    address = connection.remote_address
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else str(address)


def _closing(connection: Any) -> dict[str, Any]:
    """How a connection ended: its close code and reason, where there is one."""
    code = connection.close_code
    return {"code": code, **({"reason": connection.close_reason} if connection.close_reason else {})}
