"""The client against a real server on this machine: what it sends, what it survives, when it gives up."""

import base64
import dataclasses
import email.utils
import io
import json
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from grape.core.errors import BudgetError, DataError, GrapeError, ModelError, SettingsError
from grape.core.events import SilentReporter
from grape.vlm import (
    Budget,
    ChatImage,
    Endpoint,
    EndpointModel,
    Limits,
    Message,
    Prices,
    Request,
    Retries,
    Secret,
    Timeouts,
    endpoint_from_environment,
    transport,
)
from grape.vlm.retries import retry_after
from grape.vlm.transport import TransportError, post_json
from tests.vlm.server import KEY, Behavior, breaks_off, completion, drips, fails, hangs, hangs_up, raw, says, serving

PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
REQUEST = Request(
    messages=(Message("system", "Be exact."), Message("user", "What is it?", (ChatImage.of(PIXELS),))),
    schema={"type": "object"},
    max_tokens=64,
)


class Heard(SilentReporter):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str) -> None:
        self.lines.append(message)

    warn = info


class Client:
    """A model at a server, with everything that can be looked at afterwards."""

    def __init__(
        self, endpoint: Endpoint, limits: Limits | None = None, prices: Prices | None = None, **patience: float
    ):
        self.waits: list[float] = []
        self.heard = Heard()
        self.budget = Budget(limits or Limits(), prices or Prices())
        self.model = EndpointModel(
            "tiny",
            endpoint,
            self.budget,
            Timeouts(**{"connect": 600.0, "total": 600.0, **patience}),
            Retries(attempts=4, first_wait=1.0, longest_wait=30.0, sleep=self.waits.append, draw=lambda: 0.5),
            self.heard,
        )


def test_a_question_goes_out_as_chat_completion_with_image_and_schema() -> None:
    with serving(says("It is a cup.")) as (endpoint, seen):
        client = Client(endpoint)
        answer = client.model.ask(REQUEST)
    assert (answer.text, answer.model, answer.truncated) == ("It is a cup.", "tiny-vlm-2026", False)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.estimated) == (100, 20, False)
    assert seen.paths == ["/v1/chat/completions"]
    assert seen.headers[0]["authorization"] == f"Bearer {KEY}"
    body = seen.bodies[0]
    assert (body["model"], body["max_tokens"], body["temperature"], body["seed"]) == ("tiny", 64, 0.0, 0)
    assert body["messages"][0] == {"role": "system", "content": "Be exact."}
    text, image = body["messages"][1]["content"]
    assert text == {"type": "text", "text": "What is it?"}
    head, _, data = image["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), PIXELS)
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert client.budget.summary() == {"requests": 1, "tokens": 120, "estimated": False}


def test_servers_without_a_key_get_none() -> None:
    with serving(says("yes"), key="") as (endpoint, seen):
        Client(endpoint).model.ask(REQUEST)
    assert "authorization" not in seen.headers[0]


@pytest.mark.parametrize(
    ("failure", "waits"),
    [
        (fails(429), [0.75]),
        (fails(429, retry_after="7"), [7.0]),
        (fails(503, retry_after_ms="250"), [0.25]),
        (fails(500), [0.75]),
        (fails(502), [0.75]),
        (fails(408), [0.75]),
        (hangs_up, [0.75]),
        (breaks_off, [0.75]),
        (raw(b"<html>busy</html>"), [0.75]),
        (raw(b"{}"), [0.75]),
        (raw(b"[1, 2]"), [0.75]),
        (raw(b'{"choices": []}'), [0.75]),
        (raw(b'{"choices": [{"message": {"content": 5}}]}'), [0.75]),
        (raw(b"\xff\xfe\x00"), [0.75]),
        (raw(b"[" * 100_000), [0.75]),
        (says(""), [0.75]),
        (says(None), [0.75]),
    ],
    ids=[
        "429", "429-after", "503-after-ms", "500", "502", "408", "hang-up", "broken-off", "html", "no-choices", "list",
        "empty-choices", "number", "bytes", "deep", "empty", "null",
    ],
)  # fmt: skip
def test_what_may_pass_is_asked_again(failure: Behavior, waits: list[float]) -> None:
    with serving(failure, says("at last")) as (endpoint, seen):
        client = Client(endpoint)
        assert client.model.ask(REQUEST).text == "at last"
    assert client.waits == pytest.approx(waits)
    assert len(seen.bodies) == 2
    assert client.budget.requests == 2


def test_waits_grow_and_end() -> None:
    with serving(fails(500, "overloaded")) as (endpoint, seen):
        client = Client(endpoint)
        with pytest.raises(ModelError, match="did not answer in 4 attempts; the last one: HTTP 500: overloaded"):
            client.model.ask(REQUEST)
    assert client.waits == pytest.approx([0.75, 1.5, 3.0])
    assert len(seen.bodies) == 4


@pytest.mark.parametrize("behavior", [hangs, drips], ids=["silent", "dripping"])
def test_a_deadline_holds_however_slowly_a_server_speaks(behavior: Behavior) -> None:
    with serving(behavior) as (endpoint, _), pytest.raises(TransportError, match=r"no complete reply within 0\.2 s"):
        post_json(endpoint, {}, connect_seconds=600.0, total_seconds=0.2)


def test_a_late_server_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is over as soon as the server keeps the client waiting."""
    with serving(hangs, says("quick")) as (endpoint, seen):

        class Timer:
            daemon = False

            def __init__(self, seconds: float, function: Callable[[], None]) -> None:
                assert seconds == 600.0
                self.function = function

            def start(self) -> None:
                seen.stalls = self.function

            def cancel(self) -> None:
                seen.stalls = lambda: None

        monkeypatch.setattr(threading, "Timer", Timer)
        client = Client(endpoint)
        assert client.model.ask(REQUEST).text == "quick"
    assert any("no complete reply within 600 s" in line for line in client.heard.lines)
    assert client.budget.summary()["estimated"], "what an unanswered question took is not known, and counted"


def test_a_silent_server_is_not_taken_for_one_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever notices first, the socket or the deadline's timer (which is late here)."""
    monkeypatch.setattr(threading.Timer, "start", lambda timer: None)
    with serving(hangs) as (endpoint, _), pytest.raises(TransportError, match="no complete reply within 1 s"):
        post_json(endpoint, {}, connect_seconds=600.0, total_seconds=1.0)


def test_a_server_that_is_not_there_is_told() -> None:
    with serving(says("x")) as (endpoint, _):
        pass
    with pytest.raises(ModelError, match="the connection was refused; is the server running"):
        Client(endpoint).model.ask(REQUEST)


@pytest.mark.parametrize(
    ("failure", "error", "message"),
    [
        (fails(401, f"Incorrect API key: {KEY}"), SettingsError, "refuses the key"),
        (fails(403, "no"), SettingsError, "refuses the key"),
        (fails(404, "The model `tiny` does not exist"), SettingsError, "The model `tiny` does not exist"),
        (fails(413, "too large"), SettingsError, "HTTP 413"),
        (fails(429, "You exceeded", code="insufficient_quota"), ModelError, "quota is used up"),
        (fails(429, "slow down", retry_after="3600"), ModelError, "asks to wait 3600 s"),
        (says(None, refusal="I cannot help with knives."), ModelError, "refuses to answer: I cannot help"),
        (fails(301, "moved", location="http://127.0.0.1:9/"), SettingsError, "HTTP 301"),
        (fails(307, "moved", location="http://127.0.0.1:9/"), SettingsError, "HTTP 307"),
    ],
)
def test_what_will_not_pass_is_told_at_once(failure: Behavior, error: type[GrapeError], message: str) -> None:
    with serving(failure) as (endpoint, seen):
        client = Client(endpoint)
        with pytest.raises(error, match=message) as caught:
            client.model.ask(REQUEST)
    assert len(seen.bodies) == 1
    assert KEY not in str(caught.value)
    assert caught.value.hint


def in_ok(**body: Any) -> Behavior:
    return raw(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("failure", "error", "message"),
    [
        (
            in_ok(error={"message": "No auth credentials found", "code": 401}),
            SettingsError,
            "key .*No auth credentials",
        ),
        (in_ok(error={"message": f"Invalid API key {KEY}"}), SettingsError, "refuses the key"),
        (in_ok(object="error", message="maximum context length is 2048", code=400), SettingsError, "length is 2048"),
        (in_ok(error={"message": "This endpoint's maximum context length is 8"}), SettingsError, "length is 8"),
        (in_ok(error={"message": "tiny is not a valid model ID", "code": 400}), SettingsError, "not a valid model ID"),
        (in_ok(error={"message": "Insufficient credits", "code": 402}), ModelError, "Insufficient credits"),
        (in_ok(error={"message": "wrong", "type": "invalid_request_error"}, choices=None), SettingsError, "wrong"),
        (
            raw(b'[{"error": {"code": 403, "message": "denied", "status": "PERMISSION_DENIED"}}]', 403),
            SettingsError,
            "denied",
        ),
        (fails(400, "This model's maximum context length is 4096 tokens"), SettingsError, "too long for the model"),
        (fails(400, "tiny does not exist", code="model_not_found"), SettingsError, "does not have the model"),
        (raw(b'{"error": "model \'tiny\' not found"}', 404), SettingsError, "model 'tiny' not found"),
        (raw(b"<html><body><h1>Not here</h1></body></html>", 404), SettingsError, "an HTML page: Not here"),
        (fails(400, "At most 0 image(s) may be provided in one request."), SettingsError, "takes no images"),
        (fails(402, "pay"), ModelError, "quota is used up"),
        (says("", finish="content_filter"), ModelError, "content filter stopped the answer"),
        (says("Take the kn", finish="content_filter"), ModelError, "content filter stopped the answer: 'Take the kn'"),
        (says("", finish="length", reasoning_content="hm, then"), ModelError, "the 64 tokens .* used up: 'hm, then'"),
        (says(None, reasoning_content='{"stages": []}'), ModelError, 'thinking: .{"stages": '),
        (says("", reasoning="so it is"), ModelError, "took for thinking: 'so it is'"),
        (says([{"type": "thinking", "thinking": "so"}]), ModelError, "took for thinking"),
    ],
)
def test_what_a_server_says_in_whatever_shape_is_told_at_once(
    failure: Behavior, error: type[GrapeError], message: str
) -> None:
    request = dataclasses.replace(REQUEST, schema=None)  # nothing that could be asked for otherwise
    with serving(failure) as (endpoint, seen):
        client = Client(endpoint)
        with pytest.raises(error, match=message) as caught:
            client.model.ask(request)
    assert len(seen.bodies) == 1
    assert KEY not in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("failure", "shown"),
    [
        (in_ok(error={"message": "Rate limit exceeded: free-models-per-day", "code": 429}), "free-models-per-day"),
        (in_ok(error="the runner died"), "the runner died"),
        (in_ok(message="Service busy"), "Service busy"),
        (in_ok(detail="worker restarts"), "worker restarts"),
        (in_ok(errors=[{"message": "no worker"}]), "no worker"),
        (
            in_ok(error={"message": "Provider returned error", "code": 502, "metadata": {"raw": "cold start"}}),
            "cold start",
        ),
        (in_ok(choices=[{"message": {"content": ""}, "error": {"code": 502, "message": "gone"}}]), "gone"),
        (raw(b"<!DOCTYPE html><html><style>p {}</style><p>Sign in here</p></html>"), "HTML page: Sign in here"),
        (raw(b"upstream connect error"), "upstream connect error"),
        (raw(b'data: {"error": {"message": "stream failed", "code": 500}}\n\n'), "stream failed"),
        (raw(b'{"error": "llama runner process has terminated"}', 500), "llama runner process has terminated"),
        (fails(403, "Rate limit reached for requests"), "Rate limit reached"),
        (fails(503, "the authentication service is away"), "authentication service is away"),
        (says("", finish="abort"), "finish_reason abort"),
    ],
)
def test_what_a_server_says_is_shown_while_it_is_asked_again(failure: Behavior, shown: str) -> None:
    with serving(failure, says("at last")) as (endpoint, seen):
        client = Client(endpoint)
        assert client.model.ask(REQUEST).text == "at last"
    assert len(seen.bodies) == 2
    assert shown in client.heard.lines[0]


@pytest.mark.parametrize(
    "failure",
    [
        lambda handler: handler.send(200, b'{"error": {"message": "slow", "code": 429}}', {"Retry-After": "7"}),
        in_ok(error={"message": "slow", "code": 429, "metadata": {"headers": {"Retry-After": "7"}}}),
        fails(429, "You exceeded your current quota, please check your plan and billing details", retry_after="7"),
    ],
    ids=["header", "in-body", "quota-a-minute"],
)
def test_a_server_says_when_to_ask_again_in_several_places(failure: Behavior) -> None:
    with serving(failure, says("at last")) as (endpoint, _):
        client = Client(endpoint)
        assert client.model.ask(REQUEST).text == "at last"
    assert client.waits == [7.0]


def test_pieces_of_a_stream_nobody_asked_for_are_joined() -> None:
    pieces = [{"content": "It "}, {"reasoning_content": "hm"}, {"content": "is"}]
    events: list[dict[str, Any]] = [{"model": "m", "choices": [{"delta": delta}]} for delta in pieces]
    events.append(
        {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3.0, "completion_tokens": 2}}
    )
    for number, truncated in ((4, False), (3, True)):
        body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events[:number])
        with serving(raw(body + b"data: [DONE]\n\n")) as (endpoint, _):
            answer = Client(endpoint).model.ask(REQUEST)
        assert (answer.text, answer.truncated, answer.model) == ("It is", truncated, "m")
    with serving(raw(b"".join(b"data: " + json.dumps(event).encode() + b"\n" for event in events))) as (endpoint, _):
        assert Client(endpoint).model.ask(REQUEST).usage.tokens == 5


def test_parts_of_thinking_are_no_part_of_the_answer() -> None:
    parts: Any = [{"type": "reasoning", "text": "a draft"}, {"type": "text", "text": "the answer"}]
    with serving(says(parts)) as (endpoint, _):
        assert Client(endpoint).model.ask(REQUEST).text == "the answer"


def test_a_server_without_system_messages_gets_the_text_in_the_question() -> None:
    refuse = unless(lambda body: body["messages"][0]["role"] == "system", "System role not supported")
    with serving(refuse) as (endpoint, seen):
        assert Client(endpoint).model.ask(REQUEST).text == "accepted"
    (question,) = seen.bodies[-1]["messages"]
    assert question["content"][0]["text"] == "Be exact.\n\nWhat is it?"


def unless(test: Any, refusal: str, status: int = 400) -> Behavior:
    """Refuses requests for which ``test`` is true."""

    def behave(handler: Any) -> None:
        if test(handler.body):
            fails(status, refusal)(handler)
        else:
            handler.send(200, completion("accepted"))

    return behave


@pytest.mark.parametrize(
    ("test", "refusal", "status"),
    [
        (lambda body: body.get("response_format", {}).get("type") == "json_schema", "unknown response_format", 400),
        (lambda body: "response_format" in body, "extra fields not permitted", 422),
        (lambda body: "max_tokens" in body, "Unsupported 'max_tokens'. Use 'max_completion_tokens'.", 400),
        (lambda body: "temperature" in body, "'temperature' does not support 0.0", 400),
        (lambda body: "seed" in body, "Unknown parameter: 'seed'", 400),
    ],
    ids=["json-schema", "response-format", "max-tokens", "temperature", "seed"],
)
def test_servers_that_know_less_are_asked_in_their_way(test: Any, refusal: str, status: int) -> None:
    with serving(unless(test, refusal, status)) as (endpoint, seen):
        client = Client(endpoint)
        assert client.model.ask(REQUEST).text == "accepted"
        before = len(seen.bodies)
        client.model.ask(REQUEST)
        assert len(seen.bodies) == before + 1, "what was learned is remembered"
    assert client.waits == []


def test_a_request_that_no_change_repairs_is_reported() -> None:
    refusing = serving(fails(400, "something is wrong"))
    with refusing as (endpoint, seen), pytest.raises(SettingsError, match="something is wrong"):
        Client(endpoint).model.ask(REQUEST)
    assert len(seen.bodies) == 3


def test_cut_off_answers_say_so() -> None:
    with serving(says('{"stages": [', finish="length")) as (endpoint, _):
        assert Client(endpoint).model.ask(REQUEST).truncated
    with serving(says(None, finish="length")) as (endpoint, _):
        answer = Client(endpoint).model.ask(REQUEST)
        assert (answer.text, answer.truncated) == ("", True)


def test_answers_in_parts_are_joined_and_usage_is_estimated_where_it_is_missing() -> None:
    parts: Any = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    with serving(says(parts, usage=None)) as (endpoint, _):
        answer = Client(endpoint).model.ask(REQUEST)
    assert answer.text == "ab"
    assert answer.usage.estimated
    assert answer.usage.prompt_tokens == REQUEST.estimated_prompt_tokens


@pytest.mark.parametrize(
    ("limits", "prices", "n_requests", "what"),
    [
        (Limits(requests=2), Prices(), 2, "requests"),
        (Limits(tokens=200), Prices(), 1, "tokens"),
        (Limits(money=0.003), Prices(reading=10.0, writing=30.0), 1, "money"),
    ],
)
def test_a_budget_is_never_exceeded(limits: Limits, prices: Prices, n_requests: int, what: str) -> None:
    with serving(says("ok")) as (endpoint, seen):
        client = Client(endpoint, limits, prices)
        for _ in range(n_requests):
            client.model.ask(REQUEST)
        with pytest.raises(BudgetError, match=f"{what} are spent"):
            client.model.ask(REQUEST)
    assert len(seen.bodies) == n_requests


def test_money_is_counted_by_the_prices() -> None:
    with serving(says("ok")) as (endpoint, _):
        client = Client(endpoint, prices=Prices(reading=2.0, writing=10.0))
        client.model.ask(REQUEST)
    assert client.budget.money == pytest.approx((100 * 2.0 + 20 * 10.0) / 1e6)
    with pytest.raises(SettingsError, match="needs the prices"):
        Budget(Limits(money=1.0), Prices())


def test_a_ledger_goes_on_counting_and_survives_a_truncated_line(tmp_path) -> None:
    ledger = tmp_path / "spending.jsonl"
    first = Budget(Limits(requests=3), Prices(), ledger)
    number = first.reserve(REQUEST)
    assert Budget(Limits(), Prices(), ledger).tokens == REQUEST.estimated_prompt_tokens + 64, "asked, not answered"
    first.settle(number, first._entries[number].__class__(10, 5))
    with ledger.open("a") as file:
        file.write('{"number": 1, "prompt_t')
    second = Budget(Limits(requests=3), Prices(), ledger)
    assert (second.requests, second.tokens) == (1, 15)
    second.reserve(REQUEST)
    second.reserve(REQUEST)
    with pytest.raises(BudgetError, match="3 of 3 requests"):
        Budget(Limits(requests=3), Prices(), ledger).reserve(REQUEST)


@pytest.mark.parametrize(
    "line",
    [
        '{"number": 7, "prompt_tokens": -1000000, "completion_tokens": 5, "estimated": false}',
        '{"number": 7, "prompt_tokens": 1e300, "completion_tokens": 5, "estimated": false}',
        '{"number": 7, "prompt_tokens": 10}',
        "[7, 10, 5, false]",
        "spent a lot",
    ],
)
def test_a_ledger_that_somebody_changed_is_refused_and_nothing_is_forgotten(tmp_path, line) -> None:
    ledger = tmp_path / "spending.jsonl"
    Budget(Limits(), Prices(), ledger).reserve(REQUEST)
    with ledger.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match="line 2"):
        Budget(Limits(requests=3), Prices(), ledger)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5.0), ("0.5", 0.5), ("-3", None), ("nan", None), ("inf", None), ("soon", None), ("", None)],
)
def test_retry_after_is_read_carefully(text: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": text}) == seconds


def test_retry_after_may_be_a_date() -> None:
    date = email.utils.formatdate(1_000_030, usegmt=True)
    assert retry_after({"retry-after": date}, now=lambda: 1_000_000.0) == pytest.approx(30.0)
    assert retry_after({"retry-after": date}, now=lambda: 2_000_000.0) == 0.0


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "No endpoint is known"),
        ({"OPENAI_BASE_URL": "ftp://host/v1"}, "no http or https address"),
        ({"OPENAI_BASE_URL": "file:///etc/passwd"}, "no http or https address"),
        ({"OPENAI_BASE_URL": "http://"}, "no http or https address"),
        ({"OPENAI_BASE_URL": "http://host:port/v1"}, "no http or https address"),
        ({"OPENAI_BASE_URL": f"http://{'h' * 70}/v1"}, "no http or https address"),
        ({"OPENAI_BASE_URL": "http://a..b/v1"}, "no http or https address"),
        ({"OPENAI_BASE_URL": "http://host/v\udcff"}, "no http or https address"),
        ({"OPENAI_BASE_URL": "http://host/ v1"}, "no http or https address"),
        ({"OPENAI_BASE_URL": "http://[::1/v1"}, "no http or https address"),
        ({"OPENAI_BASE_URL": f"https://user:{KEY}@host/v1"}, "carries a password"),
        ({"OPENAI_BASE_URL": f"https://host/v1?key={KEY}"}, "carries a password or a query"),
        ({"OPENAI_BASE_URL": "https://host/v1", "OPENAI_API_KEY": f"{KEY}\r\nHost: evil"}, "characters that no key"),
        ({"OPENAI_BASE_URL": "https://host/v1", "OPENAI_API_KEY": "schlüssel"}, "characters that no key"),
    ],
)
def test_odd_environments_are_told_without_the_key(variables: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        endpoint_from_environment(variables)
    assert KEY not in str(caught.value)


def test_the_environment_names_the_endpoint() -> None:
    hosted = endpoint_from_environment({"OPENAI_API_KEY": KEY})
    assert hosted.url == "https://api.openai.com/v1/chat/completions"
    assert hosted.key.reveal() == KEY
    own = endpoint_from_environment({"OPENAI_BASE_URL": "http://[::1]:8000/v1/"})
    assert (own.url, own.local, own.is_unencrypted) == ("http://[::1]:8000/v1/chat/completions", True, False)
    lan = endpoint_from_environment({"OPENAI_BASE_URL": "http://10.0.0.7:8000/v1", "OPENAI_API_KEY": KEY})
    assert (lan.local, lan.is_unencrypted) == (False, True)
    heard = Heard()
    EndpointModel("tiny", lan, Budget(Limits(), Prices()), reporter=heard)
    assert "sent unencrypted" in heard.lines[0]


def test_the_estimate_counts_the_schema() -> None:
    """It is sent with every question, and is longer than many of them."""
    schema = {"type": "object", "description": "x" * 3000}
    question = Request(REQUEST.messages, schema)
    free = Request(REQUEST.messages)
    assert question.estimated_prompt_tokens >= free.estimated_prompt_tokens + 1000


def test_secrets_show_stars_and_cleanse_texts() -> None:
    secret = Secret(KEY)
    assert KEY not in f"{secret} {secret!r} {Endpoint('http://h/v1', secret)!r} {[secret]}"
    assert secret.cleanse(f"key={KEY}, Bearer abcdefgh12345678 and hf_abcdefgh1234") == (
        "key=[secret], [secret] and [secret]"
    )
    with pytest.raises(TypeError, match="not written anywhere"):
        secret.__reduce__()


def test_the_key_is_nowhere_but_in_the_header() -> None:
    """A server that echoes the key: in its errors, in its answer, in its name."""
    echo = completion(f"You sent {KEY}").replace(b"tiny-vlm-2026", KEY.encode())
    with serving(fails(500, f"bad {KEY}"), fails(429, KEY, retry_after="1"), raw(echo)) as (endpoint, seen):
        client = Client(endpoint)
        answer = client.model.ask(REQUEST)
    assert KEY not in repr(answer)
    assert "[secret]" in answer.text
    assert not any(KEY in line for line in client.heard.lines)
    assert KEY not in repr(seen.bodies)
    assert KEY not in repr(vars(client.model)) + repr(client.budget.summary())


@pytest.mark.parametrize("before", [290, 20_000 - 7])
@pytest.mark.parametrize("status", [403, 500])
def test_a_key_across_a_cut_does_not_leak_in_part(before: int, status: int) -> None:
    """Texts are shortened for people; where a cut falls into the key, its first half must not stay."""
    for text in ("." * before + KEY + "." * 400, " " * before + KEY + "." * 400):
        with serving(raw(text.encode(), status)) as (endpoint, _):
            client = Client(endpoint)
            with pytest.raises(GrapeError) as caught:
                client.model.ask(REQUEST)
        assert KEY[:6] not in "".join([str(caught.value), *client.heard.lines])
    with serving(says(None, refusal="." * before + KEY)) as (endpoint, _), pytest.raises(ModelError) as caught:
        Client(endpoint).model.ask(REQUEST)
    assert KEY[:6] not in str(caught.value)


def through(endpoint: Endpoint, url: str, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client whose way leads through a proxy at ``endpoint``."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://someone:word@127.0.0.1:{endpoint.parts.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    return Client(Endpoint(url, Secret(KEY)))


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://model.invalid/v1/chat/completions"
    with serving(says("through")) as (endpoint, seen):
        assert through(endpoint, url, monkeypatch).model.ask(REQUEST).text == "through"
    assert seen.paths == [url]
    assert seen.headers[0]["proxy-authorization"] == f"Basic {base64.b64encode(b'someone:word').decode()}"
    with serving(says("x")) as (endpoint, seen), pytest.raises(ModelError, match="502"):
        through(endpoint, "https://model.invalid/v1/chat/completions", monkeypatch).model.ask(REQUEST)
    assert set(seen.paths) == {"CONNECT model.invalid:443"}
    assert "authorization" not in seen.headers[0], "the proxy of an encrypted way does not see the key"


def test_a_proxy_that_is_no_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for proxy in ("http://proxy:port", f"http://{'p' * 70}:1"):
        monkeypatch.setenv("http_proxy", proxy)
        with pytest.raises(ModelError, match="address of the proxy"):
            Client(Endpoint("http://model.invalid/v1/chat/completions")).model.ask(REQUEST)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("all_proxy", "socks5://127.0.0.1:9", "the proxy in the environment needs a further package"),
        ("SSL_CERT_FILE", "/nowhere.pem", "the certificates that the environment names cannot be read"),
    ],
)
def test_an_environment_that_cannot_be_used_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(TransportError, match=message):
        post_json(Endpoint("https://model.invalid/v1"), {}, connect_seconds=600.0, total_seconds=600.0)


def test_no_proxy_stands_before_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(says("direct")) as (endpoint, _):
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        assert Client(endpoint).model.ask(REQUEST).text == "direct"


def test_without_the_http_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(SettingsError, match="needs httpx2") as caught:
        Client(Endpoint("http://127.0.0.1:9/v1/chat/completions")).model.ask(REQUEST)
    assert "grape-vla[endpoint]" in caught.value.hint


def test_a_reply_beyond_the_bound_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_REPLY", 1024 * 1024)
    with (
        serving(raw(b" " * (1024 * 1024 + 1))) as (endpoint, _),
        pytest.raises(TransportError, match="larger than 1 MB"),
    ):
        post_json(endpoint, {}, connect_seconds=600.0, total_seconds=600.0)
