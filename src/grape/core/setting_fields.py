"""Fields of settings classes: default, accepted range, group on the help page, and whether results depend on them.

A setting that several verbs share is declared once, in a base class; a verb with another default takes the field over
by :func:`with_default`.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass
from typing import Any, Literal

from grape.core.errors import SettingsError

__all__ = ["Range", "check_ranges", "flag_of", "setting", "with_default"]

Identity = bool | Literal["unless default"]


@dataclass(frozen=True)
class Range:
    """Numbers that a setting accepts; NaN is never among them.

    Attributes:
        low: Lowest value.
        high: Highest value, or None.
        open_low: Whether ``low`` itself is excluded.
        open_high: Whether ``high`` itself is excluded.
    """

    low: float
    high: float | None = None
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        if isinstance(value, float) and not math.isfinite(value):
            return False
        above = value > self.low if self.open_low else value >= self.low
        below = self.high is None or (value < self.high if self.open_high else value <= self.high)
        return above and below

    def __str__(self) -> str:
        if self.high is None:
            return f"above {self.low:g}" if self.open_low else f"at least {self.low:g}"
        if self.open_low or self.open_high:
            lower = f"above {self.low:g}" if self.open_low else f"at least {self.low:g}"
            return f"{lower} and {'below' if self.open_high else 'at most'} {self.high:.10g}"
        return f"between {self.low:g} and {self.high:.10g}"


def setting(
    default: Any = MISSING,
    *,
    group: str = "",
    range: Range | None = None,
    identity: Identity = True,
    common: bool = False,
    kw_only: bool = False,
    factory: Callable[[], Any] | None = None,
    default_identity: Any = None,
) -> Any:
    """A field of a settings class. Fields with a default are given by name only.

    Args:
        default: Its default; without one the setting is required.
        group: Heading under which help pages show it.
        range: Accepted numbers, checked by :func:`check_ranges`.
        identity: Whether results depend on it, so that a run with another value is another run; ``"unless default"``
            for settings that older runs do not have.
        common: Whether the short help page shows it.
        kw_only: Whether a required setting, too, is given by name only; a base class needs that.
        factory: Makes the default, where it is a mapping.
        default_identity: What stands for a default of None in a run's identity, where older runs hold a value.
    """
    metadata = {
        "group": group,
        "range": range,
        "identity": identity,
        "common": common,
        "default_identity": default_identity,
    }
    if factory is not None:
        return dataclasses.field(default_factory=factory, kw_only=True, metadata=metadata)
    if default is MISSING:
        return dataclasses.field(kw_only=kw_only, metadata=metadata)
    return dataclasses.field(default=default, kw_only=True, metadata=metadata)


def with_default(base: type[Any], name: str, default: Any, **metadata: Any) -> Any:
    """The field ``name`` of a base class with another default.

    Args:
        base: The class that declares it.
        name: The field.
        default: Its default in the class that takes it over.
        metadata: What else differs, as for :func:`setting`, e.g. ``identity=False``.
    """
    (field,) = (field for field in dataclasses.fields(base) if field.name == name)
    return dataclasses.field(default=default, kw_only=True, metadata={**field.metadata, **metadata})


def flag_of(name: str) -> str:
    """What a setting is called on the command line."""
    return f"--{name.replace('_', '-')}"


def check_ranges(settings: Any) -> None:
    """Refuse numbers out of range.

    Raises:
        SettingsError: A number lies outside of its field's range or is not finite; the setting is named.
    """
    for field in dataclasses.fields(settings):
        accepted, value = field.metadata.get("range"), getattr(settings, field.name)
        if accepted is not None and value is not None and value not in accepted:
            raise SettingsError(f"{flag_of(field.name)} is {value}.", f"It must be {accepted}.")
