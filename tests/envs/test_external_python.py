"""Workers in another Python interpreter: the same episodes, and clear errors before the first of them."""

import ast
import json
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from grape.cli.main import main
from grape.collect import CollectSettings, run_collect
from grape.core.errors import SettingsError, SimulatorError
from grape.envs import external_python
from grape.envs.base import SuiteBase
from grape.envs.external_python import OLDEST, probe_interpreter, suite_of
from grape.envs.registry import get_suite, missing_state_hint
from tests.collect.test_collect import store_bytes
from tests.envs.other_python import OTHER_PYTHON, needs_other_python, say, with_packages

SOURCES = Path(external_python.__file__).parents[1]
# Tells a version that is new enough, and then comes to a bad end.
DIES = '[ "$1" = -c ] && echo 3 9 || {{ echo "cannot open libfoo.so" >&2; {}; }}'


def program(folder: Path, script: str) -> Path:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@needs_other_python
def test_the_other_interpreter_is_another_one() -> None:
    python, numpy = say(OTHER_PYTHON, "import sys, numpy; print(sys.version_info[1], numpy.__version__)").split()
    assert numpy.startswith("1.26")
    assert int(python) <= 12
    assert np.__version__ != numpy


@needs_other_python
def test_episodes_of_the_other_interpreter_are_the_same_to_the_byte(tmp_path: Path) -> None:
    def collect(name: str, python: Path | None) -> dict[str, str]:
        settings = CollectSettings(
            tmp_path / name,
            suite="toy",
            initial_states="0-2",
            operators="sloppy",
            lanes=3,
            workers=2,
            env_python=python,
        )
        run_collect(settings)
        return store_bytes(settings.out)

    episodes = collect("elsewhere", OTHER_PYTHON)
    assert len(episodes) == 9
    assert episodes == collect("here", None)


@needs_other_python
def test_nothing_heavy_or_of_other_rooms_is_imported_there(tmp_path: Path) -> None:
    code = (
        "import sys, runpy; sys.argv = ['x', 'probe', 'toy']\n"
        f"try: runpy.run_path({str(SOURCES / 'envs' / 'external_main.py')!r}, run_name='__main__')\n"
        "except SystemExit: print(); print(*sorted(m for m in sys.modules if m.startswith('grape.')))\n"
        "print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    *_, ours, everything = say(OTHER_PYTHON, code).splitlines()
    assert {name.split(".")[1] for name in ours.split()} == {"core", "envs"}
    assert {"torch", "scipy", "yaml", "rich", "PIL"}.isdisjoint(everything.split())


def modules_of_workers() -> set[Path]:
    """Files of ours that workers of suites for other interpreters import, found with this one."""
    code = (
        "import sys; import grape.envs.worker; from grape.envs.registry import get_suite; get_suite('toy')\n"
        "suite = get_suite('simpler_widowx-v0'); suite.make_environment(suite.tasks[0])\n"
        "print(*(m.__file__ for n, m in list(sys.modules.items()) if n.partition('.')[0] == 'grape'))"
    )
    environment = {"PYTHONPATH": str(SOURCES.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return {Path(name) for name in done.stdout.split()} | {SOURCES / "envs" / "external_main.py"}


def test_the_workers_side_is_written_for_old_interpreters() -> None:
    files = sorted(modules_of_workers())
    expected = {"messages.py", "worker.py", "external_main.py", "registry.py", "environment.py"}
    assert {file.name for file in files} >= expected
    for file in files:
        ast.parse(file.read_text(), feature_version=OLDEST)
    # Unions in annotations need the future import there.
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--target-version",
        "py39",
        "--select",
        "F,E9,FA102",
    ]
    done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    for file in files:
        assert_no_newer_calls(file)


def assert_no_newer_calls(file: Path) -> None:
    """Calls that parse under Python 3.9 and fail when they run."""
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        keywords = {keyword.arg for keyword in node.keywords}
        assert not (name == "zip" and "strict" in keywords), f"{file}:{node.lineno}"
        assert not (name.endswith("dataclass") and keywords & {"slots", "kw_only"}), f"{file}:{node.lineno}"
        if name == "isinstance":
            unions = [part for part in ast.walk(node.args[1]) if isinstance(part, ast.BinOp)]
            assert not unions, f"{file}:{node.lineno}"


def test_a_suite_in_another_interpreter_knows_its_tasks_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_python, "_run", None)
    suite, ours = suite_of("toy", Path("/nowhere/python")), get_suite("toy")
    assert (suite.name, suite.tasks, suite.operators) == (ours.name, ours.tasks, ours.operators)
    assert suite.action_space == ours.action_space
    assert suite.n_initial_states(suite.tasks[0]) == ours.n_initial_states(ours.tasks[0])


def test_a_suite_in_an_external_interpreter_forwards_every_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each member of the base class is answered by the suite itself or by the other interpreter, never by a default."""
    members = {name for name in vars(SuiteBase) if not name.startswith("_")}
    assert members <= set(vars(external_python.ExternalPythonSuite))
    monkeypatch.setattr(external_python, "_run", None)
    for name in ("simpler_widowx", "libero_90", "toy"):
        ours, theirs = get_suite(name), suite_of(name, Path("/nowhere/python"))
        assert theirs.tasks_to_look_at() == ours.tasks_to_look_at()
        task = ours.tasks[0]
        assert theirs.about_initial_states(task) == ours.about_initial_states(task)
        assert missing_state_hint(theirs, task) == missing_state_hint(ours, task)
    assert len(suite_of("simpler_widowx", Path("/nowhere/python")).tasks_to_look_at()) == 4


def test_a_suite_in_another_interpreter_knows_which_tasks_have_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_python, "_run", None)
    suite = suite_of("libero_90", Path("/nowhere/python"))
    with pytest.raises(SettingsError, match="libero_90"):
        suite.check_expert(suite.tasks[0])


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        ("exit 0", SettingsError, "is no Python interpreter"),
        ("echo 3 8", SettingsError, "is Python 3.8; workers need 3.9"),
        (
            '[ "$1" = -c ] && echo 3 9 || { echo "cannot open libfoo.so" >&2; kill -9 $$; }',
            SimulatorError,
            "killed by signal 9",
        ),
        (
            '[ "$1" = -c ] && echo 3 9 || { echo "cannot open libfoo.so" >&2; exit 3; }',
            SimulatorError,
            "cannot open libfoo",
        ),
    ],
    ids=["no-python", "too-old", "killed", "dies"],
)
def test_what_is_wrong_with_an_interpreter_is_said(
    tmp_path: Path, script: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        probe_interpreter(program(tmp_path, script), "toy")


def test_a_missing_interpreter_and_one_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="cannot be run: No such file"):
        probe_interpreter(tmp_path / "nothing", "toy")
    monkeypatch.setattr(external_python, "_VERSION_SECONDS", 0.2)
    with pytest.raises(SimulatorError, match=r"gave no answer for 0\.2 s"):
        probe_interpreter(program(tmp_path, "exec sleep 30"), "toy")


@needs_other_python
def test_packages_that_are_missing_there_are_named(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([str(OTHER_PYTHON), "-m", "venv", "--without-pip", str(bare)], check=True)
    with pytest.raises(SettingsError, match="lacks the package 'numpy'") as error:
        probe_interpreter(bare / "bin" / "python", "toy")
    assert "-m pip install numpy" in error.value.hint


@needs_other_python
def test_a_package_that_kills_the_worker_at_import_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("import os, sys; sys.stderr.write('GLX is broken here'); os._exit(7)")
    with pytest.raises(SimulatorError, match=r"left with 7 while .* GLX is broken here"):
        probe_interpreter(with_packages(tmp_path, tmp_path), "toy")


@needs_other_python
def test_the_command_ends_with_a_sentence_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["collect", "--suite", "metaworld", "--tasks", "0", "--out", str(tmp_path / "run")]
    assert main([*words, "--env-python", str(OTHER_PYTHON), "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert "suite 'metaworld' cannot be loaded there" in answer["error"] or "lacks the package" in answer["error"]
    assert not (tmp_path / "run").exists()
