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

from grape.costs.language import Amount, Choice, Field, Kind, Name

__all__ = ["AXES", "FRAMES", "QUANTITIES", "RELATIONS", "Quantity", "Relation"]

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


QUANTITIES: dict[str, Quantity] = {
    quantity.name: quantity
    for quantity in (
        Quantity("distance", "m", "distance of two keypoints", mirrored=1),
        Quantity("distance_xy", "m", "horizontal distance of two keypoints", mirrored=1),
        Quantity("distance_z", "m", "absolute difference of two keypoints' heights", mirrored=1),
        Quantity("height", "m", "height of one keypoint over another, signed", low=-math.inf, mirrored=-1),
        Quantity(
            "offset", "m", "how far a keypoint lies beyond another on an axis, signed", low=-math.inf, mirrored=-1
        ),
        Quantity(
            "rightward",
            "m",
            "how far a keypoint lies to the right of another in a frame, signed",
            low=-math.inf,
            mirrored=-1,
        ),
        Quantity(
            "backward", "m", "how far a keypoint lies behind another in a frame, signed", low=-math.inf, mirrored=-1
        ),
        Quantity(
            "protrusion",
            "m",
            "how far a keypoint is outside of an upright box around another, negative inside",
            low=-math.inf,
        ),
        Quantity(
            "overhang",
            "m",
            "how far a keypoint is outside of an upright cylinder standing on another, negative inside",
            low=-math.inf,
        ),
        Quantity("displacement", "m", "distance of a keypoint from where it was at the episode's first state"),
        Quantity("rise", "m", "height of a keypoint over where it was at the first state, signed", low=-math.inf),
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

_OF = Field("of", Name("keypoint"))
_TO = Field("to", Name("keypoint"))
_AXIS = Field("axis", Choice("axis", AXES))
_FRAME = Field("frame", Choice("frame", FRAMES), default="world")


def _length(name: str) -> Field:
    return Field(name, Amount("m", positive=True))


def _signal(default: str) -> Field:
    return Field("signal", Name("signal"), default=default)


def _part(name: str) -> Field:
    return Field(name, Amount("fraction"))


_WITHIN, _BY = _length("within"), _length("by")
_BY_ANY = Field("by", Amount("m"), default=0.0)
_ANGLE = Field("within", Amount("deg", positive=True))
_SECOND_LINE = (Field("base", Name("keypoint")), Field("tip", Name("keypoint")))
_READING = (Field("signal", Name("signal")), Field("value", Amount("signal")))
_SWAPPED = {"of": "to", "to": "of"}


def _beside(name: str, quantity: str, meaning: str, swapped: bool = False) -> "Relation":
    """A direction seen in a frame; ``swapped`` measures it from the other side."""
    return Relation(
        name, quantity, meaning, (_OF, _TO, _BY_ANY, _FRAME), lower="by", arguments=_SWAPPED if swapped else {}
    )


RELATIONS: dict[str, Relation] = {
    relation.name: relation
    for relation in (
        # Where keypoints are.
        Relation("near", "distance", "'of' is within a distance of 'to'", (_OF, _TO, _WITHIN), upper="within"),
        Relation("near_xy", "distance_xy", "near, seen from above", (_OF, _TO, _WITHIN), upper="within"),
        Relation("near_z", "distance_z", "'of' is about as high as 'to'", (_OF, _TO, _WITHIN), upper="within"),
        Relation("above", "height", "'of' is 'by' or more higher than 'to'", (_OF, _TO, _BY_ANY), lower="by"),
        Relation(
            "below",
            "height",
            "'of' is 'by' or more lower than 'to'",
            (_OF, _TO, _BY_ANY),
            lower="by",
            arguments=_SWAPPED,
        ),
        Relation(
            "beyond",
            "offset",
            "'of' lies 'by' or more further along a world axis than 'to'",
            (_OF, _TO, _AXIS, _BY_ANY),
            lower="by",
        ),
        _beside("right_of", "rightward", "'of' is 'by' or more to the right of 'to'"),
        _beside("left_of", "rightward", "'of' is 'by' or more to the left of 'to'", swapped=True),
        _beside("behind", "backward", "'of' is 'by' or more behind 'to'"),
        _beside("in_front_of", "backward", "'of' is 'by' or more in front of 'to'", swapped=True),
        Relation(
            "inside",
            "protrusion",
            "'of' is in a box around 'to' that reaches x, y and z to either side",
            (_OF, _TO, *map(_length, "xyz")),
            upper=0.0,
        ),
        Relation(
            "on",
            "overhang",
            "'of' is over 'to', within a distance seen from above and at most 'by' higher",
            (_OF, _TO, _WITHIN, _BY),
            upper=0.0,
        ),
        Relation("clear_of", "distance", "'of' is 'by' or more away from 'to'", (_OF, _TO, _BY), lower="by"),
        Relation("clear_of_xy", "distance_xy", "clear_of, seen from above", (_OF, _TO, _BY), lower="by"),
        Relation("displaced", "displacement", "'of' has moved 'by' or more from its start", (_OF, _BY), lower="by"),
        Relation("undisturbed", "displacement", "'of' is still close to its start", (_OF, _WITHIN), upper="within"),
        Relation("lifted", "rise", "'of' is 'by' or more higher than at its start", (_OF, _BY), lower="by"),
        Relation(
            "aligned",
            "angle",
            "the line from 'of' to 'to' points along a world axis",
            (_OF, _TO, _AXIS, _ANGLE),
            upper="within",
        ),
        Relation(
            "parallel",
            "bend",
            "the line from 'of' to 'to' points the same way as that from 'base' to 'tip'",
            (_OF, _TO, *_SECOND_LINE, _ANGLE),
            upper="within",
        ),
        Relation(
            "upright",
            "angle",
            "the line from 'of', low on an object, to 'to', high on it, points upwards",
            (_OF, _TO, _ANGLE),
            upper="within",
            constants={"axis": "z"},
        ),
        Relation(
            "turned",
            "turn",
            "the line from 'of' to 'to' has turned 'by' or more from its direction at the start",
            (_OF, _TO, Field("by", Amount("deg", positive=True))),
            lower="by",
        ),
        Relation(
            "at_rest",
            "speed",
            "'of' moved at most 'within' in the last step",
            (_OF, Field("within", Amount("m/step", positive=True))),
            upper="within",
        ),
        # What the recording's signals say.
        Relation("grasped", "flag", "the object is held", (_signal("grasped"),), lower=1.0),
        Relation("released", "flag", "the object is not held", (_signal("grasped"),), upper=0.0),
        Relation("touching", "flag", "a finger touches the object", (_signal("touching"),), lower=1.0),
        Relation("succeeded", "flag", "the simulator calls the task solved", (_signal("success"),), lower=1.0),
        Relation(
            "opened",
            "part",
            "the object has come at least this part of its way from start to goal",
            (_part("at_least"), _signal("opened")),
            lower="at_least",
        ),
        Relation(
            "gripper_open",
            "part",
            "the gripper is open at least this far",
            (_part("at_least"), _signal("gripper_opening")),
            lower="at_least",
        ),
        Relation(
            "gripper_closed",
            "part",
            "the gripper is open at most this far",
            (_part("at_most"), _signal("gripper_opening")),
            upper="at_most",
        ),
        Relation(
            "signal_at_least", "reading", "a recorded signal is at least this, in its own unit", _READING, lower="value"
        ),
        Relation(
            "signal_at_most", "reading", "a recorded signal is at most this, in its own unit", _READING, upper="value"
        ),
        # Measures: their threshold is the bound; constraints only.
        Relation("distance", "distance", "distance of 'of' and 'to'", (_OF, _TO)),
        Relation("distance_xy", "distance_xy", "horizontal distance of 'of' and 'to'", (_OF, _TO)),
        Relation("angle", "angle", "angle between the line from 'of' to 'to' and a world axis", (_OF, _TO, _AXIS)),
        Relation(
            "angle_between",
            "bend",
            "angle between the line from 'of' to 'to' and that from 'base' to 'tip'",
            (_OF, _TO, *_SECOND_LINE),
        ),
        Relation("speed", "speed", "speed of 'of'", (_OF,)),
        Relation("smoothness", "acceleration", "how much the velocity of 'of' changes from step to step", (_OF,)),
        Relation(
            "path_length",
            "travel",
            "length of the way of 'of' within the stage over 'reference'",
            (_OF, _length("reference")),
        ),
        Relation("duration", "time", "time spent in the stage as a part of the task's limit", ()),
    )
}
"""The published table of relations, by name."""
