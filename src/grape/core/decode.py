"""Records from their JSON values: one strict validator for every file that holds dataclasses.

A class that is stored is marked by :func:`record`. :func:`decode` then accepts exactly its fields: no unknown ones, no
missing ones without a default, no text where a number is due, no NaN; the message names the field and what is wrong.
"""

import functools
import json
from collections.abc import Hashable
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args, get_type_hints

from grape.core.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["decode", "encode", "record"]

T = TypeVar("T")
Kind = TypeVar("Kind", bound=type[Any])

_MAX_PROBLEMS = 5


def record(kind: Kind) -> Kind:
    """Mark a dataclass as one that files hold."""
    kind.__pydantic_config__ = {"strict": True, "extra": "forbid", "allow_inf_nan": False}
    return kind


@functools.cache
def _adapter(kind: Hashable) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter  # here, so that only who reads a record waits for it

    return TypeAdapter(cast(Any, kind))


def decode(kind: type[T], value: Any, where: str, hint: str = "") -> T:
    """An object of class ``kind`` from its JSON value.

    Args:
        kind: A dataclass marked by :func:`record`, or any type that is made of such classes.
        value: What was read, see :func:`grape.core.reading.parse_json`.
        where: What messages call it, e.g. the file and the line.
        hint: What the reader can do.

    Raises:
        DataError: The value is no ``kind``; up to five fields are named with what is wrong.
    """
    try:
        # JSON's lists are accepted for tuples in this form alone.
        result: T = _adapter(cast(Hashable, kind)).validate_json(json.dumps(value))
    except ValueError as error:  # pydantic's errors are such
        raise DataError(f"{where}: {_problems(error, kind)}.", hint) from None
    return result


def encode(value: Any) -> Any:
    """The JSON value of a record, which :func:`decode` takes."""
    return _adapter(cast(Hashable, type(value))).dump_python(value, mode="json")


def _problems(error: ValueError, kind: Any) -> str:
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    found = error.errors(include_url=False, include_context=True)
    texts = [_problem(item, kind) for item in found[:_MAX_PROBLEMS]]
    more = f"; and {len(found) - _MAX_PROBLEMS} more problems" if len(found) > _MAX_PROBLEMS else ""
    return "; ".join(texts) + more


def _problem(item: Any, kind: Any) -> str:
    place = ""
    for part in item["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f"{'.' if place else ''}{part}"
    if item["type"] == "missing":
        return f"field '{place}' is missing"
    if item["type"] == "unexpected_keyword_argument":
        known = _known_fields(kind, item["loc"][:-1])
        return f"field '{place}' is unknown. {did_you_mean(str(item['loc'][-1]), known)}".rstrip(".")
    said = item["msg"].replace("Input should be", "should be").replace("Value error, ", "")
    return f"{place or 'the value'} is {item['input']!r:.60}: {said}"


def _known_fields(kind: Any, place: tuple[int | str, ...]) -> list[str]:
    """Fields of the record at ``place`` in a ``kind``, for suggestions."""
    found = _record_in(kind)
    for part in place:
        hints = get_type_hints(found) if found is not None else {}
        if part in hints:  # not an index or a key of what was found already
            found = _record_in(hints[str(part)])
    return [item.name for item in fields(found)] if found is not None else []


def _record_in(kind: Any) -> Any:
    """The first record that a type such as ``tuple[Score, ...] | None`` is made of; None for none."""
    if is_dataclass(kind):
        return kind
    return next((found for member in get_args(kind) if (found := _record_in(member)) is not None), None)
