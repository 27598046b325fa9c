"""Settings: frozen dataclasses, written to and read from plain mappings and YAML, strictly.

A settings class is a frozen dataclass whose fields are ``bool, int, float, str, Path``, ``Literal``, ``X | None``,
tuples of these, mappings of strings to these, or further settings classes. A field (:func:`setting`) states its
accepted range, its group on the help page and whether results depend on it. A setting that several verbs share is
declared once, in a base class; a verb with another default takes the field over by :func:`with_default`.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from grape.core.errors import DataError, SettingsError, did_you_mean
from grape.core.files import write_text
from grape.core.reading import MAX_INTEGER, parse_yaml, read_file
from grape.core.remote.addresses import path_text
from grape.core.remote.mirror_names import with_addresses

__all__ = [
    "Marks",
    "Range",
    "check_ranges",
    "flag_of",
    "load_settings",
    "read_marked_yaml",
    "read_yaml",
    "save_settings",
    "setting",
    "settings_from_dict",
    "settings_to_dict",
    "with_default",
]

T = TypeVar("T")

_YES, _NO = ("yes", "true", "on"), ("no", "false", "off")


@dataclass(frozen=True)
class Marks:
    """Where the values of a YAML document stand and how they are written.

    Attributes:
        source: The document's path.
        lines: Line, from 1, by setting: ``"train.rate"``, ``"tasks[0]"``.
        texts: How a value without quotes is written: ``yes`` where the value is True, ``1e3`` where it is 1000.0.
    """

    source: str = ""
    lines: Mapping[str, int] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)

    def name(self, where: str) -> str:
        """What messages call a setting: its name and, where it is known, its place."""
        line = self.lines.get(where)
        return f"'{where}'" if line is None else f"'{where}' ({self.source}, line {line})"


_NO_MARKS = Marks()


def settings_to_dict(settings: Any) -> Any:
    """Plain JSON/YAML value of a settings object; paths become strings, tuples lists."""
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        return {item.name: settings_to_dict(getattr(settings, item.name)) for item in dataclasses.fields(settings)}
    if isinstance(settings, Mapping):
        return {str(key): settings_to_dict(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [settings_to_dict(value) for value in settings]
    if isinstance(settings, Path):
        return path_text(settings)
    return settings


def settings_from_dict(kind: type[T], data: Any, base: T | None = None, where: str = "", marks: Marks = _NO_MARKS) -> T:
    """Build settings from a mapping.

    Args:
        kind: The settings class.
        data: Values by field name, with ``-`` or ``_``; fields that are absent keep ``base``'s value or the class's
            default.
        base: Settings to start from.
        where: Prefix for messages, e.g. ``"train."``.
        marks: How and where the values are written: a word is meant where ``yes`` or ``0`` stands for a text.

    Raises:
        SettingsError: A key is unknown or given twice, or a value has the wrong type.
    """
    if not isinstance(data, Mapping):
        name = marks.name(where.rstrip(".")) if where else kind.__name__
        raise SettingsError(f"{name}: expected a mapping of settings, found {_shown(data, where.rstrip('.'), marks)}.")
    hints = typing.get_type_hints(kind)
    defaults = {item.name: item.default for item in dataclasses.fields(typing.cast(Any, kind)) if item.init}
    names = list(defaults)
    values: dict[str, Any] = {} if base is None else {name: getattr(base, name) for name in names}
    spellings: dict[str, str] = {}
    for key, value in data.items():
        name, place = str(key).replace("-", "_"), f"{where}{key}"
        if name not in names:
            raise SettingsError(f"Unknown setting {marks.name(place)}.", did_you_mean(str(key), names))
        if name in spellings:
            raise SettingsError(
                f"Setting {marks.name(place)} is given twice, as '{spellings[name]}' and '{key}'.", "Keep one of them."
            )
        spellings[name] = str(key)
        start = values.get(name, None if defaults[name] is MISSING else defaults[name])
        values[name] = _convert(hints[name], value, start, place, marks)
    try:
        return kind(**values)
    except TypeError as error:
        raise SettingsError(f"{where or kind.__name__}: {error}.") from error


def _convert(hint: Any, value: Any, base: Any, where: str, marks: Marks) -> Any:
    """``value`` as the type ``hint`` asks, or a SettingsError naming ``where``."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _convert(arguments[0], value, base, where, marks)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, value, base, where, marks)
    if origin is typing.Literal:
        return _option(arguments, value, where, marks)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            value_text = _shown(value, where, marks)
            raise SettingsError(
                f"Setting {marks.name(where)} needs a list, found {value_text}.", f"Write [{value_text}]."
            )
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_convert(arguments[0], item, None, f"{where}[{i}]", marks) for i, item in enumerate(value))
        if len(arguments) != len(value):
            raise SettingsError(f"Setting {marks.name(where)} needs {len(arguments)} values, found {len(value)}.")
        return tuple(
            _convert(option, item, None, f"{where}[{i}]", marks)
            for i, (option, item) in enumerate(zip(arguments, value, strict=True))
        )
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise SettingsError(
                f"Setting {marks.name(where)} needs a mapping, found {_shown(value, where, marks)}.",
                "Write {name: value}.",
            )
        return {str(key): _convert(arguments[1], item, None, f"{where}.{key}", marks) for key, item in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return settings_from_dict(hint, value, base, f"{where}.", marks)
    return _scalar(hint, value, where, marks)


def _convert_union(arguments: tuple[Any, ...], value: Any, base: Any, where: str, marks: Marks) -> Any:
    """``value`` as the first type that takes it as it is, or else as it is written."""
    if value is None and type(None) in arguments:
        return None
    options = [option for option in arguments if option is not type(None)]
    if type(value) in options:
        return value
    problems = []
    for option in options:
        try:
            return _convert(option, value, base, where, marks)
        except SettingsError as error:
            problems.append(error)
    raise problems[0]


def _option(options: tuple[Any, ...], value: Any, where: str, marks: Marks) -> Any:
    """The one of a Literal's options that ``value``, or the word that it is written as, stands for."""
    words = [marks.texts[where]] if where in marks.texts else []
    if isinstance(value, bool):  # YAML 1.1 reads yes, no, on and off as booleans
        words += _YES if value else _NO
    elif isinstance(value, int):
        words.append(str(value))
    for option in options:
        if type(option) is type(value) and option == value:
            return option
    for word in words:
        if word in options:
            return word
    raise SettingsError(
        f"Setting {marks.name(where)} is {_shown(value, where, marks)}.",
        did_you_mean(str(marks.texts.get(where, value)), [str(option) for option in options]),
    )


_KINDS: Mapping[Any, tuple[str, str]] = {
    str: ("a text", "Put it in quotes."),
    Path: ("a path", "Put it in quotes."),
    int: ("a whole number (int)", ""),
    float: ("a number (float)", ""),
    bool: ("yes or no (bool)", "Write true or false."),
}


def _scalar(hint: Any, value: Any, where: str, marks: Marks) -> Any:
    if isinstance(value, str | Path):
        _check_text(str(value), where, marks)
    if hint is not float and isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise SettingsError(f"Setting {marks.name(where)} is an integer of more than 64 bits.")
    if hint is Any:
        return value
    if hint in (str, Path) and isinstance(value, bool | int | float) and where in marks.texts:
        value = marks.texts[where]
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML 1.1 reads 3e-4 as a text
        except (ValueError, OverflowError):
            pass
    if hint is bool and isinstance(value, str) and value.lower() in (*_YES, *_NO):
        return value.lower() in _YES
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    kind, advice = _KINDS.get(hint, (getattr(hint, "__name__", str(hint)), ""))
    raise SettingsError(f"Setting {marks.name(where)} needs {kind}, found {_shown(value, where, marks)}.", advice)


def _shown(value: Any, where: str, marks: Marks) -> str:
    """A value as it is written, for messages."""
    if value is None:
        return "nothing"
    value_text = marks.texts.get(where) or repr(value)
    return value_text if len(value_text) <= 80 else value_text[:77] + "..."


def _check_text(text: str, where: str, marks: Marks) -> None:
    """Refuse text that cannot be written, and NUL characters, which no path has."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SettingsError(f"Setting {marks.name(where)} is not valid Unicode text: {text[:40]!a}.") from error
    if "\0" in text:
        raise SettingsError(f"Setting {marks.name(where)} holds a NUL character.", "Take it out.")


def read_yaml(path: Path) -> Any:
    """Read a settings file; None where it is empty.

    Raises:
        SettingsError: The file is missing or not plain YAML, see :func:`grape.core.reading.parse_yaml`.
    """
    try:
        return parse_yaml(read_file(path), str(path), hint="Fix the file, or leave it out.")
    except DataError as error:
        raise SettingsError(error.message, error.hint) from error


def read_marked_yaml(path: Path) -> tuple[Any, Marks]:
    """Read a settings file as :func:`read_yaml` does, and how and where its values are written."""
    value = read_yaml(path)
    node = yaml.compose(read_file(path).decode("utf-8-sig"), Loader=yaml.SafeLoader)
    lines: dict[str, int] = {}
    texts: dict[str, str] = {}
    for where, scalar in _nodes(node, ""):
        lines[where] = scalar.start_mark.line + 1
        if isinstance(scalar, yaml.ScalarNode) and scalar.style is None:
            texts[where] = scalar.value
    return value, Marks(str(path), lines, texts)


def _nodes(node: yaml.Node | None, where: str) -> Iterator[tuple[str, yaml.Node]]:
    """All nodes by their setting's name; a document that was read before, so that its depth is bounded."""
    if where and node is not None:
        yield where, node
    if isinstance(node, yaml.MappingNode):
        for key, inner in node.value:
            yield from _nodes(inner, f"{where}.{key.value}" if where else str(key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, inner in enumerate(node.value):
            yield from _nodes(inner, f"{where}[{index}]")


def load_settings(kind: type[T], path: Path, base: T | None = None) -> T:
    """Read settings of class ``kind`` from a YAML file over ``base``."""
    data, marks = read_marked_yaml(path)
    return settings_from_dict(kind, {} if data is None else data, base, marks=marks)


def save_settings(path: Path, settings: Any) -> None:
    """Write settings atomically as YAML; folders in mirrors under the addresses that they stand for."""
    write_text(path, yaml.safe_dump(with_addresses(settings_to_dict(settings)), sort_keys=False))


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
    (item,) = (item for item in dataclasses.fields(base) if item.name == name)
    return dataclasses.field(default=default, kw_only=True, metadata={**item.metadata, **metadata})


def flag_of(name: str) -> str:
    """What a setting is called on the command line."""
    return f"--{name.replace('_', '-')}"


def check_ranges(settings: Any) -> None:
    """Refuse numbers out of range.

    Raises:
        SettingsError: A number lies outside of its field's range or is not finite; the setting is named.
    """
    for item in dataclasses.fields(settings):
        accepted, value = item.metadata.get("range"), getattr(settings, item.name)
        if accepted is not None and value is not None and value not in accepted:
            raise SettingsError(f"{flag_of(item.name)} is {value}.", f"It must be {accepted}.")
