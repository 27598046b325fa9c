"""Whether a Vulkan device draws, which SimplerEnv's simulator needs."""

from collections.abc import Iterator

from grape.doctor.findings import Finding
from grape.doctor.subprocesses import probe
from grape.envs.simpler.installation import VULKAN_HINT
from grape.envs.simpler.rendering import MODULE

__all__ = ["check_vulkan"]


def check_vulkan(timeout: float) -> Iterator[Finding]:
    """Which Vulkan device the simulator draws with; a driver may take the process that asks with it.

    Args:
        timeout: Seconds that the question may take.
    """
    reply = probe(("-m", MODULE), timeout)
    failure = reply.failure or str(reply.data.get("failure", ""))
    if failure:
        yield Finding("vulkan", "error", failure, str(reply.data.get("hint") or VULKAN_HINT))
    else:
        yield Finding("vulkan", "ok", str(reply.data.get("device", "a device of no name")))
