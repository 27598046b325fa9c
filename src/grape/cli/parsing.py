"""Parsing of a verb's arguments: flags common to all verbs, and settings from YAML files and flags.

Mistakes raise errors with a hint.
"""

import contextlib
import dataclasses
import decimal
import difflib
import io
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.cli.help_page import SettingHelp, describe_settings, negated, takes_several
from grape.core.errors import SettingsError, did_you_mean, require_known
from grape.core.settings import flag_of, read_marked_yaml, settings_from_dict

__all__ = [
    "EVERY_VERB",
    "GLOBAL_FLAGS",
    "CommonFlags",
    "UsageError",
    "find_recipe",
    "parse_settings",
    "recipe_files",
    "settings_of_files",
    "split_common_flags",
]


GLOBAL_FLAGS = ("--help", "--version")
"""Flags that stand alone, without a verb."""

EVERY_VERB = ("--config", "--json", "--quiet", "--verbose", "--help", "--help-all")

_HELP = {"-h": "short", "--help": "short", "--help-all": "all"}


@dataclass(frozen=True)
class CommonFlags:
    """Values of the flags that every verb has.

    Attributes:
        config: YAML file of settings.
        recipe: Name of a recipe, or empty.
        json: Whether the summary is printed as JSON.
        quiet: Whether only errors and the final result are printed.
        verbose: Whether debug log lines are printed.
        help: ``"short"``, ``"all"``, or empty where no help page is asked for.
    """

    config: Path | None = None
    recipe: str = ""
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    help: str = ""


def split_common_flags(arguments: Sequence[str], recipes: bool = False) -> tuple[list[str], CommonFlags]:
    """Separate the flags of every verb from those of the verb's settings.

    Args:
        arguments: The words behind the verb.
        recipes: Whether the verb knows ``--recipe NAME``.

    Raises:
        SettingsError: A flag lacks its value, or ``--quiet`` and ``--verbose`` are both given.
    """
    rest: list[str] = []
    switches: set[str] = set()
    values = {"--config": "", "--recipe": ""}
    explained = "short" if list(arguments) == ["help"] else ""
    queue = [] if explained else list(arguments)
    while queue:
        word = queue.pop(0)
        flag, equals, value = word.partition("=")
        if word in ("--json", "--quiet", "--verbose"):
            switches.add(word)
        elif word in _HELP:
            explained = "all" if "all" in (explained, _HELP[word]) else "short"
        elif flag == "--config" or (flag == "--recipe" and recipes):
            values[flag] = value if equals else (queue.pop(0) if queue else "")
            if not values[flag] or values[flag].startswith("--"):
                raise SettingsError(*_WITHOUT_VALUE[flag])
        else:
            rest.append(word)
    if {"--quiet", "--verbose"} <= switches:
        raise SettingsError("--quiet and --verbose exclude each other.", "Leave one of them out.")
    return rest, CommonFlags(
        config=Path(values["--config"]) if values["--config"] else None,
        recipe=values["--recipe"],
        json="--json" in switches,
        quiet="--quiet" in switches,
        verbose="--verbose" in switches,
        help=explained,
    )


_WITHOUT_VALUE = {
    "--config": ("--config needs a YAML file.", "For example --config settings.yaml"),
    "--recipe": ("--recipe needs a name.", "--recipe help lists all recipes."),
}


def recipe_files(folder: Path) -> Mapping[str, Path]:
    """The recipes of a folder by name."""
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(folder: Path, name: str) -> Path:
    """The file of a recipe.

    Raises:
        SettingsError: There is none of that name.
    """
    files = recipe_files(folder)
    require_known("recipe", name, files)
    return files[name]


class UsageError(SettingsError):
    """The command line cannot be understood.

    Args:
        shown: What the parser says, in a frame.
        hint: What the reader can do.
    """

    def __init__(self, shown: str, hint: str) -> None:
        lines = (line.strip(" \u2502\u256d\u256e\u2570\u256f\u2500") for line in shown.splitlines())
        words = [line for line in lines if line and not line.startswith("For full helptext")]
        super().__init__(" ".join(words[1:] if len(words) > 1 else words), hint)
        self.shown = shown


def settings_of_files(kind: type[Any], files: Sequence[Path]) -> Any:
    """Settings from YAML files, later ones win; None without files. What is required may still be ``tyro.MISSING``.

    Raises:
        SettingsError: A file cannot be read or says something that is no setting.
    """
    import tyro  # here, as below: pages of the command line need it as little as they need to wait for it

    base = None
    for path in files:
        data, marks = read_marked_yaml(path)
        if not isinstance(data, Mapping | None):
            raise SettingsError(f"{path} must hold a mapping of settings of {kind.__name__}.")
        if base is None:
            required = {
                item.name: tyro.MISSING
                for item in dataclasses.fields(kind)
                if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
            }
            base = kind(**required)
        base = settings_from_dict(kind, data or {}, base, marks=marks)
    return base


def parse_settings(
    name: str,
    kind: type[Any],
    arguments: Sequence[str],
    *,
    positionals: Sequence[str] = (),
    default: Any = None,
    flags: Sequence[str] = EVERY_VERB,
) -> Any:
    """Settings from the command line.

    Args:
        name: The verb, for messages.
        kind: The settings class.
        arguments: The words behind the verb, without the flags of every verb.
        positionals: Fields that may be given without their flag, in this order.
        default: Settings to start from; by default those of the class.
        flags: Flags that the verb takes beside its settings, to be suggested.

    Raises:
        SettingsError: A flag is unknown, or a value is none that it takes.
        UsageError: Anything else that cannot be understood, e.g. a required setting is missing.
    """
    import tyro

    words = _spread_pairs(kind, _without_dots(kind, _name_positionals(kind, positionals, arguments)))
    words = _spread_numbers(kind, words)
    parser_output = io.StringIO()
    try:
        with contextlib.redirect_stderr(parser_output):
            return tyro.cli(
                kind,
                prog=f"grape {name}",
                args=words,
                config=(tyro.conf.AvoidSubcommands,),
                **({} if default is None else {"default": default}),
            )
    except SystemExit as end:
        _explain(name, kind, words, flags)
        raise UsageError(parser_output.getvalue(), f"'grape {name} --help' explains all flags.") from end


def _explain(name: str, kind: type[Any], words: Sequence[str], flags: Sequence[str]) -> None:
    """Raise the error of the first word that is no flag, or no choice of its flag, if there is one."""
    rows = {row.flag: row for row in describe_settings(kind)}
    known_flags = [*rows, *flags, *(negated(flag) for flag, row in rows.items() if not row.metavar)]
    row: SettingHelp | None = None
    for word in words:
        flag, equals, value = word.partition("=")
        if word.startswith("--"):
            if flag.replace("_", "-") not in known_flags:
                close = difflib.get_close_matches(flag, known_flags, n=3, cutoff=0.5)
                suggestion = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
                raise SettingsError(f"Unknown flag '{flag}'.", f"{suggestion}'grape {name} --help-all' explains all.")
            row = rows.get(flag.replace("_", "-"))
            if not equals:
                continue
            word = value
        choices = re.fullmatch(r"\[?\{(.*)\}( \.\.\.\])?", row.metavar) if row else None
        if row and choices and word not in choices[1].split(","):
            raise SettingsError(f"{row.flag} is '{word}'.", did_you_mean(word, choices[1].split(",")))
        if row and not row.metavar.startswith("["):
            row = None


def _without_dots(kind: type[Any], arguments: Sequence[str]) -> list[str]:
    """Flags as the parser knows them: ``--gate.margin`` where the settings beside ``gate`` have ``gate_margin``."""
    known_flags = {row.flag for row in describe_settings(kind)}
    words = []
    for word in arguments:
        flag, equals, value = word.partition("=")
        flat = flag.replace(".", "-").replace("_", "-")
        dotted = (
            word.startswith("--") and "." in flag and flag.replace("_", "-") not in known_flags and flat in known_flags
        )
        words.append(f"{flat}{equals}{value}" if dotted else word)
    return words


def _spread_pairs(kind: type[Any], arguments: Sequence[str]) -> list[str]:
    """Words ``safety:4,efficiency:0`` of a setting with names and numbers as the parser takes them, one by one."""
    hints = typing.get_type_hints(kind)
    flags = {flag_of(name) for name, hint in hints.items() if typing.get_origin(hint) is Mapping}
    words: list[str] = []
    within = False
    for word in arguments:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            within = flag in flags
            words += [flag] if within else [word]
            word = value if within and equals else ""
        elif not within or ":" not in word:
            words.append(word)
            continue
        words += [part for pair in word.split(",") if pair for part in pair.rpartition(":")[::2]]
    return words


def _spread_numbers(kind: type[Any], arguments: Sequence[str]) -> list[str]:
    """Numbers of a setting with several of them one by one and without an exponent, as the parser takes them.

    They may be separated by commas, within brackets; the parser takes ``-1e-05`` for a flag.
    """
    hints = typing.get_type_hints(kind)
    flags = {flag_of(name) for name, hint in hints.items() if hint == tuple[float, ...]}
    words: list[str] = []
    within = False
    for word in arguments:
        flag, equals, value = word.partition("=")
        if word.startswith("--"):
            within = flag in flags
            words.append(flag if within and equals else word)
            word = value if within and equals else ""
        elif not within:
            words.append(word)
            continue
        words += [_plain_number(number) for number in re.split(r"[,\s\[\]]+", word) if number]
    return words


def _plain_number(text: str) -> str:
    try:
        number = decimal.Decimal(text)
    except decimal.InvalidOperation:
        return text
    return format(number, "f") if number.is_finite() and abs(number.adjusted()) < 400 else text


def _name_positionals(kind: type[Any], positionals: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Turn leading words without a flag into flags, in the order of the positionals; a tuple takes all of them."""
    words = list(arguments)
    flag_words: list[str] = []
    for name in positionals:
        if not words or words[0].startswith("-"):
            break
        flag_words += [flag_of(name), words.pop(0)]
        while takes_several(kind, name) and words and not words[0].startswith("-"):
            flag_words.append(words.pop(0))
    return flag_words + words
