"""Which plan solves which task."""

from collections.abc import Mapping

from grape.core.errors import SettingsError
from grape.core.tasks import Task
from grape.envs.libero.experts.articulated import pull_open, push_closed, turn_knob
from grape.envs.libero.experts.carrying import Carrying, carry
from grape.envs.libero.experts.motion import Hand, Plan
from grape.envs.libero.experts.operator import ScriptedExpert
from grape.envs.libero.goals import Part
from grape.envs.libero.tasks import base_suite, steps_per_decision

__all__ = ["UNSOLVED", "check_script", "make_expert"]

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
            yield from hand.home()
        if part.moves_joint:
            yield from _PLANS[part.predicate.word](hand, part)
            continue
        if part.predicate.word == "in" and part.joint is not None and hand.scene.openness(part) < 1.0:
            yield from pull_open(hand, part)
            yield from hand.home()
        yield from carry(hand, part, _how(part))


def _how(part: Part) -> Carrying:
    name = part.predicate.subject
    return next((how for start, how in _CARRYING.items() if name.startswith(start)), Carrying())
