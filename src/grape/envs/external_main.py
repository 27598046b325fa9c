"""Entry point in an external Python interpreter: finds this package, and serves a pool or answers a probe.

    python .../grape/envs/external_main.py serve SOCKET SUITE PARENT
    python .../grape/envs/external_main.py probe SUITE

Only the package ``grape`` becomes importable, by its own folder: what is installed beside it (another numpy, above all)
stays out of reach. Of GRAPE this imports ``grape.core`` and ``grape.envs`` alone, which is why the modules on that way
keep to Python 3.9 and numpy 1.26; the tests hold them to it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grape.envs.base import SuiteBase

__all__ = ["main"]

_OURS = (3, 11)
"""What suites that were not made for other interpreters are written for."""


def main(arguments: list[str]) -> int:
    """Serve until the parent process ends, or print one JSON object about a suite; returns the exit status."""
    _make_importable()
    kind, rest = arguments[0], arguments[1:]
    if kind == "serve":
        from grape.envs.worker import main as serve

        serve(rest)
        return 0
    answer = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # simulators print banners to stdout
        reply = _probe(rest[0])
    answer.write("\n" + json.dumps(reply) + "\n")
    return 0


def _make_importable() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    package = os.path.dirname(here)
    # Python put this file's folder in front; its modules have common names.
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]
    spec = importlib.util.spec_from_file_location(
        "grape", os.path.join(package, "__init__.py"), submodule_search_locations=[package]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["grape"] = module
    spec.loader.exec_module(module)


def _probe(suite_name: str) -> dict[str, Any]:
    """Versions and cautions of a suite here, or what is wrong."""
    try:
        from grape.core.errors import GrapeError
        from grape.envs.registry import get_suite

        try:
            suite = _suite(get_suite, suite_name)
            versions = dict(suite.versions())
            suite.check()
            suite.load()
            return {"versions": versions, "cautions": list(suite.cautions())}
        except GrapeError as error:
            return {"failure": error.message, "hint": error.hint, "exit_code": error.exit_code}
    except ModuleNotFoundError as error:
        return {"missing": error.name}
    except Exception as error:
        traceback.print_exc()
        return {"failure": f"{type(error).__name__}: {error}", "hint": "", "exit_code": 1}


def _suite(get_suite: Callable[[str], SuiteBase], name: str) -> SuiteBase:
    """The suite, or an error that speaks of Python's age where that may be why it cannot be imported."""
    from grape.core.errors import GrapeError, SettingsError

    try:
        return get_suite(name)
    except (GrapeError, ModuleNotFoundError):
        raise
    except Exception as error:
        if sys.version_info >= _OURS:
            raise
        raise SettingsError(
            f"suite '{name}' cannot be loaded there ({type(error).__name__}: {error}); it may need a newer Python.",
            f"Name an interpreter of Python {_OURS[0]}.{_OURS[1]} or newer.",
        ) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
