"""The releases that the bytes of an episode depend on, and where two machines differ."""

import importlib.metadata
import platform
from collections.abc import Mapping

import grape
from grape.envs.base import SuiteBase

__all__ = ["differences", "releases", "suite_releases"]

_DISTRIBUTIONS = ("numpy", "pyarrow")  # they write the values and the file


def releases() -> dict[str, str]:
    """GRAPE's, Python's and its packages' releases in this process, by name."""
    facts = {"grape": grape.__version__, "Python": ".".join(platform.python_version_tuple()[:2])}
    return facts | {name: importlib.metadata.version(name) for name in _DISTRIBUTIONS}


def suite_releases(suite: SuiteBase) -> dict[str, str]:
    """Releases of the packages that shape a suite's physics and images, by name.

    Raises:
        GrapeError: They are not installed.
    """
    return {f"{suite.name}'s {name}": version for name, version in suite.versions().items()}


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """What another machine has in another release, in words; empty where nothing differs that both name."""
    return ", ".join(
        f"{name} {there[name]} (here {release})"
        for name, release in here.items()
        if there.get(name, release) != release
    )
