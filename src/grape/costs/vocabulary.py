"""The closed vocabulary: what a specification may say of keypoints and signals.

Every relation is a *quantity* measured at each recorded state and, for most, a bound on it. The cost of
"quantity at most u" is ``max(0, quantity - u)`` and of "at least l" ``max(0, l - quantity)``: zero exactly where the
relation holds, in the quantity's unit. Relations without a bound only measure (their threshold tau is the bound) and
cannot decide when a stage is done. Because relations are bounds on quantities, :mod:`grape.costs.checks` can reason
about them without looking at data.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from grape.costs.language import DEFINITIONS, OUTCOME, SPECIFICATION, Amount, Choice, Field, Fields, Kind, Name

__all__ = ["AXES", "FRAMES", "QUANTITIES", "RELATIONS", "Quantity", "Relation", "language_table", "vocabulary_table"]

AXES = ("x", "y", "z", "-x", "-y", "-z")
"""World axes that directions are measured along."""

FRAMES = ("world", "camera")
"""Whose left, right, front and behind is meant; heights are the world's in both.

``world``: right is +x, behind is +y (someone who looks along +y, z upwards). ``camera``: right is right in the recorded
image, behind is away from the camera; both level with the ground.
"""


@dataclass(frozen=True)
class Quantity:
    """Something measurable at every state of a recording.

    Attributes:
        name: Its name in :data:`QUANTITIES`.
        unit: Canonical unit, see :data:`grape.costs.units.UNITS`.
        meaning: One sentence.
        low: Smallest value it can take.
        high: Largest value it can take.
        per: ``"state"``: a value a state. ``"step"``: a value a state that describes the step which led to it; a
            stage then uses the states after its first. ``"stage"``: increments a step, accumulated from the stage's
            first state on.
        mirrored: 1 if swapping ``of`` and ``to`` changes nothing, -1 if it flips the sign, 0 otherwise.
        whole: Takes the values 0 and 1 only.
    """

    name: str
    unit: str
    meaning: str
    low: float = 0.0
    high: float = math.inf
    per: Literal["state", "step", "stage"] = "state"
    mirrored: Literal[-1, 0, 1] = 0
    whole: bool = False


@dataclass(frozen=True)
class Relation:
    """A word of the language.

    Attributes:
        name: The word.
        quantity: What is measured.
        meaning: When it holds, or what it measures, in one sentence.
        parameters: Its arguments.
        upper: The quantity may be at most this: a parameter's name or a number.
        lower: The quantity must be at least this.
        arguments: Which parameter feeds which argument of the quantity, where the names differ.
        constants: Arguments of the quantity that the word itself fixes.
    """

    name: str
    quantity: str
    meaning: str
    parameters: tuple[Field, ...]
    upper: str | float | None = None
    lower: str | float | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)

    @property
    def bounded(self) -> bool:
        """Whether it says when it holds, so that ``done_when`` may use it."""
        return self.upper is not None or self.lower is not None

    @property
    def group(self) -> Literal["bounded", "of states", "of stages"]:
        """Where formulas may use it: bounded relations everywhere, measures as costs of states or of whole stages."""
        if self.bounded:
            return "bounded"
        return "of stages" if QUANTITIES[self.quantity].per == "stage" else "of states"

    @property
    def unit(self) -> str:
        """Canonical unit of its cost."""
        return QUANTITIES[self.quantity].unit

    def kind(self, name: str) -> Kind:
        """What the parameter with this name holds."""
        return next(parameter.kind for parameter in self.parameters if parameter.name == name)


def _signed(name: str, meaning: str, mirrored: Literal[-1, 0] = 0) -> Quantity:
    return Quantity(name, "m", meaning, low=-math.inf, mirrored=mirrored)


QUANTITIES: dict[str, Quantity] = {
    quantity.name: quantity
    for quantity in (
        Quantity("distance", "m", "distance of two keypoints", mirrored=1),
        Quantity("distance_xy", "m", "horizontal distance of two keypoints", mirrored=1),
        Quantity("distance_z", "m", "absolute difference of two keypoints' heights", mirrored=1),
        _signed("height", "height of one keypoint over another, signed", mirrored=-1),
        _signed("offset", "how far a keypoint lies beyond another on an axis, signed", mirrored=-1),
        _signed("rightward", "how far a keypoint lies to the right of another in a frame, signed", mirrored=-1),
        _signed("backward", "how far a keypoint lies behind another in a frame, signed", mirrored=-1),
        _signed("protrusion", "how far a keypoint is outside of an upright box around another, negative inside"),
        _signed(
            "overhang", "how far a keypoint is outside of an upright cylinder standing on another, negative inside"
        ),
        Quantity("displacement", "m", "distance of a keypoint from where it was at the episode's first state"),
        _signed("rise", "height of a keypoint over where it was at the first state, signed"),
        Quantity("angle", "deg", "angle between the line from one keypoint to another and a world axis", high=180.0),
        Quantity("bend", "deg", "angle between two lines, each from one keypoint to another", high=180.0),
        Quantity("turn", "deg", "angle between a line and its direction at the episode's first state", high=180.0),
        Quantity("flag", "fraction", "1 where a signal is above one half, else 0", high=1.0, whole=True),
        Quantity("part", "fraction", "a signal that runs from 0 to 1", high=1.0),
        Quantity("reading", "signal", "a signal as recorded", low=-math.inf),
        Quantity("speed", "m/step", "way of a keypoint in the step that led to the state", per="step"),
        Quantity("acceleration", "m/step2", "change of a keypoint's velocity from step to step", per="step"),
        Quantity("travel", "ratio", "way of a keypoint within the stage over a reference length", per="stage"),
        Quantity("time", "of limit", "steps spent in the stage over the task's limit", per="stage"),
    )
}

_OF, _TO, _BASE, _TIP = (Field(name, Name("keypoint")) for name in ("of", "to", "base", "tip"))
_AXIS = Field("axis", Choice("axis", AXES))
_FRAME = Field("frame", Choice("frame", FRAMES), default="world")
_WITHIN, _BY, _REFERENCE, *_BOX = (
    Field(name, Amount("m", positive=True)) for name in ("within", "by", "reference", "x", "y", "z")
)
_BY_ANY = Field("by", Amount("m"), default=0.0)
_ANGLE = Field("within", Amount("deg", positive=True))
_AT_LEAST, _AT_MOST = (Field(name, Amount("fraction")) for name in ("at_least", "at_most"))
_READING = (Field("signal", Name("signal")), Field("value", Amount("signal")))
_SWAPPED = {"of": "to", "to": "of"}


def _signal(default: str) -> Field:
    return Field("signal", Name("signal"), default=default)


def _upper(name: str, quantity: str, meaning: str, *parameters: Field, bound: str | float = "within") -> "Relation":
    return Relation(name, quantity, meaning, parameters, upper=bound)


def _lower(
    name: str, quantity: str, meaning: str, *parameters: Field, bound: str | float = "by", swapped: bool = False
) -> "Relation":
    """A lower bound on a quantity; ``swapped`` measures it from the other side."""
    return Relation(name, quantity, meaning, parameters, lower=bound, arguments=_SWAPPED if swapped else {})


RELATIONS: dict[str, Relation] = {
    relation.name: relation
    for relation in (
        # Where keypoints are.
        _upper("near", "distance", "'of' is within a distance of 'to'", _OF, _TO, _WITHIN),
        _upper("near_xy", "distance_xy", "near, seen from above", _OF, _TO, _WITHIN),
        _upper("near_z", "distance_z", "'of' is about as high as 'to'", _OF, _TO, _WITHIN),
        _lower("above", "height", "'of' is 'by' or more higher than 'to'", _OF, _TO, _BY_ANY),
        _lower("below", "height", "'of' is 'by' or more lower than 'to'", _OF, _TO, _BY_ANY, swapped=True),
        _lower(
            "beyond", "offset", "'of' lies 'by' or more further along a world axis than 'to'", _OF, _TO, _AXIS, _BY_ANY
        ),
        *(
            _lower(name, quantity, f"'of' is 'by' or more {place} 'to'", _OF, _TO, _BY_ANY, _FRAME, swapped=swapped)
            for name, quantity, place, swapped in (
                ("right_of", "rightward", "to the right of", False),
                ("left_of", "rightward", "to the left of", True),
                ("behind", "backward", "behind", False),
                ("in_front_of", "backward", "in front of", True),
            )
        ),
        _upper(
            "inside",
            "protrusion",
            "'of' is in a box around 'to' that reaches x, y and z to either side",
            _OF,
            _TO,
            *_BOX,
            bound=0.0,
        ),
        _upper(
            "on",
            "overhang",
            "'of' is over 'to', within a distance seen from above and at most 'by' higher",
            _OF,
            _TO,
            _WITHIN,
            _BY,
            bound=0.0,
        ),
        _lower("clear_of", "distance", "'of' is 'by' or more away from 'to'", _OF, _TO, _BY),
        _lower("clear_of_xy", "distance_xy", "clear_of, seen from above", _OF, _TO, _BY),
        _lower("displaced", "displacement", "'of' has moved 'by' or more from its start", _OF, _BY),
        _upper("undisturbed", "displacement", "'of' is still close to its start", _OF, _WITHIN),
        _lower("lifted", "rise", "'of' is 'by' or more higher than at its start", _OF, _BY),
        _upper("aligned", "angle", "the line from 'of' to 'to' points along a world axis", _OF, _TO, _AXIS, _ANGLE),
        _upper(
            "parallel",
            "bend",
            "the line from 'of' to 'to' points the same way as that from 'base' to 'tip'",
            _OF,
            _TO,
            _BASE,
            _TIP,
            _ANGLE,
        ),
        Relation(
            "upright",
            "angle",
            "the line from 'of', low on an object, to 'to', high on it, points upwards",
            parameters=(_OF, _TO, _ANGLE),
            upper="within",
            constants={"axis": "z"},
        ),
        _lower(
            "turned",
            "turn",
            "the line from 'of' to 'to' has turned 'by' or more from its direction at the start",
            _OF,
            _TO,
            Field("by", Amount("deg", positive=True)),
        ),
        _upper(
            "at_rest",
            "speed",
            "'of' moved at most 'within' in the last step",
            _OF,
            Field("within", Amount("m/step", positive=True)),
        ),
        # What the recording's signals say.
        _lower("grasped", "flag", "the object is held", _signal("grasped"), bound=1.0),
        _upper("released", "flag", "the object is not held", _signal("grasped"), bound=0.0),
        _lower("touching", "flag", "a finger touches the object", _signal("touching"), bound=1.0),
        _lower("succeeded", "flag", "the simulator calls the task solved", _signal("success"), bound=1.0),
        _lower(
            "opened",
            "part",
            "the object has come at least this part of its way from start to goal",
            _AT_LEAST,
            _signal("opened"),
            bound="at_least",
        ),
        _lower(
            "gripper_open",
            "part",
            "the gripper is open at least this far",
            _AT_LEAST,
            _signal("gripper_opening"),
            bound="at_least",
        ),
        _upper(
            "gripper_closed",
            "part",
            "the gripper is open at most this far",
            _AT_MOST,
            _signal("gripper_opening"),
            bound="at_most",
        ),
        _lower(
            "signal_at_least",
            "reading",
            "a recorded signal is at least this, in its own unit",
            *_READING,
            bound="value",
        ),
        _upper(
            "signal_at_most", "reading", "a recorded signal is at most this, in its own unit", *_READING, bound="value"
        ),
        # Measures: their threshold is the bound; constraints only.
        Relation("distance", "distance", "distance of 'of' and 'to'", (_OF, _TO)),
        Relation("distance_xy", "distance_xy", "horizontal distance of 'of' and 'to'", (_OF, _TO)),
        Relation("angle", "angle", "angle between the line from 'of' to 'to' and a world axis", (_OF, _TO, _AXIS)),
        Relation(
            "angle_between",
            "bend",
            "angle between the line from 'of' to 'to' and that from 'base' to 'tip'",
            parameters=(_OF, _TO, _BASE, _TIP),
        ),
        Relation("speed", "speed", "speed of 'of'", (_OF,)),
        Relation("smoothness", "acceleration", "how much the velocity of 'of' changes from step to step", (_OF,)),
        Relation(
            "path_length",
            "travel",
            "length of the way of 'of' within the stage over 'reference'",
            parameters=(_OF, _REFERENCE),
        ),
        Relation("duration", "time", "time spent in the stage as a part of the task's limit", ()),
    )
}
"""The published table of relations, by name."""


def vocabulary_table() -> str:
    """The published table of relations and that of quantities, in Markdown; ``docs/costs.md`` holds them."""
    lines = ["| relation | arguments | meaning | cost of a state | unit |", "|---|---|---|---|---|"]
    for relation in RELATIONS.values():
        arguments = " ".join(map(_argument, relation.parameters)) or "none"
        lines.append(
            f"| `{relation.name}` | {arguments} | {relation.meaning} | {_formula(relation)} | {relation.unit} |"
        )
    lines += ["", "| quantity | meaning | unit |", "|---|---|---|"]
    lines += [f"| {quantity.name} | {quantity.meaning} | {quantity.unit} |" for quantity in QUANTITIES.values()]
    return "\n".join(lines)


def _argument(parameter: Field) -> str:
    if parameter.required:
        return f"`{parameter.name}`"
    default = f"{parameter.default:g}" if isinstance(parameter.default, float) else parameter.default
    return f"`{parameter.name} = {default}`"


def _formula(relation: Relation) -> str:
    measured = relation.quantity + (" of `to` over `of`" if relation.arguments else "")
    if relation.upper is not None:
        return f"max(0, {measured} - {_bound(relation.upper)})"
    if relation.lower is not None:
        return f"max(0, {_bound(relation.lower)} - {measured})"
    return measured + (" so far" if QUANTITIES[relation.quantity].per == "stage" else "")


def _bound(bound: str | float) -> str:
    return f"`{bound}`" if isinstance(bound, str) else f"{bound:g}"


def language_table() -> str:
    """Every construct's fields, in Markdown; ``docs/costs.md`` holds it."""
    lines = ["| in | field | holds |", "|---|---|---|"]
    constructs: list[tuple[str, Kind]] = [("the file", SPECIFICATION), ("outcome", OUTCOME)]
    constructs += [(name, part) for name, parts in DEFINITIONS.items() if isinstance(parts, tuple) for part in parts]
    for place, construct in constructs:
        for item in construct.fields if isinstance(construct, Fields) else ():
            line = f"| {place} | `{item.name}`{'' if item.required else ' (optional)'} | {item.meaning} |"
            if line not in lines:
                lines.append(line)
    return "\n".join(lines)
