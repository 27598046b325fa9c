"""The page in a real browser, as a rater at a desk and one with a phone meet it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grape.labeling.server import LabelServer
from grape.store import EpisodeStore
from tests.cli.test_interrupts import HEAR_SIGINT
from tests.labeling.episodes import TOKEN, make_labeling, make_store
from tests.report.browser import Browser, find_chromium

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine ('make install' brings it)")

MARKUP = '<img src=x onerror="document.title=1">&amp;'
READY = "state && state.vote === {} && (!state.question || decidable('left'))"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert CHROMIUM is not None
    with Browser(CHROMIUM, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    return make_store(tmp_path_factory.mktemp("episodes") / "store", instruction=MARKUP)


@contextlib.contextmanager
def served(store: EpisodeStore, votes: Path, port: int = 0, **plan: Any) -> Iterator[LabelServer]:
    with LabelServer(make_labeling(store, votes, **plan), port, TOKEN) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def enter(browser: Browser, name: str) -> None:
    browser.evaluate(f"$('rater').value = {json.dumps(name)}; $('start').requestSubmit()")


def choices(votes: Path, rater: str = "anna") -> list[str]:
    return [json.loads(line)["choice"] for line in (votes / f"{rater}.jsonl").read_text().splitlines()]


def test_a_rater_at_a_desk(browser: Browser, store: EpisodeStore, tmp_path: Path) -> None:
    with served(store, tmp_path / "votes", couples=6, repeats=0.34) as server:
        browser.open(server.address, width=1280)
        assert browser.evaluate("document.activeElement.id") == "rater"
        enter(browser, MARKUP)
        browser.until("!$('problem').hidden")
        assert MARKUP in browser.evaluate("$('words').textContent")
        enter(browser, "anna")
        browser.until(READY.format(1))
        assert browser.evaluate("$('instruction').textContent") == MARKUP
        assert browser.evaluate("document.querySelectorAll('img').length") == 0
        assert browser.evaluate("[document.title, $('count').textContent]") == ["Which one is better?", "0 / 8"]
        # Both videos play by one clock, also where one is shorter.
        browser.until("playing && time > 3")
        browser.press(" ")
        browser.evaluate("seek(2)")
        browser.until("sides.every((side) => !side.video.seeking)")
        assert browser.evaluate("sides.map((side) => Math.floor(side.video.currentTime * 10))") == [2, 2]
        for key in "nm.m.,m":  # a mark that is there already stays one
            browser.press(key)
        assert browser.evaluate("[sides[0].marked, sides[1].marked]") == [[2], [2, 3]]
        assert browser.evaluate("document.querySelectorAll('.mark').length") == 3
        browser.evaluate("document.querySelectorAll('.one')[1].click()")
        browser.press("ArrowLeft")
        browser.until(READY.format(2))
        assert browser.evaluate("$('note').textContent") == "Kept: Left."
        row = json.loads((tmp_path / "votes" / "anna.jsonl").read_text())
        assert row["choice"] == "a"
        assert row["marks"] == {row["a"]: [2], row["b"]: [3]}
        for number, key in enumerate(["ArrowRight", "e", "b", "s"], start=2):
            browser.press(key)
            browser.until(READY.format(number + 1))
        shown = browser.evaluate("state.question.left.name")
        browser.press("u")
        browser.until("state.undo === 4 && decidable('left')")
        assert choices(tmp_path / "votes") == ["a", "b", "tie", "bad", "skip", "undo"]
        assert browser.evaluate("state.question.left.name") != shown
        # The same question in another window: one vote counts, and this page goes on.
        vote = browser.evaluate("({...state, ...{left: state.question.left.name, right: state.question.right.name}})")
        browser.evaluate(
            f"post('vote', {{rater: 'anna', vote: {vote['vote']}, left: '{vote['left']}', right: '{vote['right']}',"
            " choice: 'left'})"
        )
        browser.press("ArrowRight")
        browser.until(READY.format(7))
        assert "answered in another window. This is the next one." in browser.evaluate("$('note').textContent")
        assert choices(tmp_path / "votes")[6:] == ["a"]
        for number in (7, 8, 9):
            browser.press("ArrowLeft")
            browser.until(READY.format(number + 1))
        assert browser.evaluate("[$('finished').hidden, $('couple').hidden, state.done]") == [False, True, 8]
        browser.press("ArrowLeft")
        browser.press("u")
        browser.until("state.undo === 8 && decidable('left')")
        assert choices(tmp_path / "votes")[6:] == ["a", "a", "a", "a", "undo"]
        # A browser logs refused requests by itself; the page complains of nothing else.
        assert [
            text for text in browser.complaints() if "status of 422" not in text and "status of 409" not in text
        ] == []
        assert {address.partition("/video/")[0] for address in browser.requests() if address[:5] != "blob:"} <= {
            server.address.rstrip("/"),
            *(server.address + path for path in ("", "question", "vote", "undo")),
            "data:,",
        }


@pytest.mark.parametrize("dark", [False, True])
def test_a_rater_with_a_phone(dark: bool, browser: Browser, store: EpisodeStore, tmp_path: Path) -> None:
    with served(store, tmp_path / "votes") as server:
        browser.open(server.address, width=360, height=640, mobile=True, dark=dark)
        assert browser.evaluate("document.documentElement.scrollWidth") == 360
        enter(browser, "a-name-of-sixty-four-letters-" + "x" * 35)
        browser.until(READY.format(1))
        browser.evaluate("pause(); for (const at of [0, 1, 2, 3, 4, 5]) { seek(at); mark(sides[0]); }")
        assert browser.evaluate("document.documentElement.scrollWidth") == 360
        # Without marks everything fits one screen, and whatever is touched is large enough for a finger.
        browser.evaluate("sides[0].marked = []; update()")
        assert browser.evaluate("document.documentElement.scrollHeight") <= 640
        small = "[...document.querySelectorAll('button')].filter((b) => b.offsetParent && b.offsetHeight < 32).length"
        assert browser.evaluate(small) == 0
        browser.tap("[data-choice=right]")
        browser.until(READY.format(2))
        browser.tap("#couple .undo")
        browser.until(READY.format(2) + " && state.undo === null")
        assert [choices(path.parent, path.stem) for path in (tmp_path / "votes").iterdir()] == [["b", "undo"]]
        assert browser.complaints() == []


def test_a_vote_that_the_server_did_not_take_is_sent_again(
    browser: Browser, store: EpisodeStore, tmp_path: Path
) -> None:
    with served(store, tmp_path / "votes") as server:
        port = server.server_port
        browser.open(server.address, width=1280)
        enter(browser, "anna")
        browser.until(READY.format(1))
    browser.press("e")
    browser.until("!$('again').hidden && !$('problem').hidden")
    assert browser.evaluate("$('words').textContent").startswith("This decision may not be kept: The server does")
    assert not (tmp_path / "votes").exists()
    with served(store, tmp_path / "votes", port):
        browser.evaluate("$('again').click()")
        browser.until(READY.format(2))
        assert browser.evaluate("[$('problem').hidden, state.done]") == [True, 1]
    assert choices(tmp_path / "votes") == ["tie"]


def test_a_double_press_votes_on_one_couple(browser: Browser, store: EpisodeStore, tmp_path: Path) -> None:
    with served(store, tmp_path / "votes") as server:
        browser.open(server.address, width=1280)
        enter(browser, "anna")
        browser.until(READY.format(1))
        for key in ("ArrowRight", "s"):  # a skip, too, would be one of a couple that nobody has seen
            number = browser.evaluate("state.vote")
            for _ in range(2):
                browser.press(key)
                time.sleep(0.2)
            browser.until(READY.format(number + 1))
        browser.press("ArrowDown")  # scrolls
        assert choices(tmp_path / "votes") == ["b", "skip"]


def test_a_vote_under_way_goes_under_the_name_of_who_saw_the_couple(
    browser: Browser, store: EpisodeStore, tmp_path: Path
) -> None:
    with served(store, tmp_path / "votes") as server:
        browser.open(server.address, width=1280)
        enter(browser, "anna")
        browser.until(READY.format(1))
        unsent = "const event = new Event('beforeunload', {cancelable: true}); dispatchEvent(event);"
        leaves = f"(() => {{ {unsent} return !event.defaultPrevented; }})()"
        assert browser.evaluate(leaves)
        browser.evaluate("globalThis.kept = fetch; globalThis.fetch = () => Promise.reject(new TypeError('lost')); 0")
        browser.press("ArrowRight")
        browser.until("!$('problem').hidden")
        assert not browser.evaluate(leaves)
        # Neither another name nor another decision takes the place of the one that is not settled.
        browser.evaluate("$('who').click()")
        enter(browser, "ben")
        browser.press("ArrowLeft")
        assert browser.evaluate("[rater, $('start').hidden, $('who').disabled]") == ["anna", True, True]
        browser.evaluate("globalThis.fetch = kept; $('again').click()")
        browser.until(READY.format(2))
        assert browser.evaluate(leaves)
        # A name becomes the page's once the server has answered for it.
        browser.evaluate("$('who').click()")
        enter(browser, "no name")
        browser.until("!$('problem').hidden")
        assert browser.evaluate("[rater, $('rater').value]") == ["anna", "no name"]
    assert choices(tmp_path / "votes") == ["b"]
    assert not (tmp_path / "votes" / "ben.jsonl").exists()


@pytest.mark.parametrize("hidden", [False, True])
def test_the_end_of_the_shorter_episode(hidden: bool, browser: Browser, store: EpisodeStore, tmp_path: Path) -> None:
    with served(store, tmp_path / "votes") as server:
        server.labeling._hide_length = hidden
        browser.open(server.address, width=1280)
        enter(browser, "anna")
        browser.until(READY.format(1))
        assert browser.evaluate("pause(), seek(length() - 1), sides[0].images !== sides[1].images")
        badges = browser.evaluate("sides.filter((side) => !side.over.hidden).length")
        hatched = "sides.filter((side) => side.track.querySelector('.after').style.left !== '100%').length"
        assert (badges, browser.evaluate(hatched)) == ((0, 0) if hidden else (2, 1))


def start(store: EpisodeStore, votes: Path) -> tuple["subprocess.Popen[str]", str]:
    """The verb in a process of its own, and the address that it shows."""
    code = HEAR_SIGINT + "import sys; from grape.cli.main import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "label", "--store", str(store.path), "--votes", str(votes)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if match := re.fullmatch(r"Open (http://127\.0\.0\.1:\d+/[\w-]{32}/)\n", line):
            return process, match[1]
    raise AssertionError(process.communicate())


def test_killed_and_opened_again(browser: Browser, store: EpisodeStore, tmp_path: Path) -> None:
    process, address = start(store, tmp_path / "votes")
    browser.open(address, width=1280)
    enter(browser, "anna")
    for number, key in enumerate(["ArrowLeft", "ArrowRight", "b"], start=1):
        browser.until(READY.format(number))
        browser.press(key)
    browser.until(READY.format(4))
    shown = browser.evaluate("state.question.left.images + '/' + state.question.right.images")
    process.kill()
    process.communicate()
    assert choices(tmp_path / "votes") == ["a", "b", "bad"]
    process, other = start(store, tmp_path / "votes")
    assert other.split("/")[3] != address.split("/")[3]
    browser.open(other, width=1280)
    enter(browser, "anna")
    browser.until(READY.format(4))
    assert browser.evaluate("state.question.left.images + '/' + state.question.right.images") == shown
    browser.press("e")
    browser.until(READY.format(5))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "1 vote cast in this run" in out
    assert re.search(r"anna\W+4\W+4\W+0\W+0\W+1 / 1", out)
    assert choices(tmp_path / "votes") == ["a", "b", "bad", "tie"]
