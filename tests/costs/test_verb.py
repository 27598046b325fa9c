from collections.abc import Callable
from pathlib import Path

import pytest

from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.core.trajectories import Trajectory
from grape.costs import (
    CostsCheckSettings,
    CostsListSettings,
    builtin_names,
    builtin_specification,
    builtin_suites,
    run_costs_check,
    run_costs_list,
    show_specification,
    suite_names_of,
)
from grape.store import EpisodeStore
from tests.reporters import Hearing

SPECIFICATION = """\
version: 1
task: push-block
limit: 16 steps
keypoints: [gripper, block]
signals: []
stages:
  - name: reach
    done_when: {near: {of: gripper, to: block, within: 4 cm}}
    path:
      - {name: way, cost: {path_length: {of: gripper, reference: 30 cm}}, weight: 0.1, objectives: [safety, efficiency]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "push.yaml"
    path.write_text(SPECIFICATION)
    return path


@pytest.fixture
def store(tmp_path: Path, make_trajectory: Callable[..., Trajectory]) -> Path:
    store = EpisodeStore.create(tmp_path / "store", "test", {})
    store.write(make_trajectory({"gripper": [[0, 0, 0]] * 3, "block": [[0, 0, 0]] * 3}))
    return store.path


def test_list_names_all_built_in_specifications() -> None:
    summary = run_costs_list(CostsListSettings())
    assert summary["specifications"]["metaworld"] == list(builtin_names("metaworld"))
    assert "metaworld/drawer-open  (reach, hook, pull, open)" in summary["text"]
    assert list(run_costs_list(CostsListSettings("toy"))["specifications"]) == ["toy"]
    with pytest.raises(SettingsError, match="Did you mean 'metaworld'"):
        run_costs_list(CostsListSettings("metaword"))


def test_show_prints_stages_and_constraints() -> None:
    summary = show_specification("metaworld/drawer-open")
    assert "2. hook: Lower a finger behind the handle." in summary["text"]
    assert "at-handle (subgoal; completion): 1 x distance(of gripper, to object) above 0.08 m" in summary["text"]
    assert summary["specification"]["task"] == "drawer-open"
    assert len(summary["hash"]) == 64
    with pytest.raises(SettingsError, match="Did you mean 'drawer-open'"):
        show_specification("metaworld/draweropen")


def test_check_compares_names_with_a_store(file: Path, store: Path) -> None:
    summary = run_costs_check(CostsCheckSettings(target=str(file), store=store))
    assert summary["compared"] == str(store)
    assert summary["warnings"] == []
    file.write_text(SPECIFICATION.replace("block]", "block, goal]").replace("task: push-block", "task: open"))
    with pytest.raises(CompatibilityError, match="no episode of task 'open'"):
        run_costs_check(CostsCheckSettings(target=str(file), store=store))


def test_check_lists_what_is_wrong(file: Path, store: Path) -> None:
    file.write_text(SPECIFICATION.replace("block", "blok").replace("push-blok", "push-block"))
    with pytest.raises(DataError, match=r"\[unknown-keypoint\].*Did you mean 'block'"):
        run_costs_check(CostsCheckSettings(target=str(file), store=store))


def test_check_compares_names_with_a_suite(file: Path) -> None:
    with pytest.raises(DataError, match="keypoint 'block' is not recorded"):
        run_costs_check(CostsCheckSettings(target=str(file), suite="metaworld"))
    reporter = Hearing()
    summary = run_costs_check(CostsCheckSettings(target=str(file)), reporter)
    assert summary["compared"] == ""
    assert "not compared" in reporter.warnings[0]


@pytest.mark.parametrize(
    ("target", "error", "says"),
    [
        ("", SettingsError, "No specification is named"),
        ("drawer", SettingsError, "neither a YAML file nor SUITE/TASK"),
        ("missing.yaml", DataError, "does not exist"),
    ],
)
def test_odd_targets_are_told(target: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        run_costs_check(CostsCheckSettings(target=target))


@pytest.mark.parametrize("suite", builtin_suites())
def test_built_in_specifications_pass_their_own_check(suite: str) -> None:
    names = suite_names_of(suite)
    assert {"gripper", "object", "goal"} <= names.keypoints.keys()
    for task in builtin_names(suite):
        summary = run_costs_check(CostsCheckSettings(target=f"{suite}/{task}"))
        assert summary["compared"] == f"suite {suite}"
        assert summary["warnings"] == []
        specification = builtin_specification(suite, task)
        assert (specification.suite, specification.task) == (suite, task)
        tags = {tag for stage in specification.stages for part in stage.constraints for tag in part.objectives}
        assert tags == {"completion", "safety", "efficiency"}
