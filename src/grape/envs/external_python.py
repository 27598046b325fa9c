"""External Python interpreters for simulators: how workers are started, and checks before the first rollout.

Some simulators need packages that cannot be installed beside GRAPE's, such as an old numpy. Their workers run in an
external interpreter and use the same wire protocol (:mod:`grape.envs.messages`).
"""

import functools
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.child_processes import SINGLE_THREADED, search_path
from grape.core.errors import DataError, GrapeError, SettingsError, SimulatorError
from grape.core.reading import parse_json
from grape.core.tasks import ActionSpace, Task
from grape.envs.base import Environment, Expert, SuiteBase
from grape.envs.registry import get_suite

__all__ = ["OLDEST", "ExternalPythonSuite", "Probe", "probe_interpreter", "suite_of", "worker_command"]

OLDEST = (3, 9)
"""The oldest Python that the worker's side runs on."""

_MAIN = Path(__file__).with_name("external_main.py")
_VERSION_SECONDS = 30.0
_PROBE_SECONDS = 180.0  # importing a simulator from a cold disk takes long
_QUOTED = 2000  # characters of standard error that are quoted


@dataclass(frozen=True)
class Probe:
    """Reply of an external interpreter about a suite.

    Attributes:
        versions: Versions of the packages that shape physics and images there.
        cautions: What makes results differ from published ones, in sentences.
    """

    versions: Mapping[str, str]
    cautions: tuple[str, ...]


def worker_command(python: Path | None, descriptor: int, suite_name: str) -> tuple[Sequence[str], Mapping[str, str]]:
    """Command line and environment of a worker.

    Args:
        python: Another interpreter, or None for this one.
        descriptor: File descriptor of its socket.
        suite_name: Registered name of the suite.
    """
    tail = [str(descriptor), suite_name, str(os.getpid())]
    if python is not None:
        return [str(python), str(_MAIN), "serve", *tail], _environment()
    return [sys.executable, "-P", "-m", "grape.envs.worker", *tail], os.environ | SINGLE_THREADED | search_path()


def _environment() -> dict[str, str]:
    """Environment variables for an external interpreter: without those that point to this one's packages."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return inherited | SINGLE_THREADED | {"PYTHONDONTWRITEBYTECODE": "1"}


@functools.cache
def probe_interpreter(python: Path, suite_name: str) -> Probe:
    """Import a suite's simulator in an external interpreter, to find problems before the first rollout.

    What it said is remembered, since a loop asks at every stage; what went wrong is not.

    Args:
        python: The interpreter.
        suite_name: Registered name of the suite.

    Raises:
        SettingsError: There is no such program, it is too old a Python, or packages are missing there.
        SimulatorError: It dies or hangs; the end of its standard error is quoted.
    """
    version = _version(python)
    if version < OLDEST:
        raise SettingsError(
            f"--env-python {python} is Python {version[0]}.{version[1]}; workers need {OLDEST[0]}.{OLDEST[1]} on.",
            "Make the simulator's environment with a newer Python.",
        )
    finished = _run([str(python), str(_MAIN), "probe", suite_name], python, _PROBE_SECONDS)
    name = f"--env-python {python} (Python {version[0]}.{version[1]})"
    try:
        answer = parse_json(finished.stdout.strip().splitlines()[-1], "the answer")
    except (DataError, IndexError):
        ended = (
            f"was killed by signal {-finished.returncode}"
            if finished.returncode < 0
            else f"left with {finished.returncode}"
        )
        raise SimulatorError(
            f"{name} {ended} while it imported the simulator of suite '{suite_name}'. {_quoted(finished.stderr)}",
            f"See for yourself: {python} {_MAIN} probe {suite_name}",
        ) from None
    if "missing" in answer:
        raise SettingsError(
            f"{name} lacks the package {answer['missing']!r}, which workers need.",
            f"{python} -m pip install {answer['missing']}",
        )
    if "failure" in answer:
        kind = SettingsError if answer["exit_code"] == 2 else SimulatorError
        words = "" if answer["exit_code"] == 2 else f" {_quoted(finished.stderr)}"
        raise kind(f"{name}: {answer['failure']}{words}", answer["hint"])
    return Probe(answer["versions"], tuple(answer["cautions"]))


def _version(python: Path) -> tuple[int, int]:
    finished = _run(
        [str(python), "-c", "import sys; print(sys.version_info[0], sys.version_info[1])"], python, _VERSION_SECONDS
    )
    try:
        major, minor = map(int, finished.stdout.split())
    except ValueError:
        raise SettingsError(
            f"--env-python {python} is no Python interpreter that works. {_quoted(finished.stderr)}",
            "Give the path of an interpreter, e.g. /opt/simpler/bin/python.",
        ) from None
    return major, minor


def _run(command: Sequence[str], python: Path, seconds: float) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            command,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            text=True,
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SimulatorError(
            f"--env-python {python} gave no answer for {seconds:g} s.", "Does this program wait for something?"
        ) from error
    except OSError as error:
        raise SettingsError(
            f"--env-python {python} cannot be run: {error.strerror or error}.",
            "Give the path of a Python interpreter, e.g. /opt/simpler/bin/python.",
        ) from error


def _quoted(text: str) -> str:
    return f"End of its stderr: {text.strip()[-_QUOTED:]}" if text.strip() else "It printed nothing."


class ExternalPythonSuite(SuiteBase):
    """A suite whose simulator runs in an external interpreter.

    What needs no simulator is asked of the suite in this interpreter; what looks at the installation (versions,
    cautions, whether it can be imported) of the other one.

    Args:
        suite: The suite as this interpreter knows it.
        python: The other interpreter.
    """

    def __init__(self, suite: SuiteBase, python: Path) -> None:
        self._suite = suite
        self._python = python

    @property
    def name(self) -> str:
        return self._suite.name

    @property
    def tasks(self) -> tuple[Task, ...]:
        return self._suite.tasks

    @property
    def action_space(self) -> ActionSpace:
        return self._suite.action_space

    @property
    def proprio_dim(self) -> int | None:
        return self._suite.proprio_dim

    @property
    def cameras(self) -> tuple[str, ...]:
        return self._suite.cameras

    @property
    def conventions(self) -> Mapping[str, Any]:
        return self._suite.conventions

    @property
    def operators(self) -> tuple[str, ...]:
        return self._suite.operators

    def n_initial_states(self, task: Task) -> int:
        return self._suite.n_initial_states(task)

    def about_initial_states(self, task: Task) -> str:
        return self._suite.about_initial_states(task)

    def base_task(self, task: Task) -> tuple[str, str]:
        """Suite and name of the task whose initial states are this task's."""
        return self._suite.base_task(task)

    @property
    def cost_specifications(self) -> Path | None:
        return self._suite.cost_specifications

    def tasks_to_look_at(self) -> tuple[Task, ...]:
        return self._suite.tasks_to_look_at()

    def check_expert(self, task: Task) -> None:
        self._suite.check_expert(task)

    def versions(self) -> Mapping[str, str]:
        return self._probe.versions

    def cautions(self) -> tuple[str, ...]:
        return self._probe.cautions

    def check(self) -> None:
        self._probe  # noqa: B018 (asking is the check)

    def load(self) -> None:
        self.check()

    def make_environment(self, task: Task) -> Environment:
        """Environments are made by workers.

        Raises:
            GrapeError: Always.
        """
        raise GrapeError(f"Environments of {task.id} run in {self._python}, not in this process.")

    def make_expert(self, task: Task, operator: str, seed: int) -> Expert:
        """Experts live beside their environments.

        Raises:
            GrapeError: Always.
        """
        raise GrapeError(f"Experts of {task.id} run in {self._python}, not in this process.")

    @property
    def _probe(self) -> Probe:
        return probe_interpreter(self._python, self.name)


def suite_of(name: str, python: Path | None) -> SuiteBase:
    """The suite, with its simulator in this interpreter or in an external one.

    Args:
        name: Registered name.
        python: The other interpreter, or None.

    Raises:
        SettingsError: The name is unknown.
    """
    suite = get_suite(name)
    return suite if python is None else ExternalPythonSuite(suite, python)
