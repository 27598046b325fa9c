"""Values in settings, at any depth."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["with_values"]

T = TypeVar("T")


def with_values(settings: T, change: Callable[[str, Any], Any]) -> T:
    """The settings with other values.

    Args:
        settings: A dataclass, with others in it.
        change: Gives the value to take from a field's name and its value; of a tuple it is asked for each item.
    """

    def changed(name: str, value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return with_values(value, change)
        return tuple(changed(name, item) for item in value) if isinstance(value, tuple) else change(name, value)

    values = {item.name: getattr(settings, item.name) for item in dataclasses.fields(settings)}  # type: ignore[arg-type]
    others = {name: changed(name, value) for name, value in values.items()}
    others = {name: value for name, value in others.items() if value != values[name]}
    return dataclasses.replace(settings, **others) if others else settings  # type: ignore[type-var]
