"""Initial states are recognized by the scene that the simulator makes, under whatever name a suite offers it."""

from pathlib import Path

import pytest

from grape.collect import seen_states
from grape.envs.external_python import ExternalPythonSuite
from grape.envs.registry import get_suite, suite_names
from grape.envs.simpler.tasks import suite_tasks

KETCHUP = "pick_up_the_ketchup_and_place_it_in_the_basket"


@pytest.mark.parametrize(
    ("learned", "measured"), [("libero_object", "libero_object_2hz"), ("libero_object_2hz", "libero_object")]
)
def test_slower_decisions_start_from_the_same_states(learned: str, measured: str) -> None:
    known = {learned: {KETCHUP: frozenset({0, 1, 7, 20})}, "libero_goal": {KETCHUP: frozenset({5})}}
    assert seen_states(known, measured, [KETCHUP], range(10)) == {KETCHUP: (0, 1, 7)}
    assert seen_states(known, measured, [KETCHUP], range(30, 40)) == {}


def test_what_was_seen_under_both_names_counts_once() -> None:
    known = {"libero_object": {KETCHUP: frozenset({0})}, "libero_object_2hz": {KETCHUP: frozenset({2})}}
    assert seen_states(known, "libero_object", [KETCHUP], range(3)) == {KETCHUP: (0, 2)}


def test_other_words_change_no_scene_and_other_things_do() -> None:
    known = {"simpler_widowx": {"carrot-on-plate": frozenset(range(4))}}
    assert seen_states(known, "simpler_widowx_held3", ["carrot-on-plate"], (3, 4)) == {"carrot-on-plate": (3,)}
    words = [task.name for task in suite_tasks("simpler_widowx_semantic")]
    assert seen_states(known, "simpler_widowx_semantic", words, (3, 4)) == {
        "carrot-on-plate-reworded": (3,),
        "carrot-on-plate-described": (3,),
    }
    for suite in ("simpler_widowx_subject", "simpler_widowx_physical"):
        assert seen_states(known, suite, [task.name for task in suite_tasks(suite)], range(4)) == {}
    reworded = {"simpler_widowx_semantic": {"carrot-on-plate-reworded": frozenset({1})}}
    assert seen_states(reworded, "simpler_widowx", ["carrot-on-plate", "stack-cubes"], (1,)) == {
        "carrot-on-plate": (1,)
    }


def test_suites_that_are_not_installed_here_go_by_their_names() -> None:
    known = {"elsewhere": {"a": frozenset({1})}, "toy": {"gone": frozenset({2})}}
    assert seen_states(known, "elsewhere", ["a", "b"], (1, 2)) == {"a": (1,)}
    assert seen_states(known, "toy", ["gone"], (1, 2)) == {"gone": (2,)}


def test_a_base_task_is_a_task_and_its_own_base() -> None:
    for name in suite_names():
        suite = get_suite(name)
        for task in suite.tasks:
            base, task_name = suite.base_task(task)
            (origin,) = (other for other in get_suite(base).tasks if other.name == task_name)
            assert get_suite(base).base_task(origin) == (base, task_name)
            extra = name == "simpler_widowx_nano"  # which has the states of its base, and more
            assert (suite.n_initial_states(task) > get_suite(base).n_initial_states(origin)) == extra
            assert ExternalPythonSuite(suite, Path("python")).base_task(task) == (base, task_name)
