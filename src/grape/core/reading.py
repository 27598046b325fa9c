"""Reading files and documents from outside: bounded, regular files only, plain JSON and YAML.

Nothing that a file contains may hang, exhaust memory, run code or end in a traceback. So every file from outside is
opened by :func:`read_file` or :func:`open_file`, and every JSON or YAML document is parsed by :func:`parse_json` or
:func:`parse_yaml`, which give the same plain values: mappings with text keys, lists, text, numbers, booleans, None.

A dataclass that files hold is marked by :func:`record`. :func:`decode` accepts exactly its fields: no unknown ones, no
missing ones without a default, no text where a number is due, no NaN; the message names the field and what is wrong.
"""

import functools
import json
import math
import os
import re
import stat
from collections.abc import Hashable
from dataclasses import fields, is_dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args, get_type_hints

import yaml

from grape.core.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from pydantic import TypeAdapter


__all__ = [
    "MAX_DOCUMENT_BYTES",
    "MAX_INTEGER",
    "allowed_root",
    "decode",
    "encode",
    "open_file",
    "parse_json",
    "parse_yaml",
    "read_file",
    "record",
]

MAX_DOCUMENT_BYTES = 64 * 2**20
"""Of a JSON or YAML document; the largest genuine ones are tokenizers and indices of checkpoints, below 20 MB."""
MAX_YAML_CHARACTERS = 4 * 2**20
"""PyYAML needs about 10 microseconds and 1 kB a character."""
MAX_DEPTH = 64
"""Of nested lists and mappings."""
MAX_INTEGER = 2**63 - 1
"""Larger ones, or below its negative, are refused."""


def open_file(path: Path, *, max_bytes: int | None = None, within: Path | None = None) -> BufferedReader:
    """Open a regular file for reading, without ever waiting for a writer of a FIFO or reading from a device.

    Args:
        path: The file; links are followed.
        max_bytes: Larger files are refused.
        within: The file must lie in this folder after all links are resolved; see :func:`allowed_root`.

    Raises:
        DataError: The path is missing, no regular file, unreadable, too large, or leads out of ``within``.
    """
    try:
        if within is not None and not path.resolve().is_relative_to(allowed_root(within).resolve()):
            raise DataError(
                f"{path} is a link that leads out of {within}.", "Replace the link by the file, if you trust it."
            )
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.", "Check the path, or run the verb that writes it.") from error
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a NUL byte; RuntimeError: a loop of links
        raise DataError(f"{str(path)!r} cannot be opened: {_reason(error)}.", "Check the path.") from error
    state = os.fstat(descriptor)
    problem = ""
    if not stat.S_ISREG(state.st_mode):
        problem = f"{path} is {_file_kind(state.st_mode)}, not a regular file."
    elif max_bytes is not None and state.st_size > max_bytes:
        problem = f"{path} has {state.st_size:,} bytes; at most {max_bytes:,} are read."
    if problem:
        os.close(descriptor)
        raise DataError(problem, "Is it the right file?")
    return os.fdopen(descriptor, "rb")


def allowed_root(folder: Path) -> Path:
    """The folder that files of ``folder`` may lie in after links are resolved.

    That is the folder itself. In the cache of the Hugging Face hub, whose snapshots consist of links into the folder
    ``blobs`` beside them, it is the repository's folder.
    """
    absolute = Path(os.path.abspath(folder))
    for parent in absolute.parents:
        if parent.name == "snapshots" and (parent.parent / "blobs").is_dir():
            return parent.parent
    return folder


def read_file(path: Path, *, max_bytes: int = MAX_DOCUMENT_BYTES, within: Path | None = None) -> bytes:
    """The bytes of a regular file of bounded size.

    Raises:
        DataError: As :func:`open_file`; also where the file grows beyond ``max_bytes`` while it is read.
    """
    with open_file(path, max_bytes=max_bytes, within=within) as handle:
        try:
            data = handle.read(min(os.fstat(handle.fileno()).st_size, max_bytes) + 1)
            if handle.peek(1):  # it grows, or is one of those that say to be empty
                data += handle.read(max_bytes + 1 - len(data))
        except OSError as error:
            raise DataError(f"{path} cannot be read: {_reason(error)}.", "Check the file.") from error
    if len(data) > max_bytes:
        raise DataError(f"{path} has more than {max_bytes:,} bytes.", "Is it the right file?")
    return data


def parse_json(
    text: str | bytes, source: str, *, hint: str = "", allow_nonfinite: bool = False, max_integer: int = MAX_INTEGER
) -> Any:
    """The plain value of a JSON document.

    Args:
        text: The document; bytes are UTF-8 (with or without a byte-order mark).
        source: What messages call it, normally its path.
        hint: What the reader can do where it is not readable.
        allow_nonfinite: Accept NaN and Infinity, which Python's writer produces and JSON does not know.
        max_integer: Larger integers are refused.

    Raises:
        DataError: Not JSON, a name given twice in one object, nested deeper than ``MAX_DEPTH``, a number beyond 64
            bits, or text that is no Unicode (lone surrogates).
    """
    try:
        value = json.loads(_decoded(text), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise DataError(f"{source} cannot be read as JSON: {reason}.", hint) from error
    problem = _problem(value, allow_nonfinite, max_integer)
    if problem:
        raise DataError(f"{source} cannot be used: {problem}.", hint)
    return value


def parse_yaml(text: str | bytes, source: str, *, hint: str = "", max_characters: int = MAX_YAML_CHARACTERS) -> Any:
    """The plain value of the one YAML document in ``text`` (JSON is YAML, too); None where it is empty.

    Dates stay text. Anchors, aliases, tags, repeated keys and keys that are no scalars are refused, and so are numbers
    that readers of YAML 1.1 and 1.2 take for different ones (``010``, ``1:30``).

    Args:
        text: The document; bytes are UTF-8.
        source: What messages call it, normally its path.
        hint: What the reader can do where it is not readable.
        max_characters: Longer documents are refused.

    Raises:
        DataError: Not YAML, or what is refused; the line is named.
    """
    try:
        document = _decoded(text)
        if len(document) > max_characters:
            raise DataError(f"{source} has {len(document):,} characters; at most {max_characters:,} are read.", hint)
        _check_events(document)
        value = yaml.load(document, Loader=_PlainLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        parts = (getattr(error, "context", None), getattr(error, "problem", None))
        reason = ", ".join(part for part in parts if part) or str(error).partition("\n")[0]
        raise DataError(f"{source}{where}: cannot be read as YAML or JSON: {reason}.", hint) from error
    except (ValueError, OverflowError, RecursionError) as error:  # OverflowError: an escape beyond Unicode
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise DataError(f"{source} cannot be read as YAML or JSON: {reason}.", hint) from error
    problem = _problem(value, allow_nonfinite=True)
    if problem:
        raise DataError(f"{source} cannot be used: {problem}.", hint)
    return value


def _decoded(text: str | bytes) -> str:
    return text.decode("utf-8-sig") if isinstance(text, bytes) else text


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _file_kind(mode: int) -> str:
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((name for check, name in kinds if check(mode)), "something else")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names_before: set[str] = set()
        twice = next(name for name, _ in pairs if name in names_before or names_before.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"{twice!r} is given twice in one object")
    return table


def _problem(value: Any, allow_nonfinite: bool, max_integer: int = MAX_INTEGER) -> str:
    """What makes a parsed value unusable later; empty where nothing does."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for item in level:
            kind = type(item)  # exact classes, the commonest first: large files spend their time here
            if kind is str:
                if not item.isascii() and _SURROGATE.search(item):
                    return f"{item[:40]!r} is not valid Unicode text (a lone surrogate)"
            elif kind is float and not allow_nonfinite and not math.isfinite(item):
                return f"{item} is not a finite number"
            elif kind is dict:
                below += [*(key for key in item if type(key) is not str or not key.isascii()), *item.values()]
            elif kind is list:
                below += item
            elif kind is int and abs(item) > max_integer:
                return "it holds an integer of more than 64 bits"
        if not below:
            return ""
        level = below
    return f"it is nested deeper than {MAX_DEPTH} levels"


_SURROGATE = re.compile("[\ud800-\udfff]")


def _check_events(text: str) -> None:
    """Refuse YAML events whose composition could exhaust memory.

    Raises:
        yaml.YAMLError: Anchors, aliases, tags or deep nesting, marked.
    """
    depth = 0
    event: Any
    for event in yaml.parse(text, Loader=_PlainLoader):
        problem = ""
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            problem = "anchors (&name) and aliases (*name) are not accepted: write the value out"
        elif getattr(event, "tag", None):
            problem = f"tags such as {event.tag} are not accepted"
        elif depth > MAX_DEPTH:
            problem = f"nested deeper than {MAX_DEPTH} levels"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


class _PlainLoader(yaml.SafeLoader):
    """The safe loader restricted to JSON's values; every problem is a marked YAML error."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, "re.Pattern[str]"]]] = {}  # noqa: RUF012 (as in the base class)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        table: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _marked(key_node, "a key must be plain text")
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                key = key_node.value
            if key in table:
                raise _marked(key_node, f"{key!r} is given twice")
            table[key] = self.construct_object(value_node, deep=True)
        return table

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        text = node.value
        digits = text.lstrip("+-")
        if re.fullmatch(r"0[0-9]+", digits):
            raise _marked(node, f"{text} may mean {int(digits)} or an octal number: write it otherwise")
        if len(digits) > 40:
            raise _marked(node, f"an integer of {len(digits)} digits is not accepted")
        return int(text, 0)

    def construct_number(self, node: yaml.ScalarNode) -> float:
        text = node.value.lower()
        if text.lstrip("+-") in (".inf", ".nan"):
            return float(text.replace(".", "", 1))
        return float(text)

    def construct_ambiguous(self, node: yaml.ScalarNode) -> Any:
        raise _marked(node, f"{node.value} may mean a number in base 60: put it in quotes")


def _marked(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


_TAG = "tag:yaml.org,2002:"
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", list("yYnNtTfFoO")),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+0123456789."),
    ),
    ("ambiguous", r"[-+]?[0-9]+(?::[0-5]?[0-9])+", list("-+0123456789")),
):
    _PlainLoader.add_implicit_resolver(_TAG + _tag, re.compile(rf"^(?:{_pattern})$"), _first)
_PlainLoader.add_constructor(_TAG + "int", _PlainLoader.construct_integer)
_PlainLoader.add_constructor(_TAG + "float", _PlainLoader.construct_number)
_PlainLoader.add_constructor(_TAG + "ambiguous", _PlainLoader.construct_ambiguous)
_PlainLoader.add_constructor(_TAG + "map", _PlainLoader.construct_mapping)


T = TypeVar("T")
Kind = TypeVar("Kind", bound=type[Any])

_MAX_PROBLEMS = 5


def record(kind: Kind) -> Kind:
    """Mark a dataclass as a record of files."""
    kind.__pydantic_config__ = {"strict": True, "extra": "forbid", "allow_inf_nan": False}
    return kind


@functools.cache
def _adapter(kind: Hashable) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter  # here, so that only who reads a record waits for it

    return TypeAdapter(cast(Any, kind))


def decode(kind: type[T], value: Any, where: str, hint: str = "", text: str = "") -> T:
    """An object of class ``kind`` from its JSON value.

    Args:
        kind: A dataclass marked by :func:`record`, or any type that is made of such classes.
        value: What was read, see :func:`grape.core.reading.parse_json`.
        where: What messages call it, e.g. the file and the line.
        hint: What the reader can do.
        text: In place of the value, its text, which ``parse_json`` has accepted before.

    Raises:
        DataError: The value is no ``kind``; up to five fields are named with what is wrong.
    """
    try:
        # JSON's lists are accepted for tuples in this form alone.
        result: T = _adapter(cast(Hashable, kind)).validate_json(text or json.dumps(value))
    except ValueError as error:  # pydantic's errors are such
        raise DataError(f"{where}: {_field_problems(error, kind)}.", hint) from None
    return result


def encode(value: Any) -> Any:
    """The JSON value of a record, which :func:`decode` takes."""
    return _adapter(cast(Hashable, type(value))).dump_python(value, mode="json")


def _field_problems(error: ValueError, kind: Any) -> str:
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    problems = error.errors(include_url=False, include_context=True)
    texts = [_field_problem(item, kind) for item in problems[:_MAX_PROBLEMS]]
    more = f"; and {len(problems) - _MAX_PROBLEMS} more problems" if len(problems) > _MAX_PROBLEMS else ""
    return "; ".join(texts) + more


def _field_problem(item: Any, kind: Any) -> str:
    place = ""
    for part in item["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f"{'.' if place else ''}{part}"
    if item["type"] == "missing":
        return f"field '{place}' is missing"
    if item["type"] == "unexpected_keyword_argument":
        known_fields = _known_fields(kind, item["loc"][:-1])
        return f"field '{place}' is unknown. {did_you_mean(str(item['loc'][-1]), known_fields)}".rstrip(".")
    message = item["msg"].replace("Input should be", "should be").replace("Value error, ", "")
    return f"{place or 'the value'} is {item['input']!r:.60}: {message}"


def _known_fields(kind: Any, place: tuple[int | str, ...]) -> list[str]:
    """Fields of the record at ``place`` in a ``kind``, for suggestions."""
    record = _record_in(kind)
    for part in place:
        hints = get_type_hints(record) if record is not None else {}
        if part in hints:  # not an index or a key of what was found already
            record = _record_in(hints[str(part)])
    return [item.name for item in fields(record)] if record is not None else []


def _record_in(kind: Any) -> Any:
    """The first record that a type such as ``tuple[Score, ...] | None`` is made of; None for none."""
    if is_dataclass(kind):
        return kind
    return next((record for member in get_args(kind) if (record := _record_in(member)) is not None), None)
