"""What stands beside every figure: the commit of the sources and the processor."""

import platform
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent


def commit() -> str:
    """Commit of the sources, with a mark if files of the package or the benchmarks differ from it."""
    command = ["git", "-C", str(HERE), "describe", "--always", "--abbrev=40", "--exclude", "*"]
    changed = ["git", "-C", str(HERE.parent), "status", "--porcelain", "--", "src", "benchmarks"]
    try:
        name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        dirty = subprocess.run(changed, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{name}, with changes" if dirty else name


def processor() -> str:
    """Name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
