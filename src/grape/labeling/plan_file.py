"""The order of couples that all raters of a folder of votes share, recorded at the first start: ``plan.json``.

Scores, judges and settings may be others at a later start; the order stays, so that raters can be compared, and the
file says what a couple's place rests on.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from grape.core.errors import DataError
from grape.core.files import read_json, write_json
from grape.core.reading import decode, encode, record
from grape.labeling.choosing import Plan, order_couples
from grape.labeling.couples import Candidates

__all__ = ["PLAN_FILE", "shared_plan"]

PLAN_FILE = "plan.json"
_FIX = "Restore it from a copy, or remove it: the order is then made anew."


@record
@dataclass(frozen=True)
class _Couple:
    """A couple, as the file names it.

    Attributes:
        a: One episode.
        b: The other.
        uncertainty: How little was known of it when it was given its place.
    """

    a: str
    b: str
    uncertainty: float


@record
@dataclass(frozen=True)
class _Recorded:
    """What the file holds.

    Attributes:
        seed: Of the sides, of equals and of which couples come again.
        sources: Whose opinions the uncertainties rest on; none where the order is drawn.
        couples: In the order in which they are shown.
    """

    seed: int
    sources: tuple[str, ...]
    couples: tuple[_Couple, ...]


def shared_plan(
    folder: Path, candidates: Candidates, couples: int, repeats: float, seed: int, warn: Callable[[str], None]
) -> Plan:
    """The plan of a folder of votes; made and recorded where there is none.

    Couples that are gone are left out, new ones come last, and are recorded, too.

    Args:
        folder: Folder of the raters' files.
        candidates: The couples that there are now.
        couples: How many each rater is shown.
        repeats: How many of them come again, as a share.
        seed: Of a plan that is made now.
        warn: Hears of what differs from the recorded plan.

    Raises:
        DataError: The recorded plan is damaged.
        GrapeError: It cannot be written.
    """
    path = folder / PLAN_FILE
    recorded = _Recorded(seed, candidates.sources, ())
    if path.exists():
        recorded = decode(_Recorded, read_json(path, hint=_FIX, within=folder), str(path), _FIX)
        if recorded.seed != seed:
            warn(f"{path} holds an order of --seed {recorded.seed}: it is kept.")
    planned = {frozenset((couple.a, couple.b)) for couple in recorded.couples}
    if len(planned) < len(recorded.couples) or any(len(names) < 2 for names in planned):
        raise DataError(f"{path} names a couple twice, or an episode as its own opponent.", _FIX)
    order = order_couples(candidates.uncertain, candidates.states, recorded.seed)
    new = tuple(
        _Couple(*candidates.names[place], float(candidates.uncertain[place]))
        for place in order
        if frozenset(candidates.names[place]) not in planned
    )
    if new:
        recorded = replace(recorded, couples=(*recorded.couples, *new))
        value: dict[str, Any] = encode(recorded)
        write_json(path, value)
    present = {frozenset(names) for names in candidates.names}
    names = tuple((couple.a, couple.b) for couple in recorded.couples if frozenset((couple.a, couple.b)) in present)
    if len(names) < len(recorded.couples):
        gone = len(recorded.couples) - len(names)
        warn(f"{gone} couple{'s' * (gone > 1)} of {path} left out: an episode is gone.")
    return Plan(names, tuple(range(len(names))), min(couples, len(names)), repeats, recorded.seed)
