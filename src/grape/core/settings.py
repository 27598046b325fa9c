"""Settings: frozen dataclasses, written to and read from plain mappings and YAML, strictly.

A settings class is a frozen dataclass whose fields are ``bool, int, float, str, Path``, ``Literal``, ``X | None``,
tuples of these, mappings of strings to these, or further settings classes.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from grape.core.errors import DataError, SettingsError, did_you_mean
from grape.core.files import write_text
from grape.core.reading import MAX_INTEGER, parse_yaml, read_file

__all__ = ["load_settings", "read_yaml", "save_settings", "settings_from_dict", "settings_to_dict"]

T = TypeVar("T")


def settings_to_dict(settings: Any) -> Any:
    """Plain JSON/YAML value of a settings object; paths become strings, tuples lists."""
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        return {item.name: settings_to_dict(getattr(settings, item.name)) for item in dataclasses.fields(settings)}
    if isinstance(settings, Mapping):
        return {str(key): settings_to_dict(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [settings_to_dict(value) for value in settings]
    if isinstance(settings, Path):
        return str(settings)
    return settings


def settings_from_dict(kind: type[T], data: Mapping[str, Any], base: T | None = None, where: str = "") -> T:
    """Build settings from a mapping.

    Args:
        kind: The settings class.
        data: Values by field name; fields that are absent keep ``base``'s value or the class's default.
        base: Settings to start from.
        where: Prefix for messages, e.g. ``"train."``.

    Raises:
        SettingsError: A key is unknown or a value has the wrong type.
    """
    if not isinstance(data, Mapping):
        raise SettingsError(f"{where or kind.__name__}: expected a mapping, found {type(data).__name__}.")
    hints = typing.get_type_hints(kind)
    names = [item.name for item in dataclasses.fields(typing.cast(Any, kind)) if item.init]
    values: dict[str, Any] = {} if base is None else {name: getattr(base, name) for name in names}
    for key, value in data.items():
        if key not in names:
            raise SettingsError(f"Unknown setting '{where}{key}'.", did_you_mean(str(key), names))
        values[key] = _convert(hints[key], value, values.get(key), f"{where}{key}")
    try:
        return kind(**values)
    except TypeError as error:
        raise SettingsError(f"{where or kind.__name__}: {error}.") from error


def _convert(hint: Any, value: Any, base: Any, where: str) -> Any:
    """``value`` as the type ``hint`` asks, or a SettingsError naming ``where``."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _convert(arguments[0], value, base, where)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        problems = []
        for option in arguments:
            if option is type(None):
                continue
            try:
                return _convert(option, value, base, where)
            except SettingsError as error:
                problems.append(error)
        raise problems[0]
    if origin is typing.Literal:
        if value not in arguments:
            raise SettingsError(
                f"Setting '{where}' is {value!r}.", did_you_mean(str(value), [str(option) for option in arguments])
            )
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise SettingsError(f"Setting '{where}' needs a list, found {value!r}.")
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_convert(arguments[0], item, None, f"{where}[{i}]") for i, item in enumerate(value))
        if len(arguments) != len(value):
            raise SettingsError(f"Setting '{where}' needs {len(arguments)} values, found {len(value)}.")
        return tuple(
            _convert(option, item, None, f"{where}[{i}]")
            for i, (option, item) in enumerate(zip(arguments, value, strict=True))
        )
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise SettingsError(f"Setting '{where}' needs a mapping, found {value!r}.")
        return {str(key): _convert(arguments[1], item, None, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return settings_from_dict(hint, value, base, f"{where}.")
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if isinstance(value, str | Path):
        _check_text(str(value), hint, where)
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise SettingsError(f"Setting '{where}' is an integer of more than 64 bits.")
    if hint is Any:
        return value
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 3e-4 as a string
        try:
            return float(value)
        except ValueError:
            pass
    if hint is int and isinstance(value, bool):
        raise SettingsError(f"Setting '{where}' needs a whole number, found {value!r}.")
    if isinstance(hint, type) and isinstance(value, hint):
        return value
    raise SettingsError(f"Setting '{where}' needs {getattr(hint, '__name__', hint)}, found {value!r}.")


def _check_text(text: str, hint: Any, where: str) -> None:
    """Refuse text that cannot be written, and paths that no file can have."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SettingsError(f"Setting '{where}' is not valid Unicode text: {text[:40]!a}.") from error
    if hint is Path and "\0" in text:
        raise SettingsError(f"Setting '{where}' is no path: it holds a NUL character.")


def read_yaml(path: Path) -> Any:
    """Read a settings file; None where it is empty.

    Raises:
        SettingsError: The file is missing or not plain YAML, see :func:`grape.core.reading.parse_yaml`.
    """
    try:
        return parse_yaml(read_file(path), str(path), hint="Fix the file, or leave it out.")
    except DataError as error:
        raise SettingsError(error.message, error.hint) from error


def load_settings(kind: type[T], path: Path, base: T | None = None) -> T:
    """Read settings of class ``kind`` from a YAML file over ``base``."""
    data = read_yaml(path)
    return settings_from_dict(kind, {} if data is None else data, base)


def save_settings(path: Path, settings: Any) -> None:
    """Write settings atomically as YAML."""
    write_text(path, yaml.safe_dump(settings_to_dict(settings), sort_keys=False))
