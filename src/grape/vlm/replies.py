"""Parsing of a server's reply: a completion or an error, which some servers send with HTTP 200.

Replies come from outside: everything in them may be missing or of another type. Texts are as the server sent them;
callers shorten them and remove secrets before they show them.
"""

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from grape.core.errors import DataError
from grape.core.reading import parse_json
from grape.vlm.retries import PASSING, retry_after
from grape.vlm.transport import Reply

__all__ = ["Complaint", "Completion", "complaint_of", "read_completion", "stated_usage"]

Kind = Literal["key", "account", "length", "pictures", "model", "passing", "request"]

_WORDS: tuple[tuple[Kind, "re.Pattern[str]"], ...] = (
    ("account", re.compile(r"insufficient_quota|insufficient (?:credit|balance|funds)|billing|credit balance|payment")),
    (
        "length",
        re.compile(
            r"context_length|context length|context window|maximum context|prompt is too long|too many tokens"
            r"|exceeds? the (?:maximum|available) (?:context|number of tokens)|reduce the length"
        ),
    ),
    ("key", re.compile(r"invalid_api_key|(?:invalid|incorrect|missing|no) (?:\w+ )?(?:api[ _]key|auth)|unauthorized")),
    ("key", re.compile(r"authentication|no cookie auth")),
    (
        "pictures",
        re.compile(
            r"at most 0 image|(?:not|n't) support (?:\w+ )?(?:image|vision|multimodal)|not a multimodal model"
            r"|(?:image|vision|multimodal)\w* (?:input )?(?:is|are) not supported|unknown variant `?image_url"
        ),
    ),
    (
        "model",
        re.compile(r"model_not_found|model\b.{0,200}\b(?:does not exist|not found|is not available)|no such model"),
    ),
    ("model", re.compile(r"not a valid model|unknown model|no endpoints found|no allowed providers")),
    ("passing", re.compile(r"rate.?limit|too many requests|overloaded|try again (?:later|in)|timed? ?out")),
)
"""What is wrong, by what servers say about it; the first that fits."""

_READ = 20_000
"""Characters of a page that are looked at."""

_OF_STATUS: Mapping[int, Kind] = {401: "key", 402: "account", 403: "key", 404: "model"}


@dataclass(frozen=True)
class Complaint:
    """An error reported by a server.

    Attributes:
        status: HTTP status, or the code in the body where the status is 200.
        place: Where that number stands, for messages.
        text: The server's own words.
        kind: ``"key"``, ``"account"`` (no money), ``"length"``, ``"pictures"``, ``"model"`` and ``"request"`` stay
            wrong however often one asks; ``"passing"`` may not.
        after: Seconds after which to ask again; None where the server does not say.
    """

    status: int
    place: str
    text: str
    kind: Kind
    after: float | None = None


@dataclass(frozen=True)
class Completion:
    """What a model said.

    Attributes:
        text: The answer, without parts of other kinds.
        reasoning: What the server separated from it as thinking.
        refusal: Why the model does not answer.
        finish: Why it stopped.
        model: What the server calls it.
    """

    text: str
    reasoning: str = ""
    refusal: str = ""
    finish: str = ""
    model: str = ""


def complaint_of(reply: Reply) -> Complaint | None:
    """The complaint in a reply; None where it is none."""
    body = _body(reply)
    if body is None:
        body = next((event for event in _events(reply.body) if event.get("error")), None)
    error = _error_in(body, reply.status)
    if reply.status == 200 and error is None:
        return None
    text, code = (_page_text(reply), None) if error is None else _text_and_code(error)
    words = f"{text} {code or ''}".lower()
    status = reply.status
    if status == 200 and code is not None and re.fullmatch(r"[45]\d\d", code):
        status = int(code)
    elif status == 200 and "invalid_request" in words:
        status = 400
    place = f"HTTP {reply.status}" + ("" if code in (None, str(reply.status)) else f", code {code}")
    after = retry_after(reply.headers)
    headers = error.get("metadata") if isinstance(error, dict) else None
    headers = headers.get("headers") if isinstance(headers, dict) else None
    if after is None and isinstance(headers, dict):
        after = retry_after({str(name).lower(): str(value) for name, value in headers.items()})
    kind = _kind(status, words)
    if kind == "account" and status == 429 and after is not None:  # a quota a minute, of which the same words speak
        kind = "passing"
    return Complaint(status, place, text, kind, after)


def _kind(status: int, words: str) -> Kind:
    for kind, pattern in _WORDS:
        # A busy server may speak of anything, e.g. of its authentication service; a refused key is no matter of words.
        if pattern.search(words) and not (status >= 500 and kind in ("key", "account")):
            return kind
    if status in _OF_STATUS:
        return _OF_STATUS[status]
    return "passing" if status in PASSING or status == 200 else "request"


def _body(reply: Reply) -> Any:
    """The reply's JSON; the text of one that is none."""
    try:
        return parse_json(reply.body, "the reply", allow_nonfinite=True)
    except DataError:
        return None


def _error_in(body: Any, status: int) -> Any:
    """The part of a body that tells of an error: an object or a text; None where there is none."""
    if isinstance(body, list) and len(body) == 1:  # as Google's servers send errors
        body = body[0]
    if not isinstance(body, dict):
        return body if isinstance(body, str) and status != 200 else None
    choice = _first_choice(body)
    for place in (body, choice):
        for name in ("error", "errors"):
            error = place.get(name)
            error = error[0] if isinstance(error, list) and error else error
            if isinstance(error, dict | str) and error:
                return error
    if status == 200 and (choice or body.get("object") not in ("error", None)):
        return None
    for name in ("detail", "message", "msg", "title"):
        if isinstance(body.get(name), str | list | dict) and body[name]:
            return body if name == "message" else {"message": body[name], "code": body.get("code", body.get("status"))}
    return body if status != 200 and body else None


def _text_and_code(error: Any) -> tuple[str, str | None]:
    """Text and code of an error."""
    if isinstance(error, str):
        return error, None
    text = next((error[name] for name in ("message", "msg", "detail", "description") if error.get(name)), error)
    text = text if isinstance(text, str) else str(text)
    metadata = error.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    if isinstance(raw, str) and raw and raw not in text:
        text = f"{text}: {raw}"
    code = next((error[name] for name in ("code", "status", "type") if isinstance(error.get(name), str | int)), None)
    return text, None if code is None or code == "" else str(code)


def _page_text(reply: Reply) -> str:
    """The words of a reply that is no JSON; of an HTML page without its tags."""
    text = reply.body.decode("utf-8", "replace")
    if len(text) > _READ:  # cut between words: half a key would not be recognized as one
        words = text[:_READ].rsplit(None, 1)
        text = words[0] if len(words) == 2 else "(one long word)"
    if not re.search(r"<(?:!doctype|html|head|body)\b", text[:2000], re.IGNORECASE):
        return text if text.strip() else "(nothing)"
    bare = re.sub(r"(?is)<(script|style)\b[^>]*>.*?</\1\s*>|<!--.*?-->|<[^<>]*>", " ", text)
    return f"an HTML page: {html.unescape(bare).strip() or '(without words)'}"


def _first_choice(body: Any) -> dict[str, Any]:
    choices = body.get("choices") if isinstance(body, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def read_completion(reply: Reply) -> Completion:
    """The first choice of a completion; a stream's pieces are joined.

    Raises:
        ValueError: The reply is none; the message says what it is, without a full stop.
    """
    body = _body(reply)
    events = [] if body is not None else list(_events(reply.body))
    if events:
        return _joined(events)
    choice = _first_choice(body)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise ValueError(f"the reply is no chat completion: {_page_text(reply)}")
    content = message.get("content")
    if content is not None and not isinstance(content, str | list):
        raise ValueError(f"the reply is no chat completion: its content is {content!r}")
    return Completion(
        text=_texts(content),
        reasoning=_reasoning(message),
        refusal=_string(message.get("refusal")),
        finish=_string(choice.get("finish_reason")),
        model=_string(body.get("model")),
    )


def _events(data: bytes) -> Iterator[dict[str, Any]]:
    """Objects of a stream of server-sent events; none where the bytes are no such stream."""
    if not data.lstrip().startswith((b"data:", b"event:", b":")):
        return
    for line in data.decode("utf-8", "replace").splitlines():
        field, _, text = line.partition(":")
        if field == "data" and text.strip() != "[DONE]":
            event = _body(Reply(200, {}, text.strip().encode()))
            if isinstance(event, dict):
                yield event


def _joined(events: list[dict[str, Any]]) -> Completion:
    choices = [_first_choice(event) for event in events]
    deltas = [delta for choice in choices if isinstance(delta := choice.get("delta"), dict)]
    if not deltas:
        raise ValueError("the reply is a stream without pieces of an answer")
    return Completion(
        text="".join(_texts(delta.get("content")) for delta in deltas),
        reasoning="".join(map(_reasoning, deltas)),
        refusal="".join(_string(delta.get("refusal")) for delta in deltas),
        # Without it the stream broke off.
        finish=next((end for choice in reversed(choices) if (end := _string(choice.get("finish_reason")))), "length"),
        model=next((name for event in events if (name := _string(event.get("model")))), ""),
    )


def _texts(content: Any) -> str:
    """The text of a content; of its parts those that are text, not thinking."""
    if isinstance(content, list):
        parts = (part for part in content if isinstance(part, dict) and part.get("type", "text") in _TEXT_PARTS)
        return "".join(_string(part.get("text")) for part in parts)
    return _string(content)


_TEXT_PARTS = ("text", "output_text")


def _reasoning(message: Mapping[str, Any]) -> str:
    """What stands in the fields and parts that servers put thinking into."""
    for name in ("reasoning_content", "reasoning", "thinking", "reasoning_text"):
        if text := _string(message.get(name)):
            return text
    content = message.get("content")
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    return "".join(str(part.get("text") or part.get(part["type"])) for part in parts if part.get("type") in _THINKING)


_THINKING = ("thinking", "reasoning")


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def stated_usage(reply: Reply) -> tuple[int, int] | None:
    """Tokens read and written, where the server tells them."""
    body = _body(reply)
    events = [body] if body is not None else list(_events(reply.body))
    for event in reversed(events):
        usage = event.get("usage") if isinstance(event, dict) else None
        if isinstance(usage, dict):
            counts = [_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens")]
            if None not in counts:
                return counts[0] or 0, counts[1] or 0
    return None


def _count(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9 or value != int(value):
        return None
    return int(value)
