"""The cost language, written down once: each construct of a specification file, its fields and what they hold.

The reader (:mod:`grape.costs.parsing`), the JSON Schema (:mod:`grape.costs.schema`) and the reference page walk these
tables. A new field is one entry here, a new relation one in :mod:`grape.costs.vocabulary`, a new unit one in
:mod:`grape.costs.units`.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

OBJECTIVES = ("completion", "safety", "efficiency")
"""Tags a constraint may carry; preferences reach an objective by changing the tagged weights and thresholds."""

AGGREGATIONS = ("mean", "max", "integral")
"""How a path constraint's values at the states of a stage become one number."""

RESERVED_NAMES = ("done", "success", "outcome")
"""Names that the evaluation gives to its own entries."""

MAX_GROUPS = 4
"""Of stages that may be done in any order: each of the 24 orders is evaluated."""

MAX_STAGES = 64
"""Checks compare every stage with every other: a longer list would only keep the machine busy."""

NAME_PATTERN = "[A-Za-z][A-Za-z0-9_.-]{0,127}"
"""Of every name; LIBERO names its tasks by whole sentences."""

_REQUIRED: Final = object()


@dataclass(frozen=True)
class Scalar:
    """Text for people, a number of decisions a second, or a weight per unit of the constraint's cost."""

    of: Literal["text", "rate", "weight"]


@dataclass(frozen=True)
class Name:
    """A name: recorded keypoints' or signals' where ``of`` says so, else one of the specification's own."""

    of: Literal["", "keypoint", "signal"] = ""
    reserved: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """One of a few words; ``of`` is what they name."""

    of: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Whole:
    """A whole number in a range; ``refusal`` is the format of what is said of another value."""

    low: int
    high: int
    refusal: str


@dataclass(frozen=True)
class Amount:
    """A number with a unit.

    Attributes:
        unit: Canonical unit, see :data:`grape.costs.units.UNITS`; empty for that of the constraint's cost.
        signed: May be negative.
        positive: Zero is refused.
    """

    unit: str = ""
    signed: bool = False
    positive: bool = False


@dataclass(frozen=True)
class Ref:
    """What the entry of :data:`DEFINITIONS` with this name defines."""

    name: str


@dataclass(frozen=True)
class Items:
    """A list; ``needs`` is what is said of an empty one, if that is refused."""

    of: "Kind"
    needs: str = ""


@dataclass(frozen=True)
class Fields:
    """A mapping, with its fields in the order of the schema."""

    fields: tuple["Field", ...]


Kind: TypeAlias = Scalar | Name | Choice | Whole | Amount | Ref | Items | Fields
"""What a field holds."""


@dataclass(frozen=True)
class Field:
    """A field of a mapping.

    Attributes:
        name: Its key.
        kind: What it holds.
        meaning: One sentence.
        default: Its value when absent or null; a field without one is required.
    """

    name: str
    kind: Kind
    meaning: str = ""
    default: Any = _REQUIRED

    @property
    def required(self) -> bool:
        """Whether a file must give it."""
        return self.default is _REQUIRED


@dataclass(frozen=True)
class Combinator:
    """An operator that makes a formula of formulas.

    Attributes:
        name: Its name.
        operands: Names of its operands; ``()`` for any number, ``("",)`` for one without a name.
        temporal: Whether it speaks of several states of a stage.
        spelling: Another name that files (not models) may use.
    """

    name: str
    operands: tuple[str, ...]
    temporal: bool = False
    spelling: str = ""

    def written(self, of: str) -> Kind:
        """What stands under its name, where operands are formulas of the kind ``of``."""
        if not self.operands:
            return Items(Ref(of), "needs at least one condition")
        return Ref(of) if self.operands == ("",) else Fields(tuple(Field(name, Ref(of)) for name in self.operands))


COMBINATORS: dict[str, Combinator] = {
    combinator.name: combinator
    for combinator in (
        Combinator("not", ("",)),
        Combinator("all", (), spelling="and"),
        Combinator("any", (), spelling="or"),
        Combinator("always", ("",), temporal=True),
        Combinator("eventually", ("",), temporal=True),
        Combinator("until", ("hold", "reach"), temporal=True),
    )
}
"""Operators by name."""


@dataclass(frozen=True)
class Formula:
    """A kind of formula: a relation or a combination.

    Attributes:
        also: The kind of formula that it may be as well; empty for none.
        relations: Relations it may be, see :attr:`grape.costs.vocabulary.Relation.group`; empty for none.
        combined: Kind of the operands of ``not``, ``all`` and ``any``; empty where these are not accepted.
        temporal: Kind of the operands of operators over time.
    """

    also: str = ""
    relations: str = ""
    combined: str = ""
    temporal: str = ""


_NAME = Field("name", Name(), "what the specification calls it")
_ENTRY = Field("name", Name(reserved=RESERVED_NAMES), "unique among its neighbors")
_DESCRIPTION = Field("description", Scalar("text"), "for people", "")
_SUBGOAL = Field("subgoal", Items(Ref("subgoal")), "constraints at the last state", ())
_PATH = Field("path", Items(Ref("path")), "constraints over the stage", ())
_AGGREGATE = Field("aggregate", Choice("aggregation", AGGREGATIONS), "how its values at the states become one")
_OFFSET = Fields(tuple(Field(axis, Amount("m", signed=True), default=0.0) for axis in "xyz"))


def _unfinished(meaning: str, default: float | None) -> Field:
    return Field("unfinished", Amount("ratio"), meaning, default)


def _source(*origin: Field) -> Fields:
    return Fields((_NAME, *origin, _DESCRIPTION))


def _constraint(cost: str, *more: Field) -> Fields:
    return Fields(
        (
            _ENTRY,
            Field("cost", Ref(cost), "what is measured: a relation, or a formula whose violation is the cost"),
            Field("weight", Scalar("weight"), "lambda, per unit of the cost"),
            Field(
                "objectives",
                Items(Choice("objective", OBJECTIVES), f"at least one of {', '.join(OBJECTIVES)}"),
                "tags by which preferences reach it",
            ),
            *more,
            Field("threshold", Amount(), "tau: costs up to it are free", 0.0),
            Field("worst", Amount(), "largest cost that is charged", None),
            _DESCRIPTION,
        )
    )


_STAGE = Fields(
    (
        _ENTRY,
        Field("done_when", Ref("condition"), "the stage ends at its first state where this holds"),
        _DESCRIPTION,
        Field("for", Amount("steps", positive=True), "how many states in a row 'done_when' must have held", 1.0),
        _unfinished("charged when the episode ends before the stage", None),
        _SUBGOAL,
        _PATH,
    )
)

_SOURCES = (
    _source(Field("object", Name("keypoint"), "the simulator's object or place, by its recorded name")),
    _source(
        Field(
            "picture",
            Whole(0, 9999, "{!r} is no number of a point on the image; write e.g. 3"),
            "number of a point on the image that a model was shown",
        )
    ),
    _source(Field("track", Name(), "a point that a tracker followed, by the tracker's name")),
    _source(
        Field("mean_of", Items(Name(), "needs at least one keypoint"), "keypoints whose mean it is"),
        Field("offset", _OFFSET, "added to the mean along the world's axes", None),
    ),
)

DEFINITIONS: dict[str, Formula | tuple[Kind, ...]] = {
    "keypoint": (Name("keypoint"), *_SOURCES),
    "relation": Formula(relations="bounded"),
    "state_formula": Formula("relation", combined="state_formula"),
    "condition": Formula("relation", combined="condition", temporal="state_formula"),
    "formula": Formula("relation", combined="formula", temporal="formula"),
    "state_cost": Formula("state_formula", "of states"),
    "stage_cost": Formula(relations="of stages", combined="formula", temporal="formula"),
    "subgoal": (_constraint("state_cost"),),
    "path": (_constraint("state_cost", _AGGREGATE), _constraint("stage_cost")),
    "stage": (_STAGE,),
}
"""Constructs that others refer to, each with its alternatives."""

COSTS = ("state_cost", "stage_cost")
"""Kinds of formulas that constraints charge."""

PROVENANCES = tuple(source.fields[1].name for source in _SOURCES)
"""What a keypoint's richer form may name as its origin: exactly one of these fields."""

OUTCOME = Fields((_unfinished("what a failure costs", 1.0), _SUBGOAL))
"""How the end is judged."""

SPECIFICATION = Fields(
    (
        Field("version", Whole(1, 1, "{} is not known; this is 1"), "of the language"),
        Field("limit", Amount("steps"), "decisions after which an episode ends; durations are parts of it"),
        Field("keypoints", Items(Ref("keypoint")), "keypoints it may speak of"),
        Field("signals", Items(Name("signal")), "signals it may speak of"),
        Field("stages", Items(Ref("stage"), f"from 1 to {MAX_STAGES} stages are needed, found 0"), "in order"),
        Field("suite", Name(), "whose names are used", ""),
        Field("task", Name(), "recordings of other tasks are refused", ""),
        Field("description", Scalar("text"), "for people", ""),
        Field("control_hz", Scalar("rate"), "decisions a second; allows seconds", None),
        Field(
            "any_order",
            Items(Items(Name(), "needs at least one stage")),
            "groups of stages that may change places; the cheapest order counts",
            (),
        ),
        Field("every_stage", Fields((_SUBGOAL, _PATH)), "what each stage gets unless it has one of that name", None),
        Field("outcome", OUTCOME, "judged at the last state, whatever the stages did", None),
    )
)
"""The whole file."""
