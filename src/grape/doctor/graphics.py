"""Checks of off-screen rendering: the graphics libraries, and one frame of a suite, rendered and looked at."""

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from grape.doctor.findings import Finding, ProbeReply, probe
from grape.envs.registry import GYMNASIUM_PREFIX
from grape.envs.simpler.installation import VULKAN_HINT
from grape.envs.simpler.rendering import MODULE

__all__ = ["BACKENDS", "check_frame", "check_libraries", "check_vulkan"]


def check_vulkan(timeout: float) -> Iterator[Finding]:
    """Which Vulkan device the simulator renders with; in a separate process, since a driver may crash it.

    Args:
        timeout: Seconds that the question may take.
    """
    reply = probe(("-m", MODULE), timeout)
    failure = reply.failure or str(reply.data.get("failure", ""))
    if failure:
        yield Finding("vulkan", "error", failure, str(reply.data.get("hint") or VULKAN_HINT))
    else:
        yield Finding("vulkan", "ok", str(reply.data.get("device", "a device of no name")))


BACKENDS: Mapping[str, tuple[str, ...]] = {
    "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6"),
    "egl": ("libEGL.so.1",),
}
"""Off-screen values of MUJOCO_GL, and the file names under which the loader knows their library."""

_MAIN = frozenset({"glfw", "cgl", "wgl", "", "on", "1", "true", "enable", "enabled"})
_DISABLED = frozenset({"off", "0", "false", "disable", "disabled"})

_INSTALL = "sudo apt-get install --no-install-recommends libosmesa6 libegl1 libgl1-mesa-dri"

_TESTED_RELEASES = (
    "Install the releases that the tests run with: make install, or pip install -c requirements/recorded.txt"
)

# Decisions slower than this point at shadows, multisampling or a contended machine: the suites' own settings take a
# fraction of it on a CPU.
SLOW_DECISION_SECONDS = 0.5

# Suites that draw with Vulkan: no other value of MUJOCO_GL helps them.
_WITHOUT_MUJOCO = "simpler_"

# Standard deviation of the image's values in [0, 255] below which it shows nothing: black, or any one color.
EMPTY_SPREAD = 1.0

_LIBRARY_PROBE = """
import ctypes, json, sys
loaded, why = "", []
for name in sys.argv[1:]:
    try:
        ctypes.CDLL(name)
    except OSError as error:
        why.append(str(error))
    else:
        loaded = name
        break
print(json.dumps({"loaded": loaded, "why": "; ".join(why)}))
"""


def load_library(backend: str, timeout: float) -> ProbeReply:
    """Try in a separate process whether a backend's library loads; ``data`` holds ``loaded`` and ``why`` not."""
    return probe(("-c", _LIBRARY_PROBE, *BACKENDS[backend]), timeout)


def check_libraries(timeout: float, needed: bool = True) -> Iterator[Finding]:
    """Which off-screen libraries load, and whether ``MUJOCO_GL`` asks for one that does.

    Args:
        timeout: Seconds to give each library.
        needed: Whether frames are to be rendered; without, nothing that is found here is an error.
    """
    for finding in _find_libraries(timeout):
        idle = finding.level == "error" and not needed
        yield (
            replace(finding, level="ok", found=f"{finding.found} (no installed simulator needs it)")
            if idle
            else finding
        )


def _find_libraries(timeout: float) -> Iterator[Finding]:
    if sys.platform != "linux":
        yield Finding("gl", "ok", f"{sys.platform} brings its own OpenGL")
        return
    replies = {backend: load_library(backend, timeout) for backend in BACKENDS}
    loaded = {backend: str(reply.data.get("loaded", "")) for backend, reply in replies.items()}
    for backend, reply in replies.items():
        selected = os.environ.get("MUJOCO_GL", "").lower() == backend
        if loaded[backend]:
            yield Finding(f"gl {backend}", "ok", f"{loaded[backend]} loads{' (MUJOCO_GL)' if selected else ''}")
            continue
        why = reply.failure or str(reply.data.get("why", ""))
        others = [other for other in BACKENDS if loaded[other]]
        if selected or not others:
            fix = _INSTALL + (f"; or use what is there: export MUJOCO_GL={others[0]}" if others else "")
            yield Finding(f"gl {backend}", "error", f"does not load: {why}", fix)
        else:
            yield Finding(f"gl {backend}", "ok", f"not there, not needed: {others[0]} is")
    finding = _judge_choice(os.environ.get("MUJOCO_GL", "").lower())
    if finding is not None:
        yield finding


def _judge_choice(choice: str) -> Finding | None:
    """What is wrong with a value of MUJOCO_GL that names no off-screen library."""
    fix = f"export MUJOCO_GL=osmesa (known off-screen: {', '.join(sorted(BACKENDS))})"
    if choice in BACKENDS or not choice:
        return None
    if choice in _DISABLED:
        return Finding("MUJOCO_GL", "error", f"{choice!r} switches rendering off", fix)
    if choice not in _MAIN:
        return Finding("MUJOCO_GL", "error", f"{choice!r} is no backend of MuJoCo", fix)
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return Finding("MUJOCO_GL", "error", f"{choice!r} draws in a window, and there is no screen", fix)
    return Finding("MUJOCO_GL", "warn", f"{choice!r} draws in a window; images may differ from off-screen ones", fix)


def check_frame(suite: str, timeout: float) -> Iterator[Finding]:
    """Render images of a suite in a separate process, check that they are not empty, and time them.

    Args:
        suite: Registered name of the suite.
        timeout: Seconds for creating the environment and taking two images.
    """
    name = f"frame {suite}"
    reply = _render(suite, timeout)
    if not reply.failure and not reply.data.get("failure"):
        for frame in (reply.data, *reply.data.get("further", ())):
            yield _judge_frame(name, frame)
        for caution in reply.data.get("cautions", ()):
            yield Finding(name, "warn", str(caution), "" if suite.startswith(GYMNASIUM_PREFIX) else _TESTED_RELEASES)
        return
    problem = f"cannot be rendered: {reply.failure or reply.data['failure']}"
    mujoco = not suite.startswith(_WITHOUT_MUJOCO)
    working = _find_backend(suite, timeout) if mujoco and reply.data.get("graphics", True) else ""
    if working:
        yield Finding(name, "error", problem, f"Another backend works: export MUJOCO_GL={working}")
    else:
        yield Finding(name, "error", problem, str(reply.data.get("hint") or (_INSTALL if mujoco else VULKAN_HINT)))


def _render(suite: str, timeout: float, environment: Mapping[str, str] | None = None) -> ProbeReply:
    return probe(("-m", "grape.doctor.frame", suite), timeout, environment)


def _judge_frame(name: str, data: Mapping[str, Any]) -> Finding:
    height, width, _ = data["shape"]
    step = data["step_seconds"]
    versions = ", ".join(f"{package} {version}" for package, version in data.get("versions", {}).items())
    description = (
        f"{data['task']}, {width}x{height}, brightness {data['mean']:.0f} of 255; environment made in "
        f"{data['create_seconds']:.1f} s, {1000 * step:.0f} ms a decision with image"
        f"{f'; {versions}' if versions else ''}"
    )
    if data["spread"] < EMPTY_SPREAD:
        return Finding(
            name,
            "error",
            f"{description}: the image is empty (all of one color)",
            "Try the other backend: export MUJOCO_GL=osmesa (or egl); update the graphics driver.",
        )
    if step > SLOW_DECISION_SECONDS:
        return Finding(
            name, "warn", f"{description}: slow", "Look for other programs on this machine's cores, then ask again."
        )
    return Finding(name, "ok", description)


def _find_backend(suite: str, timeout: float) -> str:
    """Another value of MUJOCO_GL under which a frame can be rendered; empty if none."""
    for backend in BACKENDS:
        if backend == os.environ.get("MUJOCO_GL", "").lower() or not load_library(backend, timeout).data.get("loaded"):
            continue
        reply = _render(suite, timeout, {"MUJOCO_GL": backend})
        if not reply.failure and not reply.data.get("failure") and reply.data["spread"] >= EMPTY_SPREAD:
            return backend
    return ""
