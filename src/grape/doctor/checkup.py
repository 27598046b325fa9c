"""The verb ``doctor``: runs all checks in order and summarizes them."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.errors import DataError, SettingsError, require_known
from grape.core.events import SILENT, Reporter
from grape.core.settings import Range, check_ranges, setting
from grape.doctor.findings import Finding
from grape.doctor.graphics import check_frame, check_libraries, check_vulkan
from grape.doctor.machine import check_cores, check_disk, check_gpu, check_interpreter, check_memory
from grape.doctor.packages import check_packages, is_installed
from grape.envs.registry import GYMNASIUM_PREFIX, suite_names
from grape.envs.simpler.installation import asset_folder
from grape.envs.toy import SUITES as TOY_SUITES

__all__ = ["DoctorSettings", "check_assets", "run_doctor"]


def check_assets(needed: bool) -> Iterator[Finding]:
    """Where the assets are, or the command that downloads them.

    Args:
        needed: Whether SimplerEnv was asked about, so that it is an error if they are missing.
    """
    try:
        yield Finding("simpler assets", "ok", str(asset_folder()))
    except DataError as error:
        yield Finding("simpler assets", "error" if needed else "warn", error.message, error.hint)


# Suites that need no simulator from an extra.
_BUILT_IN_SUITES = frozenset(TOY_SUITES)

_USUAL = "metaworld"

# Families of suites that share an extra, and what their name stands for.
_FAMILIES = {
    "libero": ("libero_spatial", "libero_object", "libero_goal", "libero_10"),
    "simpler": ("simpler_widowx",),
}


@dataclass(frozen=True)
class DoctorSettings:
    """Look at this machine and say how to fix what is missing.

    Attributes:
        suite: The simulators you want to work with, e.g. "metaworld" or "libero_goal,libero_10"; "libero" means
            LIBERO's four suites of ten tasks, "simpler" SimplerEnv's simpler_widowx. Their packages and an image of
            each one's first task (of each task of simpler_widowx) are then required, those of others optional.
            gym:ID is any Gymnasium environment. Left out: metaworld where it is installed, otherwise none.
        frame: Render one image of the suite and check that it is not empty; --no-frame skips that (a few seconds).
        folder: Where you want to write results: its free disk space is checked.
        timeout: Seconds that a single probe (a library, a frame, torch) may take before it counts as hung, above 0.
    """

    suite: str = setting("", common=True)
    frame: bool = setting(True, common=True)
    folder: Path = setting(Path("."), common=True)
    timeout: float = setting(120.0, range=Range(0, open_low=True), common=True)


def run_doctor(settings: DoctorSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Run all checks.

    Args:
        settings: What to look at.
        reporter: Receives the progress; the findings are in the answer.

    Returns:
        ``ok`` (no finding is an error), ``errors`` and ``warnings`` (how many), ``suite``, and ``findings``: a list of
        ``{"name", "level", "found", "fix"}`` in the order of the checks.

    Raises:
        SettingsError: The suite is unknown, the folder does not exist, or the time limit is not above 0.
    """
    suites = _suites_of(settings)
    needed = frozenset(map(_extra_of, suites)) - _BUILT_IN_SUITES if settings.frame else frozenset[str]()
    timeout = settings.timeout
    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("interpreter", check_interpreter),
        ("packages", lambda: check_packages(needed)),
        ("graphics libraries", lambda: check_libraries(timeout, bool(needed - {"simpler", "gymnasium"}))),
        *[("Vulkan", lambda: check_vulkan(timeout)) for _ in needed & {"simpler"}],
        *[("assets", lambda: check_assets("simpler" in needed)) for _ in ("simpler",) if is_installed("simpler")],
        *[
            (f"a frame of {suite}", functools.partial(check_frame, suite, timeout))
            for suite in suites
            if settings.frame
        ],
        ("disk", lambda: check_disk(settings.folder)),
        ("memory", check_memory),
        ("cores", check_cores),
        ("torch and GPU", lambda: check_gpu(timeout)),
    ]
    findings: list[Finding] = []
    with reporter.progress("Checks", len(checks)) as progress:
        for title, check in checks:
            findings += check()
            progress.advance(note=title)
    count = {level: sum(finding.level == level for finding in findings) for level in ("warn", "error")}
    return {
        "ok": count["error"] == 0,
        "errors": count["error"],
        "warnings": count["warn"],
        "suite": ",".join(suites),
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }


def _suites_of(settings: DoctorSettings) -> tuple[str, ...]:
    """The suites to look at, after a check of all settings."""
    check_ranges(settings)
    names = suite_names()
    suites: list[str] = []
    for name in _chosen(settings.suite):
        if not name.strip().startswith(GYMNASIUM_PREFIX):
            require_known("suite", name.strip(), (*names, *_FAMILIES))
        suites += _FAMILIES.get(name.strip(), (name.strip(),))
    if not settings.folder.is_dir():
        raise SettingsError(f"--folder {settings.folder} is no folder.", "Name one that exists.")
    return tuple(dict.fromkeys(suites))


def _chosen(names: str) -> list[str]:
    """The suites to check: those named, or else the default one if its simulator is installed."""
    if not names.strip():
        return [_USUAL] if is_installed(_USUAL) else []
    return names.split(",")


def _extra_of(suite: str) -> str:
    """Extra of the distribution that installs a suite's simulator."""
    if suite.startswith(GYMNASIUM_PREFIX):
        return "gymnasium"
    return next((family for family in _FAMILIES if suite.startswith(f"{family}_")), suite)
