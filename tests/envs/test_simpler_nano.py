"""The WidowX suite with small images in ManiSkill: the same physics, like images, further initial states."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from grape.core.images import area_average
from grape.core.tasks import Task
from grape.envs.fast_rendering import box_downsample
from grape.envs.simpler.environment import WidowXEnvironment
from grape.envs.simpler.suite import WidowXSuite
from tests.envs import maniskill_assets
from tests.envs.snapshots import assert_same, run_expert
from tests.envs.test_simpler import actions, fingerprint, play

maniskill_assets.require()

CARROT, CUBES, SPOON, EGGPLANT = WidowXSuite("simpler_widowx_nano").tasks


@pytest.fixture(scope="module")
def environment() -> WidowXEnvironment:
    return WidowXEnvironment(CARROT)


def benchmark_task(task: Task) -> Task:
    return WidowXSuite("simpler_widowx").tasks[task.index]


@pytest.mark.parametrize("task", [CARROT, EGGPLANT], ids=lambda task: task.name)
def test_images_are_the_suites_shrunken_ones(task: Task) -> None:
    small, full = WidowXEnvironment(task), WidowXEnvironment(benchmark_task(task))
    for tiny, large in zip(play(small, 5, actions(2)), play(full, 5, actions(2)), strict=True):
        assert tiny.image.shape == (64, 64, 3)
        assert tiny.display is not None
        assert large.display is not None
        assert tiny.display.shape == (128, 128, 3)
        np.testing.assert_array_equal(tiny.image, box_downsample(tiny.display))
        expected = area_average(large.display, 64, 64).astype(int)
        assert np.abs(tiny.image - expected).mean() < 0.8  # of 255; measured 0.37 to 0.49
        for axis in (0, 1):  # moved by a pixel it would be 5.5 to 9.5
            assert np.abs(np.roll(tiny.image, 1, axis) - expected).mean() > 4.0
    small.close()
    full.close()


@pytest.mark.parametrize("task", [CARROT, EGGPLANT], ids=lambda task: task.name)
def test_without_images_episodes_are_the_suites_step_for_step(task: Task) -> None:
    small, full = WidowXEnvironment(task, images=False), WidowXEnvironment(benchmark_task(task), images=False)
    for one, expected in zip(play(small, 9, actions(5)), play(full, 9, actions(5)), strict=True):
        assert_same(one, expected)
    small.close()
    full.close()


def test_images_do_not_change_the_physics(environment: WidowXEnvironment) -> None:
    blind = WidowXEnvironment(CARROT, images=False)
    for one, seen in zip(play(blind, 40, actions(3)), play(environment, 40, actions(3)), strict=True):
        assert_same(dataclasses.replace(one, image=seen.image, display=seen.display, extra=seen.extra), seen)
    blind.close()


def test_a_further_state_is_the_same_whatever_came_before(environment: WidowXEnvironment) -> None:
    alone = play(environment, 31, actions(4))
    play(environment, 0, -actions(6))
    play(environment, 77, actions(6))
    other = WidowXEnvironment(CUBES)
    play(other, 31, actions(2))
    for one, expected in zip(play(environment, 31, actions(4)), alone, strict=True):
        assert_same(one, expected)
    other.close()


@pytest.mark.slow
def test_another_process_sees_the_same_further_state(environment: WidowXEnvironment) -> None:
    program = (
        "from tests.envs.test_simpler_nano import *\n"
        "print(fingerprint(play(WidowXEnvironment(CARROT), 1234, actions(3))))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=1800)
    assert answer.stdout.split()[-1] == fingerprint(play(environment, 1234, actions(3)))


@pytest.mark.parametrize("task", [CARROT, CUBES, SPOON, EGGPLANT], ids=lambda task: task.name)
def test_further_states_begin_with_things_at_rest_inside_their_area_and_apart(task: Task) -> None:
    environment = WidowXEnvironment(task, images=False)
    drawn = [environment.reset(state) for state in range(24, 34)]
    world = drawn[0].privileged["world"]
    margin = 0.05 if task == EGGPLANT else 0.004  # the one rolls in the sink, the others settle
    for index, name in enumerate(("object", "target")):
        places = world._scene.places[:, index]
        for point in (snapshot.keypoints[name] for snapshot in drawn):
            assert (point[:2] >= places.min(axis=0)[:2] - margin).all()
            assert (point[:2] <= places.max(axis=0)[:2] + margin).all()
            assert abs(point[2] - environment.reset(0).keypoints[name][2]) < 0.005
    ends = np.array([snapshot.keypoints["object_end_1"] - snapshot.keypoints["object"] for snapshot in drawn])
    assert np.ptp(np.arctan2(ends[:, 1], ends[:, 0])) > 3.0
    assert not any(snapshot.success or snapshot.signals["src_on_target"] for snapshot in drawn)
    environment.close()


@pytest.mark.slow
@pytest.mark.parametrize("task", [CARROT, CUBES, SPOON, EGGPLANT], ids=lambda task: task.name)
def test_clean_expert_solves_further_states(task: Task) -> None:
    suite = WidowXSuite("simpler_widowx_nano", images=False)
    environment = suite.make_environment(task)
    assert sum(run_expert(suite, task, environment, state)[-1].success for state in (24, 25, 26)) >= 2
    environment.close()
