"""Tasks of the ``simpler_widowx`` suites and what each of them asks of the scene (Li et al. 2024, arXiv 2405.05941).

The four tasks are ManiSkill's, names of its classes included. Three further suites vary them as the groups of
arXiv 2411.19309 do: *subject* replaces the source by another object, *physical* changes its size and pose,
*semantic* gives the same tasks other instructions. A variation is data; everything else is its task's.

Two more suites have the four tasks under names that say what differs: ``_held3`` decides more slowly, ``_nano`` has
small images and further initial states. Their results are not those of the benchmark.
"""

import functools
from dataclasses import dataclass, replace

from grape.core.tasks import Task

__all__ = [
    "SUITES",
    "Arrangement",
    "arrangement_of",
    "base_task_of",
    "is_nano",
    "same_scene",
    "steps_per_decision",
    "suite_tasks",
]


@dataclass(frozen=True)
class Arrangement:
    """The scene of a task.

    Attributes:
        environment: ManiSkill's class.
        source: Model that is to be moved, by the name of its folder among ManiSkill's assets.
        target: Model that it is to be put on.
        scale: Size of the source relative to ManiSkill's.
        turn: Angle about the vertical by which the source starts turned, degrees.
        shift: Horizontal displacement of the source's start, meters.
        exchanged: Whether the source is not the one of ManiSkill's task: it then starts lying flat.
        hidden_target: Whether the target is a stand-in that must not be seen.
    """

    environment: str
    source: str
    target: str
    scale: float = 1.0
    turn: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    exchanged: bool = False
    hidden_target: bool = False


_CARROT, _PLATE = "bridge_carrot_generated_modified", "bridge_plate_objaverse_larger"
_SPOON, _CLOTH = "bridge_spoon_generated_modified", "table_cloth_generated_shorter"
_GREEN, _YELLOW = "baked_green_cube_3cm", "baked_yellow_cube_3cm"
_EGGPLANT, _SINK_PLANE = "eggplant", "dummy_sink_target_plane"

_ON_PLATE = Arrangement("PutCarrotOnPlateInScene", _CARROT, _PLATE)
_STACK = Arrangement("StackGreenCubeOnYellowCubeBakedTexInScene", _GREEN, _YELLOW)
_ON_CLOTH = Arrangement("PutSpoonOnTableClothInScene", _SPOON, _CLOTH)
_IN_BASKET = Arrangement("PutEggplantInBasketScene", _EGGPLANT, _SINK_PLANE, hidden_target=True)

_LIMIT, _SINK_LIMIT = 60, 120  # ManiSkill's


@dataclass(frozen=True)
class _Entry:
    name: str
    instruction: str
    arrangement: Arrangement
    base: str


def _base(name: str, instruction: str, arrangement: Arrangement) -> _Entry:
    return _Entry(name, instruction, arrangement, name)


_BASE = (
    _base("carrot-on-plate", "put carrot on plate", _ON_PLATE),
    _base("stack-cubes", "stack the green block on the yellow block", _STACK),
    _base("spoon-on-cloth", "put the spoon on the towel", _ON_CLOTH),
    _base("eggplant-in-basket", "put eggplant into yellow basket", _IN_BASKET),
)


def _subject() -> tuple[_Entry, ...]:
    """Other sources, targets as in the four tasks."""
    plate, cloth, basket = _BASE[0], _BASE[2], _BASE[3]
    variations = (
        (plate, "spoon-on-plate", "put spoon on plate", _SPOON),
        (plate, "eggplant-on-plate", "put eggplant on plate", _EGGPLANT),
        (plate, "cube-on-plate", "put the green block on plate", _GREEN),
        (cloth, "carrot-on-cloth", "put the carrot on the towel", _CARROT),
        (cloth, "cube-on-cloth", "put the green block on the towel", _GREEN),
        (basket, "carrot-in-basket", "put carrot into yellow basket", _CARROT),
        (basket, "cube-in-basket", "put the green block into yellow basket", _GREEN),
    )
    return tuple(
        _Entry(name, instruction, replace(base.arrangement, source=source, exchanged=True), base.name)
        for base, name, instruction, source in variations
    )


def _physical() -> tuple[_Entry, ...]:
    """Other sizes and poses of the source."""
    changes = (
        ("smaller", {"scale": 0.8}),
        ("larger", {"scale": 1.25}),
        ("turned", {"turn": 45.0}),
        ("shifted", {"shift": (0.02, -0.02)}),
    )
    return tuple(
        replace(entry, name=f"{entry.name}-{word}", arrangement=replace(entry.arrangement, **change))
        for entry in _BASE
        for word, change in changes
    )


def _semantic() -> tuple[_Entry, ...]:
    """Other instructions."""
    words = {
        "carrot-on-plate": (
            "place the orange carrot onto the round dish",
            "move the carrot so that it lies on the plate",
        ),
        "stack-cubes": (
            "set the green cube on top of the yellow cube",
            "build a tower: yellow cube below, green cube above",
        ),
        "spoon-on-cloth": ("lay the spoon down on the cloth", "move the spoon over to the piece of fabric"),
        "eggplant-in-basket": (
            "drop the aubergine in the yellow basket",
            "take the purple vegetable from the sink to the dish rack",
        ),
    }
    return tuple(
        replace(entry, name=f"{entry.name}-{label}", instruction=instruction)
        for entry in _BASE
        for label, instruction in zip(("reworded", "described"), words[entry.name], strict=True)
    )


_ENTRIES = {
    "simpler_widowx": _BASE,
    "simpler_widowx_subject": _subject(),
    "simpler_widowx_physical": _physical(),
    "simpler_widowx_semantic": _semantic(),
}

_NANO = "simpler_widowx_nano"

_VARIANTS = {"simpler_widowx_held3": ("simpler_widowx", 3), _NANO: ("simpler_widowx", 1)}
"""Suites with another's tasks: whose, and over how many of the steps of 0.2 s each decision is carried out."""

SUITES = (*_ENTRIES, *_VARIANTS)
"""Names of the suites."""


def _entries(suite: str) -> tuple[_Entry, ...]:
    base, _ = _VARIANTS.get(suite, (suite, 1))
    return _ENTRIES[base]


def steps_per_decision(suite: str) -> int:
    """Over how many steps of 0.2 s a decision is carried out: 1, but for the slower suite."""
    _, steps = _VARIANTS.get(suite, (suite, 1))
    return steps


def is_nano(suite: str) -> bool:
    """Whether a suite has small images that are drawn fast, and initial states beyond the benchmark's."""
    return suite == _NANO


@functools.cache
def suite_tasks(suite: str) -> tuple[Task, ...]:
    """Tasks of a suite by index.

    Args:
        suite: One of :data:`SUITES`.
    """
    n_steps = steps_per_decision(suite)
    return tuple(
        Task(
            suite,
            index,
            entry.name,
            entry.instruction,
            (_SINK_LIMIT if entry.arrangement.hidden_target else _LIMIT) // n_steps,
        )
        for index, entry in enumerate(_entries(suite))
    )


def arrangement_of(task: Task) -> Arrangement:
    """What a task asks of the scene."""
    return _entries(task.suite)[task.index].arrangement


def base_task_of(task: Task) -> str:
    """Name of the task of ``simpler_widowx`` that a variation varies; of one of those, its own."""
    return _entries(task.suite)[task.index].base


def same_scene(task: Task) -> tuple[str, str]:
    """Suite and name of the task of ``simpler_widowx`` with the very scene of a task; its own where there is none."""
    same = next((entry.name for entry in _BASE if entry.arrangement == arrangement_of(task)), None)
    return (task.suite, task.name) if same is None else ("simpler_widowx", same)
