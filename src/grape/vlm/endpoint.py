"""Any server that speaks OpenAI's chat completions: hosted models, vLLM, Ollama and others.

Servers differ in what they accept. A question starts with everything (a JSON Schema for the answer, ``max_tokens``,
temperature, seed); what the server refuses by name is left out or said in its older way, and remembered for the next
question. Failures that may pass are asked again after a growing wait; everything else is told at once.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from grape.core.errors import ModelError, SettingsError
from grape.core.events import SILENT, Reporter
from grape.vlm.budget import Budget
from grape.vlm.conversation import Answer, Message, Request, Usage
from grape.vlm.credentials import API_KEY, BASE_URL, Endpoint
from grape.vlm.retries import PASSING, Retries, retry_after
from grape.vlm.transport import Reply, TransportError, post_json

__all__ = ["EndpointModel", "Patience"]

REFUSALS = frozenset({400, 415, 422, 501})
"""Statuses by which servers refuse a field of the request, and much else."""

_READ = 20_000
"""Characters of a complaint that are looked at."""

_QUOTA = ("insufficient_quota", "billing_hard_limit", "credit balance")


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server.

    Attributes:
        connect: Seconds for a connection.
        total: Seconds for a whole answer.
    """

    connect: float = 10.0
    total: float = 180.0


@dataclass
class _Dialect:
    """What the server was found to accept.

    Attributes:
        structure: How the form of the answer is asked for, from the strictest on.
        limit: Name of the field for the most tokens.
        without: Fields that are left out.
    """

    structure: str = "json_schema"
    limit: str = "max_tokens"
    without: set[str] = field(default_factory=set)

    def payload(self, model: str, request: Request) -> dict[str, Any]:
        """The request as this server takes it."""
        payload: dict[str, Any] = {
            "model": model,
            "messages": [_message(message) for message in request.messages],
            self.limit: request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
        }
        if request.schema is not None and self.structure == "json_schema":
            named = {"name": "cost_specification", "schema": dict(request.schema), "strict": True}
            payload["response_format"] = {"type": "json_schema", "json_schema": named}
        elif request.schema is not None and self.structure == "json_object":
            payload["response_format"] = {"type": "json_object"}
        return {name: value for name, value in payload.items() if name not in self.without}

    def adapt(self, complaint: str, asked_for_structure: bool) -> str:
        """Change what the server complains about; what was changed, or nothing where nothing is left to change."""
        text = complaint.lower()
        if self.limit == "max_tokens" and "max_completion_tokens" in text:
            self.limit = "max_completion_tokens"
            return "max_tokens is called max_completion_tokens"
        for name in ("temperature", "seed"):
            if name in text and name not in self.without:
                self.without.add(name)
                return f"{name} is left out"
        if asked_for_structure and self.structure != "none":
            self.structure = "json_object" if self.structure == "json_schema" else "none"
            return f"the form of the answer is asked for by {self.structure}"
        return ""


def _message(message: Message) -> dict[str, Any]:
    if not message.pictures:
        return {"role": message.role, "content": message.text}
    parts: list[dict[str, Any]] = [{"type": "text", "text": message.text}]
    parts += [{"type": "image_url", "image_url": {"url": picture.data_url()}} for picture in message.pictures]
    return {"role": message.role, "content": parts}


class EndpointModel:
    """A model behind an OpenAI-compatible endpoint.

    Args:
        name: The model's name at the server.
        endpoint: Where it is.
        budget: What may be spent.
        patience: How long to wait for an answer.
        retries: When to ask again.
        reporter: Told of waits and of what a server does not accept.
    """

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        budget: Budget,
        patience: Patience | None = None,
        retries: Retries | None = None,
        reporter: Reporter = SILENT,
    ) -> None:
        self.name, self.endpoint, self.budget = name, endpoint, budget
        self.patience, self.retries = patience or Patience(), retries or Retries()
        self.reporter = reporter
        self._dialect = _Dialect()
        if endpoint.open_road:
            reporter.warn(f"{BASE_URL} is http to another machine: the key travels readable. Prefer https.")

    @property
    def origin(self) -> str:
        """The hash of the endpoint's address: another server may call another model the same."""
        return self.endpoint.hash

    def ask(self, request: Request) -> Answer:
        """Send the question until it is answered or given up."""
        failures = 0
        while True:
            try:
                reply = self._send(request)
                answer = self._judge(reply, request)
            except _PassingError as problem:
                failures += 1
                self._pause(problem, failures)
                continue
            if answer is not None:
                return answer

    def _send(self, request: Request) -> Reply:
        number = self.budget.reserve(request)
        payload = self._dialect.payload(self.name, request)
        try:
            reply = post_json(
                self.endpoint, payload, connect_seconds=self.patience.connect, total_seconds=self.patience.total
            )
        except TransportError as error:
            raise _PassingError(str(error)) from error
        self.budget.settle(number, _usage(reply, request))
        return reply

    def _judge(self, reply: Reply, request: Request) -> Answer | None:
        """The answer in a reply; None where the request was put differently and is to be sent again."""
        if reply.status == 200:
            return self._answer(reply, request)
        said = self._said(reply)
        if reply.status in (401, 403):
            raise SettingsError(
                f"The endpoint refuses the key (HTTP {reply.status}): {said}.", f"Check {API_KEY} and {BASE_URL}."
            )
        if reply.status == 429 and any(word in said.lower() for word in _QUOTA):
            raise ModelError(f"The account's quota is used up (HTTP 429): {said}.", "Top it up, or take another model.")
        if reply.status in PASSING:
            raise _PassingError(f"HTTP {reply.status}: {said}", retry_after(reply.headers))
        if reply.status in REFUSALS:
            changed = self._dialect.adapt(said, request.schema is not None)
            if changed:
                self.reporter.info(f"The endpoint refuses the request as it was put; now {changed}.")
                return None
        hint = "Check the model's name (--model)." if reply.status == 404 else "Check --model and the endpoint."
        raise SettingsError(f"The endpoint refuses the request (HTTP {reply.status}): {said}.", hint)

    def _answer(self, reply: Reply, request: Request) -> Answer:
        try:
            choice = json.loads(reply.body)["choices"][0]
            message = choice["message"]
            content = message.get("content")
            if isinstance(content, list):
                content = "".join(part.get("text", "") for part in content if isinstance(part, dict))
            refusal = message.get("refusal")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            raise _PassingError("the reply is no chat completion") from error
        if not isinstance(content, str) or not content.strip():
            if isinstance(refusal, str) and refusal:
                raise ModelError(
                    f"The model refuses to answer: {self._shown(refusal)}.",
                    "Change the instruction, or ask another model.",
                )
            if choice.get("finish_reason") != "length":
                raise _PassingError("the answer is empty")
            content = ""
        named = json.loads(reply.body).get("model")
        return Answer(
            text=self.endpoint.key.cleanse(content),
            usage=_usage(reply, request),
            truncated=choice.get("finish_reason") == "length",
            model=self.endpoint.key.cleanse(named) if isinstance(named, str) else self.name,
        )

    def _said(self, reply: Reply) -> str:
        """What the server says about an error, short and without secrets."""
        text = reply.body.decode("utf-8", "replace")
        if len(text) > _READ:
            # Cut only after cleansing: half a key would not be recognised any more.
            text = self.endpoint.key.cleanse(text)[:_READ]
        try:
            body = json.loads(text)
            found = body.get("error", body.get("message", body.get("detail", text)))
            text = found.get("message", json.dumps(found)) if isinstance(found, dict) else found
            code = found.get("code") if isinstance(found, dict) else None
            text = f"{text} ({code})" if isinstance(code, str) else text
        except (ValueError, AttributeError, RecursionError):
            pass
        return self._shown(text if isinstance(text, str) else json.dumps(text)).rstrip(".")

    def _shown(self, text: str) -> str:
        """Short text without the key; cleansed on one line first, since half a key would not be recognised."""
        return _short(self.endpoint.key.cleanse(_line(text)))

    def _pause(self, problem: "_PassingError", failures: int) -> None:
        what = self._shown(str(problem))
        if failures >= self.retries.attempts:
            raise ModelError(
                f"The model did not answer in {failures} attempts; the last one: {what}.",
                "Run the same command again later: answers that were given are kept.",
            )
        wait = self.retries.wait(failures - 1) if problem.after is None else problem.after
        if wait > self.retries.longest_wait:
            raise ModelError(
                f"The endpoint asks to wait {wait:.0f} s, more than {self.retries.longest_wait:.0f} s: {what}.",
                "Run the same command again after that time.",
            )
        self.reporter.info(f"Asking again in {wait:.1f} s: {what}.")
        self.retries.sleep(wait)


class _PassingError(Exception):
    """Something that may be gone at the next attempt; ``after`` says when, if the server did."""

    def __init__(self, what: str, after: float | None = None) -> None:
        super().__init__(what)
        self.after = after


def _line(text: str) -> str:
    """One printable line."""
    return "".join(character if character.isprintable() else " " for character in " ".join(text.split()))


def _short(line: str) -> str:
    """A line of at most 300 characters."""
    return line if len(line) <= 300 else line[:297] + "..."


def _usage(reply: Reply, request: Request) -> Usage:
    """What a reply took: nothing for errors; estimated where the server does not say."""
    if reply.status != 200:
        return Usage()
    told: Mapping[str, Any] = {}
    try:
        body = json.loads(reply.body)
        told = body.get("usage") or {}
        read, written = told["prompt_tokens"], told["completion_tokens"]
        if all(type(count) is int and 0 <= count < 10**9 for count in (read, written)):
            return Usage(read, written)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return Usage(request.estimated_prompt_tokens, min(request.max_tokens, len(reply.body) // 3), estimated=True)
