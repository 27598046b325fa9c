"""Check of rendering: prints a JSON object about this machine's Vulkan device.

    python -m grape.envs.simpler.rendering

A broken driver may crash the process that queries it, hence a separate process.
"""

import json
import subprocess
import sys

from grape.core.errors import DataError, GrapeError, SimulatorError
from grape.core.reading import parse_json
from grape.envs.simpler.installation import VULKAN_HINT, render_device

__all__ = ["MODULE", "require_vulkan"]

MODULE = "grape.envs.simpler.rendering"
"""What to run: it prints ``{"device"}``, or ``{"failure", "hint"}``."""

_PATIENCE = 120.0  # seconds


def require_vulkan() -> None:
    """Make sure that a Vulkan device draws (2 s).

    Raises:
        SimulatorError: There is none, or its driver crashes.
    """
    try:
        reply = subprocess.run([sys.executable, "-m", MODULE], capture_output=True, text=True, timeout=_PATIENCE)
        answer = parse_json(reply.stdout.splitlines()[-1], "the answer")
    except (subprocess.TimeoutExpired, IndexError, DataError) as error:
        raise SimulatorError("The Vulkan driver crashes or hangs when it is asked to draw.", VULKAN_HINT) from error
    if "failure" in answer:
        raise SimulatorError(str(answer["failure"]), str(answer["hint"]))


def main() -> None:
    """Print the device, or why there is none."""
    try:
        answer = {"device": render_device()}
    except GrapeError as error:
        answer = {"failure": error.message, "hint": error.hint}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
