"""One call of a policy's ``act``: what it raises and what it gives are told as the policy's faults."""

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from grape.core.errors import GrapeError, PolicyError
from grape.core.trajectories import Observation
from grape.policies.action_conventions import check_batch
from grape.policies.base import FIX_POLICY, ActionBatch, Policy, PolicySpec

__all__ = ["decide"]


def decide(
    policy: Policy,
    spec: PolicySpec,
    observations: Sequence[Observation],
    *,
    where: str,
    temperature: float = 0.0,
    seeds: Sequence[int] | None = None,
) -> ActionBatch:
    """Let a policy decide, and check what it gives.

    Args:
        policy: The policy.
        spec: Its contract.
        observations: As for :meth:`Policy.act`.
        where: Which decision of which episode this is, for messages.
        temperature: As for :meth:`Policy.act`.
        seeds: As there.

    Raises:
        PolicyError: A policy of another distribution raises an exception that is none of the project's, or decisions
            are not what the contract says.
    """
    try:
        batch = policy.act(observations, temperature=temperature, seeds=seeds)
    except (GrapeError, MemoryError):
        raise
    except Exception as error:
        if type(policy).__module__.startswith("grape."):
            raise
        raise PolicyError(
            f"{type(policy).__name__}.act raised {type(error).__name__}: {str(error) or 'no message'} "
            f"({_place(error, policy)}), at {where}.",
            _advice(error),
        ) from error
    check_batch(batch, spec, len(observations))
    return batch


def _advice(error: Exception) -> str:
    """What to do about an exception; memory and connections are no faults of an implementation."""
    if "out of memory" in str(error).lower():
        return "Give fewer --lanes, or the policy more memory."
    if isinstance(error, OSError):
        return "See whether what the policy needs (a server, a file, a device) is there, then run the command again."
    return FIX_POLICY


def _place(error: Exception, policy: Policy) -> str:
    """File and line where the exception passed through the policy's own module last, else where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    own_file = getattr(sys.modules.get(type(policy).__module__), "__file__", None)
    frame = next((frame for frame in reversed(frames) if frame.filename == own_file), frames[-1])
    return f"{Path(frame.filename).name}, line {frame.lineno}"
