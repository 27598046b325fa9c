"""A scripted expert: a plan executed in an operator's style; see :class:`~grape.envs.base.Expert`."""

import numpy as np
import numpy.typing as npt

from grape.core.tasks import Task
from grape.envs.base import Snapshot
from grape.envs.expert_styles import NOISE_STD, Operator
from grape.envs.simpler.experts.carrying import Carrying, carry
from grape.envs.simpler.experts.motion import OPEN, ROTATION_UNIT, TRANSLATION_UNIT, Aim, Hand, Plan, action_towards
from grape.envs.simpler.tasks import arrangement_of, steps_per_decision
from grape.envs.simpler.world import World

__all__ = ["SLOPPY_SHARE", "ScriptedExpert", "make_expert"]

SLOPPY_SHARE = 0.4
"""These things are small: the sloppy operator aims beside by this share of the usual distance."""

_INTO_BASKET = Carrying(clearance=0.1, above=0.03)


class ScriptedExpert:
    """One operator of one episode.

    Args:
        how: How the source is carried.
        steps: Over how many steps a decision is carried out.
        style: One of :data:`grape.envs.expert_styles.OPERATORS`.
        seed: Seed of the operator.
    """

    def __init__(self, how: Carrying, steps: int, style: str, seed: int) -> None:
        self._how = how
        self._steps = steps
        self._units = np.array([steps * TRANSLATION_UNIT] * 3 + [steps * ROTATION_UNIT] * 3 + [1.0], dtype=np.float32)
        self._operator = Operator(style, seed, NOISE_STD / steps)  # the hand shakes as far, over a longer way
        self._hand: Hand | None = None
        self._plan: Plan = iter(())

    def act(self, snapshot: Snapshot) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Executed action and label, float32 ``(7,)`` each."""
        world: World = snapshot.privileged["world"]
        if self._hand is None:
            self._hand = Hand(world, SLOPPY_SHARE * self._operator.aim_offset)
            self._plan = carry(self._hand, self._how)
        commanded = self._hand.commanded
        aim = next(self._plan, Aim(commanded.position, self._hand.rotation, OPEN))
        executed, label = self._operator.perform(action_towards(aim, commanded, world.base_pose, self._steps))
        return executed * self._units, label * self._units


def make_expert(task: Task, operator: str, seed: int) -> ScriptedExpert:
    """Scripted expert of a task for one episode.

    Raises:
        SettingsError: The operator is unknown.
    """
    how = _INTO_BASKET if arrangement_of(task).hidden_target else Carrying()
    return ScriptedExpert(how, steps_per_decision(task.suite), operator, seed)
