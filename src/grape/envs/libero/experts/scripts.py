"""Which plan solves which task."""

from collections.abc import Mapping

from grape.core.errors import SettingsError
from grape.core.tasks import Task
from grape.envs.libero.experts.carrying import Carrying, carry
from grape.envs.libero.experts.motion import Hand, Plan
from grape.envs.libero.experts.operator import ScriptedExpert

__all__ = ["make_expert", "scripted_tasks"]

_CARRYING: Mapping[str, Carrying] = {}


def make_expert(task: Task, operator: str, seed: int) -> ScriptedExpert:
    """Scripted expert of a task for one episode.

    Raises:
        SettingsError: The operator is unknown, or there is no script for the task.
    """

    def script(hand: Hand) -> Plan:
        for part in hand.scene.parts:
            yield from carry(hand, part, _CARRYING.get(part.predicate.subject, Carrying()))

    return ScriptedExpert(script, operator, seed)
