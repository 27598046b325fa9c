"""Which plan solves which task."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from grape.core.errors import SettingsError
from grape.core.tasks import Task
from grape.envs.base import Snapshot
from grape.envs.expert_styles import NOISE_STD, Operator
from grape.envs.libero.experts.articulated import pull_open, push_closed, turn_knob
from grape.envs.libero.experts.carrying import Carrying, carry
from grape.envs.libero.experts.motion import OPEN, Hand, Plan, Pose, action_towards
from grape.envs.libero.goals import Part
from grape.envs.libero.scene import Scene
from grape.envs.libero.tasks import base_suite, steps_per_decision

__all__ = ["SLOPPY_SHARE", "UNSOLVED", "ScriptedExpert", "check_script", "make_expert"]

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


UNSOLVED = frozenset(
    {
        "put_the_wine_bottle_on_the_rack",
        "STUDY_SCENE1_pick_up_the_book_and_place_it_in_the_back_compartment_of_the_caddy",
        "KITCHEN_SCENE6_put_the_yellow_and_white_mug_in_the_microwave_and_close_it",
    }
)
"""Tasks of the four suites of ten that no script solves."""

_CARRYING: Mapping[str, Carrying] = {
    "plate": Carrying(depth=0.012),
    "wine_bottle": Carrying(depth=0.05),
}
"""How things are carried that are not carried as usual, by the beginning of LIBERO's name."""

_PLANS = {"open": pull_open, "close": push_closed, "turnon": turn_knob}


def check_script(task: Task) -> None:
    """Make sure that there is a script for a task.

    Raises:
        SettingsError: There is none.
    """
    if base_suite(task.suite) == "libero_90" or task.name in UNSOLVED:
        raise SettingsError(
            f"There is no scripted expert for {task.id}.",
            "docs/libero.md lists the tasks that have one; collect with a policy, or import demonstrations.",
        )


def make_expert(task: Task, operator: str, seed: int) -> ScriptedExpert:
    """Scripted expert of a task for one episode.

    Raises:
        SettingsError: The operator is unknown, or there is no script for the task.
    """
    check_script(task)
    return ScriptedExpert(_solve, operator, seed, steps_per_decision(task.suite))


def _solve(hand: Hand) -> Plan:
    """Do the parts of the goal one after another."""
    for number, part in enumerate(hand.scene.parts):
        if number:
            yield from hand.return_home()
        if part.moves_joint:
            yield from _PLANS[part.predicate.word](hand, part)
            continue
        if part.predicate.word == "in" and part.joint is not None and hand.scene.openness(part) < 1.0:
            yield from pull_open(hand, part)
            yield from hand.return_home()
        yield from carry(hand, part, _how(part))


def _how(part: Part) -> Carrying:
    name = part.predicate.subject
    return next((how for start, how in _CARRYING.items() if name.startswith(start)), Carrying())
