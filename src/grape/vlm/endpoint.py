"""Client of OpenAI-compatible chat-completion servers: hosted models, vLLM, Ollama and others.

Servers differ in what they accept. A question starts with everything (a JSON Schema for the answer, ``max_tokens``,
temperature, seed); what the server rejects by name is left out or sent in its older form, also in later requests.
Temporary failures are retried after a growing wait; everything else is an error at once.
"""

from dataclasses import dataclass, field
from typing import Any

from grape.core.errors import ModelError, SettingsError
from grape.core.events import SILENT, Reporter
from grape.vlm.budget import Budget
from grape.vlm.conversation import Answer, Message, Request, Usage
from grape.vlm.credentials import API_KEY, BASE_URL, Endpoint
from grape.vlm.replies import complaint_of, read_completion, stated_usage
from grape.vlm.retries import Retries
from grape.vlm.transport import Reply, TransportError, post_json

__all__ = ["EndpointModel", "Timeouts"]

REFUSALS = frozenset({400, 415, 422, 501})
"""Statuses by which servers refuse a field of the request, and much else."""


@dataclass(frozen=True)
class Timeouts:
    """How long to wait for a server.

    Attributes:
        connect: Seconds for a connection.
        total: Seconds for a whole answer.
    """

    connect: float = 10.0
    total: float = 180.0


@dataclass
class ServerCapabilities:
    """Optional request fields that the server accepts.

    Attributes:
        structure: How the form of the answer is asked for, from the strictest on.
        limit: Name of the field for the most tokens.
        without: Fields that are left out.
        system: Whether there may be a message of the role ``system``.
    """

    structure: str = "json_schema"
    limit: str = "max_tokens"
    without: set[str] = field(default_factory=set)
    system: bool = True

    def payload(self, model: str, request: Request) -> dict[str, Any]:
        """The request as this server takes it."""
        payload: dict[str, Any] = {
            "model": model,
            "messages": [_message(message) for message in self._messages(request)],
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

    def _messages(self, request: Request) -> tuple[Message, ...]:
        first, *rest = request.messages
        if self.system or first.role != "system" or not rest or rest[0].role != "user":
            return request.messages
        question = Message("user", f"{first.text}\n\n{rest[0].text}", rest[0].images)
        return (question, *rest[1:])

    def adapt(self, complaint: str, request: Request) -> str:
        """Drop or change the request field that the server rejects; what was changed, or empty if nothing is left."""
        text = complaint.lower()
        if "system" in text and "role" in text and self.system:
            self.system = False
            return "the system message is a part of the first question"
        if self.limit == "max_tokens" and "max_completion_tokens" in text:
            self.limit = "max_completion_tokens"
            return "max_tokens is called max_completion_tokens"
        for name in ("temperature", "seed"):
            if name in text and name not in self.without:
                self.without.add(name)
                return f"{name} is left out"
        if request.schema is not None and self.structure != "none":
            self.structure = "json_object" if self.structure == "json_schema" else "none"
            return f"the form of the answer is asked for by {self.structure}"
        return ""


def _message(message: Message) -> dict[str, Any]:
    if not message.images:
        return {"role": message.role, "content": message.text}
    parts: list[dict[str, Any]] = [{"type": "text", "text": message.text}]
    parts += [{"type": "image_url", "image_url": {"url": image.data_url()}} for image in message.images]
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
        patience: Timeouts | None = None,
        retries: Retries | None = None,
        reporter: Reporter = SILENT,
    ) -> None:
        self.name, self.endpoint, self.budget = name, endpoint, budget
        self.patience, self.retries = patience or Timeouts(), retries or Retries()
        self.reporter = reporter
        self._dialect = ServerCapabilities()
        if endpoint.is_unencrypted:
            reporter.warn(f"{BASE_URL} is http to another machine: the key is sent unencrypted. Prefer https.")

    @property
    def origin(self) -> str:
        """The hash of the endpoint's address: another server may call another model the same."""
        return self.endpoint.hash

    def ask(self, request: Request) -> Answer:
        """Send the request, with retries."""
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
        complaint = complaint_of(reply)
        if complaint is None:
            return self._answer(reply, request)
        message = f"{complaint.place}: {self._shown(complaint.text).rstrip('.')}"
        if complaint.kind == "key":
            raise SettingsError(f"The endpoint refuses the key ({message}).", f"Check {API_KEY} and {BASE_URL}.")
        if complaint.kind == "account":
            raise ModelError(f"The account's quota is used up ({message}).", "Top it up, or take another model.")
        if complaint.kind == "passing":
            raise _PassingError(message, complaint.after)
        if complaint.kind == "length":
            raise SettingsError(
                f"The question is too long for the model ({message}).",
                "Take a smaller --max-tokens or image (--no-image), or a model with a longer context.",
            )
        if complaint.kind == "pictures":
            raise SettingsError(
                f"The model takes no images ({message}).", "Give --no-image, or take a vision-language model."
            )
        if complaint.kind == "model":
            raise SettingsError(
                f"The endpoint does not have the model ({message}).", "Check the model's name (--model)."
            )
        if complaint.status in REFUSALS:
            changed = self._dialect.adapt(complaint.text, request)
            if changed:
                self.reporter.info(f"The endpoint rejects the request; retrying: {changed}.")
                return None
        raise SettingsError(f"The endpoint refuses the request ({message}).", "Check --model and the endpoint.")

    def _answer(self, reply: Reply, request: Request) -> Answer:
        try:
            completion = read_completion(reply)
        except ValueError as error:
            raise _PassingError(str(error)) from error
        if completion.finish == "content_filter":
            raise ModelError(
                f"The server's content filter stopped the answer{self._quoted(completion.text or completion.refusal)}.",
                "Change the instruction or image, or ask another model.",
            )
        if not completion.text.strip():
            if completion.refusal:
                raise ModelError(
                    f"The model refuses to answer: {self._shown(completion.refusal)}.",
                    "Change the instruction, or ask another model.",
                )
            if completion.reasoning and completion.finish == "length":
                raise ModelError(
                    f"The model thought until the {request.max_tokens} tokens of an answer were used up"
                    f"{self._quoted(completion.reasoning)}.",
                    "Give a larger --max-tokens, or switch thinking off or down at the server.",
                )
            if completion.reasoning:
                raise ModelError(
                    f"The answer is empty beside a text that the server took for thinking"
                    f"{self._quoted(completion.reasoning)}.",
                    "Switch thinking, or the server's reasoning parser, off; or ask another model.",
                )
            if completion.finish != "length":
                ended = f" (finish_reason {completion.finish})" if completion.finish not in ("", "stop") else ""
                raise _PassingError(f"the answer is empty{ended}")
        return Answer(
            text=self.endpoint.key.cleanse(completion.text if completion.text.strip() else ""),
            usage=_usage(reply, request),
            truncated=completion.finish == "length",
            model=self.endpoint.key.cleanse(completion.model) if completion.model else self.name,
        )

    def _quoted(self, text: str) -> str:
        return f": {self._shown(text)!r}" if text else ""

    def _shown(self, text: str) -> str:
        """Short text without the key; cleansed on one line first, since half a key would not be recognized."""
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
    """A failure that a retry may resolve; ``after`` says when, if the server did."""

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
    if complaint_of(reply) is not None:
        return Usage()
    token_counts = stated_usage(reply)
    if token_counts is not None:
        return Usage(*token_counts)
    return Usage(request.estimated_prompt_tokens, min(request.max_tokens, len(reply.body) // 3), estimated=True)
