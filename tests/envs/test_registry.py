import subprocess
import sys
from importlib import metadata

import pytest

from grape.core.errors import SettingsError
from grape.envs.registry import get_suite, select_tasks, suite_names


def names(selection: str, suite: str = "metaworld") -> list[str]:
    return [task.name for task in select_tasks(get_suite(suite), selection)]


def test_builtin_suites_are_listed_and_loaded() -> None:
    assert {"metaworld", "toy"} <= set(suite_names())
    for name in ("metaworld", "toy"):
        suite = get_suite(name)
        assert suite.name == name
        assert [task.index for task in suite.tasks] == list(range(len(suite.tasks)))
        assert {task.suite for task in suite.tasks} == {name}
        assert suite.action_space.dim == 7


def test_unknown_suite_suggests_the_close_one() -> None:
    with pytest.raises(SettingsError, match="Did you mean 'metaworld'"):
        get_suite("meta-world")


def test_metaworld_tasks_are_the_agreed_ones() -> None:
    suite = get_suite("metaworld")
    assert [(task.name, task.instruction) for task in suite.tasks] == [
        ("drawer-open", "open the drawer"),
        ("faucet-open", "turn on the faucet"),
        ("button-press", "press the button"),
        ("drawer-close", "close the drawer"),
        ("door-open", "open the door"),
        ("window-open", "open the window"),
        ("reach", "reach the red target"),
        ("push", "push the puck to the target"),
        ("pick-place", "pick up the puck and move it to the target"),
    ]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("0,2", ["drawer-open", "button-press"]),
        ("2, 0, 2", ["drawer-open", "button-press"]),
        ("0-2", ["drawer-open", "faucet-open", "button-press"]),
        ("faucet-open,drawer-open", ["drawer-open", "faucet-open"]),
        ("7-8,reach", ["reach", "push", "pick-place"]),
    ],
)
def test_selection(selection: str, expected: list[str]) -> None:
    assert names(selection) == expected


def test_empty_selection_is_everything() -> None:
    assert len(names("")) == 9


@pytest.mark.parametrize("selection", ["9", "0-9", "2-1", "0,,1", "-1", "0;1"])
def test_selection_that_does_not_fit_is_refused(selection: str) -> None:
    with pytest.raises(SettingsError):
        names(selection)


def test_misspelled_task_suggests_the_close_one() -> None:
    with pytest.raises(SettingsError, match="Did you mean 'drawer-open'"):
        names("draweropen")


def test_broken_plugin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    point = metadata.EntryPoint("broken", "no_such_module_of_anyone:Suite", "grape.suites")

    def entry_points(**selection: str) -> metadata.EntryPoints:
        return metadata.EntryPoints([point]).select(**selection)

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    assert "broken" in suite_names()
    with pytest.raises(SettingsError, match="no_such_module_of_anyone"):
        get_suite("broken")


def test_plugin_suite_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    point = metadata.EntryPoint("other", "grape.envs.toy:ToySuite", "grape.suites")
    monkeypatch.setattr(metadata, "entry_points", lambda **selection: metadata.EntryPoints([point]).select(**selection))
    assert get_suite("other").name == "toy"


def test_a_plugin_that_makes_no_suite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    point = metadata.EntryPoint("other", "builtins:dict", "grape.suites")
    monkeypatch.setattr(metadata, "entry_points", lambda **selection: metadata.EntryPoints([point]).select(**selection))
    with pytest.raises(SettingsError, match=r"(?s)makes no grape\.envs\.base\.SuiteBase.*Derive"):
        get_suite("other")


def test_asking_for_suites_imports_neither_simulator_nor_torch() -> None:
    code = (
        "import sys; from grape.envs.registry import get_suite; import grape.envs.pool; "
        "[get_suite(name).tasks for name in ('metaworld', 'toy')]; "
        "print(sorted({'mujoco', 'metaworld', 'gymnasium', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
