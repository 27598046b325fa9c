"""The page of a cost specification: what it holds, and that nothing in it can reach out or be confused."""

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from grape.cli.main import main
from grape.core.errors import CompatibilityError, SettingsError
from grape.core.trajectories import Trajectory
from grape.envs.registry import get_suite
from grape.report import CostsPageSettings, run_costs_page
from grape.store import EpisodeStore
from tests.costs.expert_recordings import record_all
from tests.report.browser import Browser, find_chromium

HOSTILE = '<script>alert(1)</script> & "quotes"'
SPECIFICATION = """\
version: 1
task: push-block
limit: 8 steps
description: TEXT
keypoints: [gripper, object, goal]
signals: [success]
stages:
  - name: push
    description: TEXT
    done_when: {near: {of: object, to: goal, within: 4 cm}}
    subgoal:
      - {name: there, cost: {distance: {of: object, to: goal}}, weight: 1 per m, objectives: [completion]}
    path:
      - {name: kept, cost: {always: {near: {of: gripper, to: object, within: 6 cm}}}, weight: 1 per m,
         objectives: [safety], description: TEXT}
"""


def with_images(trajectory: Trajectory) -> Trajectory:
    frames = np.random.default_rng(trajectory.steps).integers(0, 255, (trajectory.steps + 1, 32, 32, 3), dtype=np.uint8)
    return dataclasses.replace(trajectory, frames=frames)


@pytest.fixture(scope="module")
def episodes() -> list[Trajectory]:
    suite = get_suite("toy")
    task = next(task for task in suite.tasks if task.name == "push-block")
    return [with_images(one) for one in record_all(suite, task, range(4))]


@pytest.fixture(scope="module")
def stores(episodes: list[Trajectory], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Experts' episodes and others' in stores of their own, in which ids repeat."""
    folder = tmp_path_factory.mktemp("runs")
    paths = []
    for operators in (("clean",), ("noisy", "sloppy")):
        store = EpisodeStore.create(folder / operators[-1] / "store", "toy", {})
        chosen = [one for one in episodes if one.meta.operator in operators]
        for number, one in enumerate(chosen):
            store.write(dataclasses.replace(one, meta=dataclasses.replace(one.meta, episode_id=f"e{number:02d}")))
        paths.append(store.path)
    return paths


@pytest.fixture(scope="module")
def page(stores: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("page") / "costs.html"
    run_costs_page(CostsPageSettings(target="toy/push-block", store=tuple(stores), out=target, shown=2, video_size=64))
    return target


def test_it_holds_stages_trial_and_curves(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count('class="card pair"') == 2
    assert text.count("<video") == 4
    assert 'class="excess"' in text or 'class="value"' in text
    for word in ("finite", "falls", "trend", "ranks", "stable", "boundaries", "Done when", "accept"):
        assert word in text
    assert not re.search(r'(src|href)="(?!data:|#)', text)


def test_episodes_of_equal_id_are_told_apart(page: Path, stores: list[Path]) -> None:
    text = page.read_text(encoding="utf-8")
    assert "clean/e0" in text
    assert "sloppy/e0" in text
    highest = re.findall(r"highest cost ([\d.]+) \(sloppy/(e\d+)\)", text)
    assert highest
    store = EpisodeStore.open(stores[1])
    assert not any(store.read(name).meta.success for _, name in highest)


def test_texts_of_others_stay_texts(stores: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(SPECIFICATION.replace("TEXT", json.dumps(HOSTILE)), encoding="utf-8")
    run_costs_page(CostsPageSettings(target=str(path), store=tuple(stores), out=tmp_path / "page.html", shown=0))
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert") == 3


def test_equal_inputs_give_equal_bytes(page: Path, stores: list[Path], tmp_path: Path) -> None:
    again = tmp_path / "again.html"
    words = ["costs", "show", "toy/push-block", "--store", *map(str, stores), "--out", str(again)]
    assert main([*words, "--shown", "2", "--video-size", "64"]) == 0
    assert again.read_bytes() == page.read_bytes()


def test_without_episodes_it_is_about_the_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["costs", "show", "toy/push-block", "--out", str(tmp_path / "page.html"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["episodes"], summary["verdict"]) == (0, None)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Done when" in text
    assert "Trial on" not in text
    assert main(["costs", "show", "toy/push-block"]) == 0
    assert "1. " in capsys.readouterr().out


def test_one_episode_stands_alone(episodes: list[Trajectory], tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "one", "toy", {})
    store.write(episodes[0])
    settings = CostsPageSettings(
        target="toy/push-block", store=(store.path,), out=tmp_path / "page.html", video_size=64
    )
    assert run_costs_page(settings)["verdict"] == "undecided"
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("<video") == 1
    assert "sides bare single" in text


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"out": None}, SettingsError, "--store goes with --out"),
        ({"shown": -1}, SettingsError, "--shown is -1"),
        ({"video_size": 8}, SettingsError, "--video-size is 8"),
        ({"target": "toy/reach-red"}, CompatibilityError, "no episode of task 'reach-red'"),
    ],
)
def test_what_the_user_can_fix_is_reported(
    stores: list[Path], tmp_path: Path, change: dict[str, object], error: type[Exception], says: str
) -> None:
    settings = CostsPageSettings(target="toy/push-block", store=tuple(stores), out=tmp_path / "page.html")
    with pytest.raises(error, match=says):
        run_costs_page(dataclasses.replace(settings, **change))  # type: ignore[arg-type]
    assert not (tmp_path / "page.html").exists()


CHROMIUM = find_chromium()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine ('make install' brings it)")
    with Browser(CHROMIUM, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_nothing_overflows_and_nothing_complains(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width=width, dark=dark, mobile=width < 500)
    browser.evaluate("document.querySelectorAll('details').forEach((item) => { item.open = true; })")
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.complaints() == []
    assert [address for address in browser.requests() if not address.startswith(("file:", "data:", "blob:"))] == []
