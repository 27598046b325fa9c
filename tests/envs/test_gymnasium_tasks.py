"""Our tasks as Gymnasium environments."""

import dataclasses
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import grape.gymnasium
from grape.core.errors import SettingsError
from grape.envs import gymnasium_tasks
from grape.envs.registry import get_suite, suite_names
from tests.envs.snapshots import assert_same


@pytest.mark.parametrize(
    "name",
    [
        "toy-reach-red",
        "toy-push-block",
        "toy_fine_wrist-push-block",
        pytest.param("metaworld-push", marks=pytest.mark.slow),
        pytest.param("libero_goal_nano-put_the_bowl_on_the_stove", marks=pytest.mark.slow),
        pytest.param("simpler_widowx_nano-stack-cubes", marks=pytest.mark.slow),
    ],
)
def test_gymnasiums_own_check_passes(name):
    env = gymnasium.make(f"grape/{name}-v0", render_mode="rgb_array")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env.unwrapped)
    env.close()
    env.close()
    assert not [str(item.message) for item in caught if not _is_harmless(item)]


def _is_harmless(warning: warnings.WarningMessage) -> bool:
    """Whether it is Gymnasium's advice on bounds, which are what the robot takes, or a simulator's on its own code."""
    advice = ("infinity. This is probably too", "recommend using a symmetric and normalized space")
    simulators = {"mani_skill", "robosuite"}.intersection(Path(warning.filename).parts)
    deprecated = issubclass(warning.category, DeprecationWarning) and bool(simulators)
    return deprecated or any(words in str(warning.message) for words in advice)


def test_all_tasks_are_registered_once():
    registered = {name for name in gymnasium.registry if name.startswith("grape/")}
    tasks = [(name, task.name) for name in suite_names() for task in get_suite(name).tasks]
    assert {grape.gymnasium.environment_id(*task) for task in tasks} == registered
    assert (
        gymnasium.spec("grape/metaworld-drawer-open-v0").max_episode_steps == get_suite("metaworld").tasks[0].max_steps
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grape.gymnasium.register_environments()


def test_registering_imports_no_simulator_and_the_module_form_registers():
    code = """
import sys, gymnasium
env = gymnasium.make("grape.gymnasium:grape/toy-reach-blue-v0")
print(env.reset(seed=1)[1]["instruction"], {"mujoco", "metaworld", "libero", "torch"} & set(sys.modules))
"""
    reply = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert reply.stdout.strip() == "reach the blue square set()"


def test_an_episode_is_the_suites_own():
    suite = get_suite("toy")
    task = suite.tasks[2]
    ours = suite.make_environment(task)
    env = gymnasium.make(grape.gymnasium.environment_id("toy", task.name))
    expert = suite.make_expert(task, "clean", 0)
    snapshot = ours.reset(7)
    observation, info = env.reset(seed=7)
    assert info["initial_state"] == 7
    terminated = truncated = False
    while not terminated:
        np.testing.assert_array_equal(observation["image"], snapshot.image)
        np.testing.assert_array_equal(observation["proprio"], snapshot.proprio)
        assert info["signals"] == snapshot.signals
        action, _ = expert.act(snapshot)
        snapshot = ours.step(action)
        observation, reward, terminated, truncated, info = env.step(action)
        assert (reward, terminated, truncated) == (float(snapshot.success), snapshot.success, False)
    assert info["success"] is True
    env.close()


def test_both_ways_give_the_same_states():
    """A task of ours as a Gymnasium environment, taken as a suite again, is the task."""
    suite, again = get_suite("toy"), get_suite("gym:grape.gymnasium:grape/toy-push-block-v0")
    task, (other,) = suite.tasks[2], again.tasks
    assert (other.instruction, other.max_steps) == (task.instruction, task.max_steps)
    assert again.proprio_dim == suite.proprio_dim
    one, two = suite.make_environment(task), again.make_environment(other)
    rng = np.random.default_rng(0)
    for state in (0, 5):
        first, second = one.reset(state), two.reset(state)
        for _ in range(4):
            signals = dict(second.signals)
            assert signals.pop("reward") == float(first.success)
            image = {"display": None}
            assert_same(_without(first, **image), _without(second, signals=signals, **image))
            if second.terminated:
                break
            action = rng.uniform(-1, 1, 7).astype(np.float32)
            first, second = one.step(action), two.step(action)
    two.close()


def _without(snapshot, **changes):
    return dataclasses.replace(snapshot, **changes)


def test_initial_states_by_seed_option_and_chance():
    env = gymnasium.make("grape/toy-reach-red-v0", initial_states="3,5,8")
    assert [env.reset(seed=seed)[1]["initial_state"] for seed in (0, 1, 2, 3)] == [3, 5, 8, 3]
    assert env.reset(options={"initial_state": 40})[1]["initial_state"] == 40
    env.reset(seed=0)
    assert {env.reset()[1]["initial_state"] for _ in range(40)} == {3, 5, 8}
    with pytest.raises(SettingsError, match="no initial state -1"):
        env.reset(options={"initial_state": -1})
    env.close()
    with pytest.raises(SettingsError, match="Initial state 1000000 of toy/reach-red does not exist"):
        gymnasium.make("grape/toy-reach-red-v0", initial_states="0-1000000")


def test_time_runs_out_as_in_the_suite():
    env = gymnasium.make("grape/toy-reach-red-v0")
    env.reset(seed=0)
    for step in range(8):
        _, _, terminated, truncated, info = env.step(np.zeros(7, np.float32))
        assert (terminated, truncated, info["success"]) == (False, step == 7, False)
    env.close()


def test_a_plugin_that_cannot_be_loaded_is_warned_of(monkeypatch):
    monkeypatch.setattr(gymnasium_tasks, "suite_names", lambda: ("toy", "broken"))

    def get(name):
        if name == "broken":
            raise SettingsError("it is broken")
        return get_suite(name)

    monkeypatch.setattr(gymnasium_tasks, "get_suite", get)
    with pytest.warns(UserWarning, match="suite 'broken' are left out: it is broken"):
        grape.gymnasium.register_environments()


def test_a_missing_gymnasium_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(SettingsError, match=r"grape-vla\[gymnasium\]"):
        grape.gymnasium.register_environments()
