"""Tasks, variations, actions and complaints of the WidowX suites; no simulator is started."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from grape.collect import CollectSettings
from grape.collect.plan import make_plan
from grape.core.errors import DataError, SettingsError, SimulatorError
from grape.envs.registry import get_suite, select_tasks
from grape.envs.simpler.environment import WidowXEnvironment, simulator_action
from grape.envs.simpler.installation import asset_folder
from grape.envs.simpler.rendering import require_vulkan
from grape.envs.simpler.scene import _Rearrangement
from grape.envs.simpler.tasks import SUITES, arrangement_of, base_task_of, suite_tasks

BASE = suite_tasks("simpler_widowx")


def test_the_four_tasks_are_simplerenvs() -> None:
    assert [task.name for task in BASE] == ["carrot-on-plate", "stack-cubes", "spoon-on-cloth", "eggplant-in-basket"]
    assert [task.max_steps for task in BASE] == [60, 60, 60, 120]
    suite = get_suite("simpler_widowx")
    assert {suite.n_initial_states(task) for task in BASE} == {24}
    assert suite.action_space.control_hz == 5.0
    assert suite.action_space.dim == 7
    assert suite.tasks_to_look_at() == BASE
    assert len(get_suite("simpler_widowx_subject").tasks_to_look_at()) == 1


@pytest.mark.parametrize(("suite", "least"), [("subject", 3), ("physical", 8), ("semantic", 4)])
def test_variations_change_what_their_group_says_and_nothing_else(suite: str, least: int) -> None:
    tasks = get_suite(f"simpler_widowx_{suite}").tasks
    assert len(tasks) >= least
    assert len({task.name for task in tasks}) == len(tasks)
    by_name = {task.name: task for task in BASE}
    for task in tasks:
        base = by_name[base_task_of(task)]
        ours, theirs = arrangement_of(task), arrangement_of(base)
        assert (ours.environment, ours.target, task.max_steps) == (theirs.environment, theirs.target, base.max_steps)
        assert (ours.source != theirs.source) == ours.exchanged == (suite == "subject")
        changed = (ours.scale, ours.turn, ours.shift) != (theirs.scale, theirs.turn, theirs.shift)
        assert changed == (suite == "physical")
        assert (task.instruction == base.instruction) == (suite == "physical")
    assert len(select_tasks(get_suite(f"simpler_widowx_{suite}"), tasks[1].name)) == 1


def test_an_unknown_task_is_refused_with_a_suggestion() -> None:
    with pytest.raises(SettingsError) as error:
        select_tasks(get_suite("simpler_widowx"), "carot-on-plate")
    assert "carrot-on-plate" in error.value.hint
    groups = ("", "_subject", "_physical", "_semantic", "_held3", "_nano")
    assert set(SUITES) == {f"simpler_widowx{group}" for group in groups}


def test_the_slower_suite_has_the_same_tasks_and_an_equal_part_of_each_decision_in_each_step() -> None:
    slower = get_suite("simpler_widowx_held3")
    assert [(task.name, task.instruction) for task in slower.tasks] == [(task.name, task.instruction) for task in BASE]
    assert [task.max_steps for task in slower.tasks] == [20, 20, 20, 40]
    assert slower.action_space.control_hz == pytest.approx(5 / 3)
    assert "3 steps" in slower.action_space.notes[-1]
    assert slower.action_space.low == get_suite("simpler_widowx").action_space.low
    given = np.array([0.09, -2.0, 0.0, 0.6, -0.4, 1.0, 0.7], dtype=np.float32)
    action = simulator_action(given, 3)
    np.testing.assert_allclose(3 * action[:3], [0.09, -1.0, 0.0], atol=1e-6)
    step = Rotation.from_euler("XYZ", action[3:6])
    np.testing.assert_allclose((step * step * step).as_rotvec(), given[3:6], atol=1e-6)
    assert action[6] == 1.0


def test_who_asks_for_more_of_the_eggplants_states_hears_why_there_are_24(tmp_path: Path) -> None:
    for name, is_explained in (("eggplant-in-basket", True), ("carrot-on-plate", False)):
        collect_settings = CollectSettings(out=tmp_path, suite="simpler_widowx", tasks=name, initial_states="0-63")
        with pytest.raises(SettingsError, match="state 63 of") as error:
            make_plan(collect_settings, get_suite("simpler_widowx"))
        assert "--initial-states 0-23" in error.value.hint
        assert ("has 64 of the eggplant's task" in error.value.hint) == is_explained


def test_actions_are_turned_into_maniskills() -> None:
    given = np.array([0.03, -2.0, 0.0, 0.3, -0.2, 0.5, 0.7], dtype=np.float32)
    action = simulator_action(given)
    np.testing.assert_allclose(action[:3], [0.03, -1.0, 0.0], atol=1e-7)
    x, y, z = (Rotation.from_euler(axis, angle) for axis, angle in zip("xyz", action[3:6], strict=True))
    np.testing.assert_allclose((x * y * z).as_rotvec(), given[3:6], atol=1e-6)  # ManiSkill's order
    assert np.abs(action[3:6] - given[3:6]).max() > 0.01  # passing the numbers on would not do
    assert action[6] == 1.0
    for closing in (0.5, 0.0, -1.0):
        assert simulator_action(np.array([0] * 6 + [closing], dtype=np.float32))[6] == -1.0


def test_sources_start_on_the_table_whatever_their_size() -> None:
    class Tensor(list):
        def numpy(self) -> np.ndarray:
            return np.array(self)

    class Common:
        def __init__(self, **given: object) -> None:
            self.given = given

    def started(task: str, suite: str) -> tuple[np.ndarray, np.ndarray]:
        (selected,) = select_tasks(get_suite(suite), task)
        models = {
            name: {"bbox": {"min": [-0.05, -0.02, -half], "max": [0.05, 0.02, half]}}
            for name, half in (("bridge_carrot_generated_modified", 0.02), ("baked_green_cube_3cm", 0.015))
        }
        scene = type("Scene", (_Rearrangement, Common), {"arrangement": arrangement_of(selected), "models": models})
        xyz = Tensor([[[0.1, 0.2, 0.9], [0.3, 0.4, 0.87]]])
        quat = Tensor([[[1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]])
        target = arrangement_of(selected).target
        given = scene(["bridge_carrot_generated_modified", target], xyz, quat).given
        return given["xyz_configs"], given["quat_configs"]

    same, _ = started("carrot-on-plate", "simpler_widowx")
    np.testing.assert_allclose(same[0], [[0.1, 0.2, 0.9], [0.3, 0.4, 0.87]])
    larger, _ = started("carrot-on-plate-larger", "simpler_widowx_physical")
    np.testing.assert_allclose(larger[0], [[0.1, 0.2, 0.905], [0.3, 0.4, 0.87]])
    shifted, _ = started("carrot-on-plate-shifted", "simpler_widowx_physical")
    np.testing.assert_allclose(shifted[0], [[0.12, 0.18, 0.9], [0.3, 0.4, 0.87]])
    cube, _ = started("cube-on-plate", "simpler_widowx_subject")
    np.testing.assert_allclose(cube[0], [[0.1, 0.2, 0.895], [0.3, 0.4, 0.87]])
    _, turned = started("carrot-on-plate-turned", "simpler_widowx_physical")
    np.testing.assert_allclose(turned[0], [[np.cos(np.pi / 8), 0, 0, np.sin(np.pi / 8)], [1, 0, 0, 0]])
    _, lying = started("cube-in-basket", "simpler_widowx_subject")
    assert lying.shape == (8, 2, 4)


def test_missing_assets_name_maniskills_command(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MS_ASSET_DIR", str(tmp_path))
    with pytest.raises(DataError, match=r"wx250s\.urdf") as error:
        asset_folder()
    assert "python -m mani_skill.utils.download_asset bridge_v2_real2sim" in error.value.hint
    pytest.importorskip("sapien", reason="needs the extra simpler")
    with pytest.raises(DataError):
        get_suite("simpler_widowx").check()


def test_without_a_vulkan_device_the_driver_is_named(monkeypatch) -> None:
    pytest.importorskip("sapien", reason="needs the extra simpler")
    for name in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES"):
        monkeypatch.setenv(name, "/nowhere.json")
    with pytest.raises(SimulatorError, match="no Vulkan device") as error:
        require_vulkan()
    assert "mesa-vulkan-drivers" in error.value.hint


def test_a_driver_that_crashes_is_an_error_too(monkeypatch) -> None:
    monkeypatch.setattr("grape.envs.simpler.rendering.MODULE", "no_such_module")
    with pytest.raises(SimulatorError, match="crashes"):
        require_vulkan()


def test_a_step_before_the_reset_is_refused() -> None:
    with pytest.raises(RuntimeError, match="reset must be called"):
        WidowXEnvironment(BASE[0]).step(np.zeros(7, dtype=np.float32))
