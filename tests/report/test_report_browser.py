"""The page in a real browser: what a reader on a desk and on a phone would see."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.browser import Browser, find_chromium

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine ('make install' brings it)")

# A video that loops seeks back to its start and has no image for a moment: what counts is that it had one.
WATCH = """
(async () => {
  const found = [];
  for (const video of document.querySelectorAll("video")) {
    video.scrollIntoView();
    const loaded = video.readyState >= 2 || (!video.error && await new Promise((done) => {
      for (const name of ["loadeddata", "canplay", "seeked"]) video.addEventListener(name, () => done(true));
      video.addEventListener("error", () => done(false));
    }));
    found.push({ loaded, duration: video.duration, width: video.videoWidth,
      error: video.error && video.error.message });
  }
  return found;
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert CHROMIUM is not None
    with Browser(CHROMIUM, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize(("width", "dark"), [(1440, False), (1440, True), (390, False), (390, True)])
def test_nothing_overflows_and_nothing_complains(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width=width, dark=dark, mobile=width < 500)
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    browser.evaluate("document.querySelectorAll('details').forEach((item) => { item.open = true; })")
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.complaints() == []


def test_text_can_be_read_against_its_background(browser: Browser, page: Path) -> None:
    # WCAG's contrast of the colors that carry text, in both schemes; 4.5 is what small text needs.
    contrast = """
    (() => {
      const probe = document.body.appendChild(document.createElement("i"));
      const light = (name) => {
        probe.style.color = `var(--${name})`;
        const parts = getComputedStyle(probe).color.match(/[0-9.]+/g).slice(0, 3).map((part) => part / 255);
        const [r, g, b] = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      const found = {};
      for (const ink of ["ink", "soft", "grape", "chosen", "rejected"])
        for (const paper of ["paper", "card"]) found[`${ink} on ${paper}`] = ratio(light(ink), light(paper));
      probe.remove();
      return found;
    })()
    """
    for dark in (False, True):
        browser.open(page, width=1440, dark=dark)
        for pair, ratio in browser.evaluate(contrast).items():
            assert ratio >= 4.5, f"{pair}, {'dark' if dark else 'light'}: {ratio:.2f}"


def test_every_video_decodes(browser: Browser, page: Path) -> None:
    browser.open(page, width=1440)
    videos = browser.evaluate(WATCH)
    assert len(videos) == 8
    for video in videos:
        assert video["error"] is None
        assert video["loaded"]
        assert video["width"] == 384
    # Both sides of a pair last equally long, so that they loop in step.
    durations = [video["duration"] for video in videos]
    assert durations[::2] == durations[1::2]


def test_both_sides_play_in_step_and_the_playhead_follows(browser: Browser, page: Path) -> None:
    browser.open(page, width=1440)
    browser.evaluate(WATCH)
    playback = browser.evaluate(
        """(async () => {
          const pair = document.querySelector(".pair");
          const videos = [...pair.querySelectorAll("video")];
          pair.querySelector(".screen").scrollIntoView({block: "center", behavior: "instant"});
          await new Promise((done) => setTimeout(done, 1500));
          const at = videos.map((video) => video.currentTime);
          const head = Number(pair.style.getPropertyValue("--t")) * videos[0].duration;
          const playing = videos.map((video) => !video.paused);
          const slider = pair.querySelector("input[type=range]");
          slider.value = 5;
          slider.dispatchEvent(new Event("input"));
          await new Promise((done) => setTimeout(done, 500));
          return {at, head, playing, paused: videos.map((video) => video.paused),
            sought: videos.map((video) => Math.floor(video.currentTime * pair.dataset.fps)),
            shown: pair.querySelector("output").textContent};
        })()"""
    )
    assert playback["playing"] == [True, True]
    assert abs(playback["at"][0] - playback["at"][1]) < 0.3
    assert abs(playback["at"][0] - playback["head"]) < 0.3
    assert playback["paused"] == [True, True]
    assert playback["sought"] == [5, 5]
    assert playback["shown"].startswith("5 / ")


def test_pairs_can_be_filtered_by_task(browser: Browser, page: Path) -> None:
    browser.open(page, width=1440)
    tasks = browser.evaluate(
        """(() => {
          document.querySelector(".filters button[data-task='faucet-open']").click();
          return [...document.querySelectorAll(".pair")].filter((pair) => pair.offsetParent).map((p) => p.dataset.task);
        })()"""
    )
    assert tasks
    assert set(tasks) == {"faucet-open"}


def test_the_page_asks_for_nothing_but_itself(browser: Browser, page: Path) -> None:
    browser.open(page, width=1440)
    browser.evaluate(WATCH)
    assert [address for address in browser.requests() if not address.startswith(("data:", "blob:"))] == [page.as_uri()]
