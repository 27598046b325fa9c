"""Specifications that a suite of another distribution ships: listed, shown, checked and scored with."""

from importlib import metadata
from pathlib import Path

import pytest

from grape.core.errors import DataError, SettingsError
from grape.core.events import SilentReporter
from grape.costs import (
    CostsCheckSettings,
    CostsListSettings,
    builtin_suites,
    find_specification,
    known_specification,
    parse_specification,
    run_costs_check,
    run_costs_list,
    show_specification,
    specification_hash,
    specification_suites,
)
from grape.envs.toy import ToySuite
from grape.preferences import ScoreSettings, run_score
from grape.store import EpisodeStore
from tests.preferences.rollouts import make_rollout

TEXT = """\
version: 1
suite: shipping
limit: 16 steps
keypoints: [gripper, object]
signals: []
stages:
  - name: come
    done_when: {near: {of: gripper, to: object, within: 3 cm}}
    subgoal:
      - name: there
        cost: {distance: {of: gripper, to: object}}
        worst: 40 cm
        weight: 1 per m
        objectives: [completion]
outcome:
  unfinished: 1
"""
FOLDER: list[Path] = []


class ShippingSuite(ToySuite):
    def __init__(self) -> None:
        super().__init__("toy")

    @property
    def name(self) -> str:
        return "shipping"

    @property
    def cost_specifications(self) -> Path | None:
        return FOLDER[0] if FOLDER else None


def broken() -> None:
    raise ImportError("its package is broken")


class Listener(SilentReporter):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of specifications, and two plug-in suites: one that ships it and one that cannot be loaded."""
    points = [
        metadata.EntryPoint("shipping", f"{__name__}:ShippingSuite", "grape.suites"),
        metadata.EntryPoint("broken", f"{__name__}:broken", "grape.suites"),
    ]
    monkeypatch.setattr(metadata.EntryPoint, "load", lambda point: globals()[point.attr])
    monkeypatch.setattr(metadata, "entry_points", lambda **chosen: metadata.EntryPoints(points).select(**chosen))
    path = tmp_path / "costs"
    path.mkdir()
    (path / "drawer-open.yaml").write_text(TEXT)
    FOLDER[:] = [path]
    yield path
    FOLDER.clear()


def test_they_are_listed_beside_the_built_in_ones(folder):
    listener = Listener()
    summary = run_costs_list(CostsListSettings(), listener)
    assert summary["specifications"]["shipping"] == ["drawer-open"]
    assert set(summary["specifications"]) == {*builtin_suites(), "shipping"}
    assert "shipping/drawer-open  (come)" in summary["text"]
    assert len(listener.warnings) == 1
    assert "'broken'" in listener.warnings[0]
    assert run_costs_list(CostsListSettings("shipping"))["specifications"] == {"shipping": ["drawer-open"]}
    FOLDER.clear()
    assert specification_suites() == builtin_suites()
    with pytest.raises(SettingsError, match="suite with cost specifications 'shipping'"):
        run_costs_list(CostsListSettings("shipping"))


def test_they_are_shown_and_checked_by_name(folder):
    specification = find_specification("shipping/drawer-open")
    assert (specification.suite, specification.task) == ("shipping", "drawer-open")
    assert show_specification("shipping/drawer-open", as_yaml=True)["text"] + "\n" == TEXT
    checked = run_costs_check(CostsCheckSettings("shipping/drawer-open"))
    assert checked["text"].startswith("shipping/drawer-open (of the suite): 1 stages, no errors")
    with pytest.raises(SettingsError, match="Did you mean 'drawer-open'"):
        find_specification("shipping/drawer-opn")


def test_score_takes_them_and_the_users_own_over_them(folder, tmp_path):
    store = EpisodeStore.create(tmp_path / "store", "shipping", {})
    for sample in range(3):
        for task in ("drawer-open", "faucet-open"):
            store.write(make_rollout(task, 0, sample, sample == 0, suite="shipping"))
    listener = Listener()
    summary = run_score(ScoreSettings(store=store.path, out=tmp_path / "scores"), listener)
    shipped = known_specification("shipping", "drawer-open")
    assert shipped is not None
    assert summary["calibration"]["specifications"] == {"drawer-open": specification_hash(shipped)}
    assert summary["calibration"]["success_alone"] == ["faucet-open"]
    (warning,) = [warning for warning in listener.warnings if "success alone" in warning]
    assert "not installed" not in warning
    own = tmp_path / "drawer-open.yaml"
    own.write_text(TEXT.replace("40 cm", "20 cm") + "task: drawer-open\n")
    chosen = run_score(ScoreSettings(store=store.path, out=tmp_path / "other", costs=own))["calibration"]
    assert chosen["specifications"] == {"drawer-open": specification_hash(parse_specification(own.read_text(), ""))}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT.replace("suite: shipping", "suite: toy"), "is for toy/drawer-open"),
        (TEXT + "task: drawer-close\n", "is for shipping/drawer-close"),
        (TEXT.replace("near:", "neer:"), "neer"),
    ],
)
def test_a_faulty_file_is_an_error_and_no_missing_one(folder, text, message):
    (folder / "drawer-open.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        known_specification("shipping", "drawer-open")


def test_a_folder_that_is_missing_is_an_error(folder, tmp_path):
    FOLDER[:] = [tmp_path / "gone"]
    with pytest.raises(DataError, match=r"gone.*which is no folder"):
        known_specification("shipping", "drawer-open")
    assert known_specification("never-heard-of", "drawer-open") is None
    with pytest.raises(SettingsError, match=r"'broken'.*its package is broken"):
        known_specification("broken", "drawer-open")
