"""Checks of the machine itself: interpreter, processor cores, memory, disk, graphics card."""

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

from packaging.specifiers import SpecifierSet

from grape.doctor.findings import Finding, probe, run_bounded

__all__ = ["check_cores", "check_disk", "check_gpu", "check_interpreter", "check_memory"]

GIB = 2**30

# Rules of thumb, not measurements: below the first number work is likely to be cut off, below the second it is tight.
MEMORY_GIB = (1.0, 4.0)
DISK_GIB = (1.0, 5.0)

_MOST_CARDS = 64

_TORCH_PROBE = """
import json, torch
cuda = torch.cuda.is_available()
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else []
print(json.dumps({"version": torch.__version__, "cuda_build": torch.version.cuda or "", "devices": names}))
"""


def check_interpreter(distribution: str = "grape-vla") -> Iterator[Finding]:
    """Whether this Python lies in the range that the distribution declares."""
    interpreter = f"{platform.python_implementation()} {platform.python_version()} on {platform.platform(terse=True)}"
    try:
        declared = importlib.metadata.metadata(distribution)["Requires-Python"]
    except importlib.metadata.PackageNotFoundError:
        declared = ""  # the check of the packages says that GRAPE is not installed
    if platform.python_version() in SpecifierSet(declared, prereleases=True):
        yield Finding("python", "ok", interpreter)
    else:
        yield Finding(
            "python",
            "error",
            f"{interpreter}; GRAPE needs Python {declared}",
            "Make the environment with another interpreter: make distclean install PYTHON=python3.11",
        )


def check_cores() -> Iterator[Finding]:
    """How many processor cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores >= 2:
        yield Finding("cores", "ok", f"{cores} usable")
    else:
        yield Finding(
            "cores", "warn", "1 usable: simulators and the policy take turns", "Use --workers 1; everything still runs."
        )


def check_memory(
    meminfo: Path = Path("/proc/meminfo"), limit: Path = Path("/sys/fs/cgroup/memory.max")
) -> Iterator[Finding]:
    """How much memory is free, and whether a container's limit lies below it.

    Args:
        meminfo: The kernel's table; without it (not Linux) nothing is checked.
        limit: The control group's limit in bytes, or ``max``.
    """
    try:
        table = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        total, available = (int(table[name].split()[0]) / (GIB / 1024) for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError, IndexError):
        yield Finding("memory", "ok", "not known on this system")
        return
    description = f"{available:.1f} GiB available of {total:.1f} GiB"
    try:
        ceiling = int(limit.read_text()) / GIB
    except (OSError, ValueError):
        ceiling = total
    if ceiling < total:
        description += f", limited to {ceiling:.1f} GiB for this container"
    yield _measured(
        "memory", min(available, ceiling), MEMORY_GIB, description, "Close other programs, or use fewer --workers."
    )


def check_disk(folder: Path) -> Iterator[Finding]:
    """How much disk is free where ``folder`` lies, and whether one may write there."""
    free = shutil.disk_usage(folder).free / GIB
    description = f"{free:.1f} GiB free at {folder.resolve()}"
    if not os.access(folder, os.W_OK):
        yield Finding(
            "disk", "error", f"{description}, but it cannot be written", "Work in a folder of your own, or use --out."
        )
    else:
        yield _measured("disk", free, DISK_GIB, description, "Free space, or write to another disk with --out.")


def _measured(name: str, amount: float, bounds: tuple[float, float], description: str, fix: str) -> Finding:
    if amount < bounds[0]:
        return Finding(name, "error", description, fix)
    if amount < bounds[1]:
        return Finding(name, "warn", description, fix)
    return Finding(name, "ok", description)


def check_gpu(timeout: float) -> Iterator[Finding]:
    """Whether torch imports, and which graphics cards it and the driver see. No card is no fault.

    Args:
        timeout: Seconds for each question asked.
    """
    cards = _driver_cards(timeout)
    try:
        importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        yield Finding("gpu", "ok", f"torch is not installed; the driver reports {', '.join(cards) or 'no NVIDIA card'}")
        return
    reply = probe(("-c", _TORCH_PROBE), timeout)
    if reply.failure:
        yield Finding(
            "torch",
            "error",
            f"import fails: {reply.failure}",
            "pip install --force-reinstall --no-deps torch; or: make distclean install",
        )
        return
    build = f"CUDA {reply.data['cuda_build']}" if reply.data.get("cuda_build") else "CPU"
    yield Finding("torch", "ok", f"{reply.data.get('version', 'of an unknown release')} ({build} build)")
    if reply.data.get("devices"):
        yield Finding("gpu", "ok", ", ".join(map(str, reply.data["devices"])))
    elif cards:
        yield Finding(
            "gpu",
            "warn",
            f"the driver reports {', '.join(cards)}, but torch cannot use it",
            "Install a CUDA build: make install TORCH_INDEX=URL; PyTorch's page on installing names the index.",
        )
    else:
        yield Finding("gpu", "ok", "none; the nano policy needs none")


def _driver_cards(timeout: float) -> list[str]:
    """Names and memory of the NVIDIA cards that the driver lists; empty without driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        code, output, _ = run_bounded([tool, "--query-gpu=name,memory.total", "--format=csv,noheader"], timeout)
    except OSError:
        return []
    return [line.strip() for line in output.splitlines() if line.strip()][:_MOST_CARDS] if code == 0 else []
