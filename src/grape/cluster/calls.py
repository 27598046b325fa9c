"""Actors that compute functions, call after call, on any node."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grape.cluster.actors import change_folder
from grape.cluster.releases import differences, releases
from grape.cluster.session import node_address
from grape.core.errors import CompatibilityError

__all__ = ["Call", "CallActor", "CallStarter"]

Call = Callable[[Any], Any]

_LONGEST_REASON = 1500  # characters of what Ray says about an actor that is gone


class _Caller:
    """What runs on the node: arguments come one after the other.

    Args:
        wrap: Called with the function and each argument.
        folder: Working directory of the driver, where this node has it.
        expected: Releases that this node must have: it may have joined after the nodes were looked at.
    """

    def __init__(self, wrap: Callable[[Call, Any], Any], folder: str, expected: Mapping[str, str]) -> None:
        change_folder(folder)
        self._wrap = wrap
        self._function: Call | None = None
        text = differences(expected, releases())
        self._refusal = f"The node {node_address()} has other releases: {text}." if text else ""

    def begin(self, function: Call) -> None:
        self._function = function

    def call(self, argument: Any) -> Any:
        if self._refusal:
            raise CompatibilityError(self._refusal, "Install the same releases on all nodes.")
        assert self._function is not None
        return self._wrap(self._function, argument)


class CallActor:
    """An actor for functions whose arguments and results pass through Ray, so that they should be small.

    Args:
        wrap: Called there with the function and each argument.
        cpus: CPUs to reserve.
    """

    def __init__(self, wrap: Callable[[Call, Any], Any], cpus: float) -> None:
        import ray

        self._ray = ray
        options = {"num_cpus": cpus, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        self._actor = ray.remote(_Caller).options(**options).remote(wrap, os.getcwd(), releases())
        self.pending: list[Any] = []

    def begin(self, function: Call) -> None:
        """Hand over the function of the arguments that follow."""
        self._actor.begin.remote(function)

    def give(self, argument: Any) -> None:
        """Hand over an argument; it is computed after those that were given before."""
        self.pending.append(self._actor.call.remote(argument))

    def take(self) -> Any:
        """Wait for the result of the oldest argument.

        Raises:
            EOFError: The actor or its node is gone; the message says what Ray knows.
            CompatibilityError: Its node has other releases.
        """
        try:
            return self._ray.get(self.pending.pop(0))
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            raise EOFError(f"was lost: {' '.join(str(error).split())[:_LONGEST_REASON]}") from error

    def kill(self) -> None:
        """End it at once."""
        self._ray.kill(self._actor)


class CallStarter:
    """Starts actors, which go to different nodes where they can.

    Args:
        wrap: Called there with the function and each argument.
        cpus: CPUs to reserve for each.
    """

    def __init__(self, wrap: Callable[[Call, Any], Any], cpus: float) -> None:
        self._wrap, self._cpus = wrap, cpus

    def start(self) -> CallActor:
        """Start an actor."""
        return CallActor(self._wrap, self._cpus)

    def ready(self, actors: Sequence[CallActor], seconds: float) -> list[CallActor]:
        """Wait for the first of the actors whose oldest result can be taken."""
        import ray

        oldest = {actor.pending[0]: actor for actor in actors if actor.pending}
        done, _ = ray.wait(list(oldest), num_returns=1, timeout=seconds)
        return [oldest[reference] for reference in done]
