"""Help pages of verbs, from the settings class alone: types, defaults, the docstring's attributes, and field metadata.

``--help`` shows what most users set, by group, and names the rest; ``--help-all`` explains every setting.
"""

import dataclasses
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from grape.core.settings import flag_of

__all__ = ["SettingHelp", "describe_settings", "help_page", "negated", "takes_several"]

MAX_WIDTH = 100
_FLAG_WIDTH = 30
_FIRST, _LAST = "Input and output", "More"


@dataclasses.dataclass(frozen=True)
class SettingHelp:
    """One setting as a help page shows it.

    Attributes:
        flag: For example ``--lr``, or ``--train.lr`` where it is nested.
        metavar: What the flag takes, e.g. ``FLOAT`` or ``{constant,linear}``; empty for switches.
        text: What it does.
        default: Its default as text; None where it is required.
        group: Heading.
        common: Whether the short page explains it.
    """

    flag: str
    metavar: str
    text: str
    default: str | None
    group: str
    common: bool


def describe_settings(
    kind: type[Any], hidden: Mapping[str, Sequence[str]] | None = None, default: Any = None, prefix: str = ""
) -> list[SettingHelp]:
    """Every setting of a class, those of nested classes included.

    Args:
        kind: The settings class.
        hidden: Fields of nested settings that are not offered, by the nested settings' name.
        default: An object with the defaults; by default those of the class.
        prefix: Put in front of names, e.g. ``"train."``.
    """
    hints, texts = typing.get_type_hints(kind), _texts(kind)
    rows: list[SettingHelp] = []
    marked = any(field.metadata.get("common") for field in dataclasses.fields(kind))
    for field in _own_first(kind):
        value = _class_default(field) if default is None else getattr(default, field.name)
        if dataclasses.is_dataclass(hints[field.name]):
            skipped = (hidden or {}).get(field.name, ())
            nested = describe_settings(hints[field.name], default=value, prefix=f"{prefix}{field.name}.")
            names = {f"--{prefix}{field.name}.{name.replace('_', '-')}" for name in skipped}
            rows += [
                dataclasses.replace(row, group=_nested_group(field.name, row.group), common=False)
                for row in nested
                if row.flag not in names
            ]
            continue
        rows.append(
            SettingHelp(
                flag=f"--{prefix}{flag_of(field.name)[2:]}",
                metavar=_metavar(hints[field.name]),
                text=texts.get(field.name, ""),
                default=None if value in (dataclasses.MISSING, tyro.MISSING) else _default_text(value),
                group=field.metadata.get("group") or _FIRST,
                common=bool(field.metadata.get("common", False)) or not marked,
            )
        )
    return rows


def help_page(
    name: str,
    kind: type[Any],
    *,
    everything: bool,
    examples: Sequence[str] = (),
    positionals: Sequence[str] = (),
    hidden: Mapping[str, Sequence[str]] | None = None,
    default: Any = None,
    recipes: Mapping[str, str] | None = None,
    width: int = MAX_WIDTH,
) -> str:
    """The page of a verb.

    Args:
        name: The verb.
        kind: Its settings class.
        everything: Whether to explain every setting.
        examples: Command lines.
        positionals: Settings that may be given without their flag.
        hidden: As for :func:`describe_settings`.
        default: As for :func:`describe_settings`.
        recipes: What ``--recipe`` takes, and what each is.
        width: Columns to fill.
    """
    rows = describe_settings(kind, hidden, default)
    leading = {flag_of(name): name.upper() + " ..." * takes_several(kind, name) for name in positionals}
    optional = {row.flag for row in rows if row.default is not None}
    names = [f"[{word}]" if flag in optional else word for flag, word in leading.items()]
    required = [f"{row.flag} {row.metavar}" for row in rows if row.flag not in {*optional, *leading}]
    lines = [*textwrap.wrap(" ".join(["usage: grape", name, *names, *required, "[options]"]), width), ""]
    description = (inspect.getdoc(kind) or "").split("Attributes:")[0].strip()
    for paragraph in description.split("\n\n"):
        lines += [*textwrap.wrap(" ".join(paragraph.split()), width), ""]
    visible_rows = [row for row in rows if everything or row.common]
    for group in _groups(visible_rows):
        lines += [f"{group}:"]
        for row in visible_rows:
            if row.group == group:
                lines += _entry(row, width, leading.get(row.flag, ""))
        lines += [""]
    other_rows = [row for row in rows if row not in visible_rows]
    if other_rows:
        lines += [f"{_LAST} (grape {name} --help-all explains them):"]
        nested = [group for group in _groups(other_rows) if group.startswith("--")]
        for group in _groups(other_rows):
            if group not in nested:
                lines += _names(group, [row.flag for row in other_rows if row.group == group], width)
        if nested:
            stages = dict.fromkeys(group.partition(",")[0] for group in nested)
            lines += _names("Settings of each stage, as on the page of its verb", list(stages), width)
        lines += [""]
    if recipes:
        lines += ["Recipes (--recipe NAME; --config and flags win over them):"]
        lines += [f"  {recipe:<{_FLAG_WIDTH - 2}}{title}" for recipe, title in recipes.items()] + [""]
    lines += textwrap.wrap("Every verb: --config FILE.yaml (settings; flags win), --json, --quiet, --verbose.", width)
    if examples:
        lines += ["", "Examples:", *(f"  {line}" for line in examples)]
    return "\n".join(lines)


def takes_several(kind: type[Any], name: str) -> bool:
    """Whether a setting is a list of any length."""
    return typing.get_origin(typing.get_type_hints(kind)[name]) is tuple


def negated(flag: str) -> str:
    """The flag that switches a setting off: ``--no-gate``, ``--pair.no-require-mixed-outcomes``."""
    group, dot, name = flag[2:].rpartition(".")
    return f"--{group}{dot}no-{name}"


def _own_first(kind: type[Any]) -> list["dataclasses.Field[Any]"]:
    """Fields of a class, those that it declares itself before those of its bases."""
    own = vars(kind).get("__annotations__", {})
    return sorted(dataclasses.fields(kind), key=lambda field: field.name not in own)


def _groups(rows: Iterable[SettingHelp]) -> list[str]:
    """Headings in the order of their first settings; those that hold required ones come first."""
    rows = list(rows)
    required = [row.group for row in rows if row.default is None]
    return list(dict.fromkeys([*required, *(row.group for row in rows)]))


def _nested_group(name: str, group: str) -> str:
    return f"--{name}.*" if group == _FIRST else f"--{name}.*, {group[0].lower()}{group[1:]}"


def _entry(row: SettingHelp, width: int, positional: str = "") -> list[str]:
    flags = f"{row.flag}, {negated(row.flag)}" if not row.metavar and row.default == "yes" else row.flag
    head = f"  {positional and f'{positional} or '}{flags} {row.metavar}".rstrip()
    text = row.text + (" (required)" if row.default is None else f" (default: {row.default})")
    body = textwrap.wrap(text.strip(), width - _FLAG_WIDTH)
    if len(head) < _FLAG_WIDTH - 1:
        return [f"{head:<{_FLAG_WIDTH}}{body[0]}", *(" " * _FLAG_WIDTH + line for line in body[1:])]
    return [head, *(" " * _FLAG_WIDTH + line for line in body)]


def _names(group: str, flags: Sequence[str], width: int) -> list[str]:
    return textwrap.wrap(f"  {group}: {' '.join(flags)}", width, subsequent_indent="    ", break_on_hyphens=False)


def _texts(kind: type[Any]) -> dict[str, str]:
    """What each setting does, from the docstrings of the class and its bases; the class itself takes precedence."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if "__doc__" in vars(base) and dataclasses.is_dataclass(base):
            _, _, body = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")
            for match in re.finditer(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", body, re.DOTALL | re.MULTILINE):
                texts[match[1]] = " ".join(match[2].split())
    return texts


def _metavar(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _metavar(arguments[0])
    if origin in (typing.Union, types.UnionType):
        several = any(typing.get_origin(option) is tuple for option in arguments)  # one, or a list of them
        return _metavar(next(option for option in arguments if option is not type(None))) + " ..." * several
    if origin is typing.Literal:
        return "{" + ",".join(map(str, arguments)) + "}"
    if origin is tuple:
        return f"[{_metavar(arguments[0])} ...]" if arguments[-1] is Ellipsis else " ".join(map(_metavar, arguments))
    if origin is not None and issubclass(origin, Mapping):
        return "[NAME:NUMBER ...]"
    return {bool: "", int: "INT", float: "FLOAT", Path: "PATH", str: "TEXT"}.get(hint, "VALUE")


def _class_default(field: "dataclasses.Field[Any]") -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _default_text(value: Any) -> str:
    if value is None or value in ("", (), {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(value)
