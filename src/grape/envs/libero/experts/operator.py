"""A plan carried out in an operator's style; see :class:`~grape.envs.base.Expert`."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from grape.envs.base import Snapshot
from grape.envs.expert_styles import NOISE_STD, Operator
from grape.envs.libero.experts.motion import OPEN, Hand, Plan, Pose, action_towards
from grape.envs.libero.scene import Scene

__all__ = ["SLOPPY_SHARE", "ScriptedExpert"]

SLOPPY_SHARE = 0.75
"""LIBERO's things stand closer than Meta-World's: its sloppy operator aims beside by this share of the usual."""

Script = Callable[[Hand], Plan]


class ScriptedExpert:
    """One operator of one episode.

    Args:
        script: Makes the plan for an episode.
        style: One of :data:`grape.envs.expert_styles.OPERATORS`.
        seed: Seed of the operator.
        held: For how many steps of 50 ms each decision is held.
    """

    def __init__(self, script: Script, style: str, seed: int, held: int = 1) -> None:
        self._script = script
        self._held = held
        # Noise that is held for n steps moves the hand n times as far as that of one step; drawn anew in each of
        # them it would on average move it by the root of n.
        self._operator = Operator(style, seed, NOISE_STD / math.sqrt(held))
        self._hand: Hand | None = None
        self._plan: Plan = iter(())
        self._last: npt.NDArray[np.float64] | None = None

    def act(self, snapshot: Snapshot) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Executed action and label, float32 ``(7,)`` each."""
        scene: Scene = snapshot.privileged["scene"]
        if self._hand is None:
            self._hand = Hand(scene, SLOPPY_SHARE * self._operator.aim_offset, self._held)
            self._plan = self._script(self._hand)
        self._hand.scene = scene
        position = self._hand.position
        motion = np.zeros(3) if self._last is None else position - self._last
        self._last = position
        pose = next(self._plan, Pose(position, self._hand.rotation, OPEN))
        return self._operator.perform(action_towards(pose, position, scene.hand, motion, self._held))
