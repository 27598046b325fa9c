"""One verb: what it is called, what it may be told, what it runs and how its result is shown.

Settings come from the dataclass's defaults, then a YAML file (``--config``), then the command line; ``--json`` prints
one JSON object on standard output at the end, and everything meant for people goes to standard error.
"""

import contextlib
import dataclasses
import inspect
import io
import json
import os
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.text import Text

from grape.cli.console import ConsoleReporter, SafeConsole
from grape.core.errors import SettingsError, require_known
from grape.core.events import SILENT, Reporter
from grape.core.launcher import launched_process
from grape.core.settings import read_marked_yaml, settings_from_dict

__all__ = ["UsageError", "Verb", "VerbOfKinds", "run_verb"]

Summary = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Verb:
    """A verb of the command line.

    Attributes:
        name: What the user types.
        settings: The settings class; its docstring becomes the help page.
        run: Does the work.
        show: Prints the summary for people.
        examples: Command lines for the help page.
        positionals: Fields that may be given without their flag, in this order.
        defaults: YAML file of settings that replace the class's defaults.
        exit_code: Exit status from the summary.
        paths: Names in the summary, at any depth, whose values are paths within the run's folder.
        folder: The run's folder, from the settings.
        several_processes: Whether a launcher may start it in several processes; the main one prints then.
    """

    name: str
    settings: type[Any]
    run: Callable[[Any, Reporter], Summary]
    show: Callable[[Summary, Console], None]
    examples: tuple[str, ...] = ()
    positionals: tuple[str, ...] = ()
    defaults: Path | None = None
    exit_code: Callable[[Summary], int] = lambda summary: 0
    paths: tuple[str, ...] = ()
    folder: Callable[[Any], Path] = lambda settings: Path(settings.out)
    several_processes: bool = False


@dataclasses.dataclass(frozen=True)
class VerbOfKinds:
    """A verb whose first word says what kind of thing it works on, with settings of its own for each kind.

    Attributes:
        name: What the user types.
        summary: What the verb does, in one line.
        kinds: A verb by kind; its name is both words, e.g. ``"export merged"``.
        summaries: What each kind does, in one line.
    """

    name: str
    summary: str
    kinds: Mapping[str, Verb]
    summaries: Mapping[str, str]


def run_verb(verb: Verb | VerbOfKinds, arguments: Sequence[str]) -> int:
    """Parse ``arguments``, run the verb and show its result; returns the exit status.

    Raises:
        SettingsError: A verb of kinds was given none, or an unknown one.
    """
    if isinstance(verb, VerbOfKinds):
        if arguments and arguments[0] in ("-h", "--help", "help"):
            _print_kinds(verb)
            return 0
        if not arguments or arguments[0].startswith("-"):
            raise SettingsError(f"'grape {verb.name}' needs a kind first.", f"Known: {', '.join(verb.kinds)}.")
        require_known(f"kind of '{verb.name}'", arguments[0], verb.kinds)
        return run_verb(verb.kinds[arguments[0]], arguments[1:])
    rest, config, as_json = _own_flags(arguments)
    settings = _parse(verb, rest, config)
    if verb.several_processes and not launched_process().is_main:
        return verb.exit_code(verb.run(settings, SILENT))
    summary = verb.run(settings, ConsoleReporter(SafeConsole(stderr=True)))
    if verb.paths:
        summary = _with_paths(summary, verb.folder(settings), frozenset(verb.paths))
    if as_json:
        sys.stdout.write(json.dumps(summary, allow_nan=False) + "\n")
        sys.stdout.flush()
    if not summary.get("dry_run"):
        verb.show(summary, SafeConsole(stderr=as_json))
    elif not as_json:
        SafeConsole().print_json(json.dumps(summary), ensure_ascii=True)
    return verb.exit_code(summary)


def _with_paths(value: Any, folder: Path, names: frozenset[str]) -> Any:
    """The summary with paths that can be used where one stands; in the run's folder they are relative to it."""
    if isinstance(value, Mapping):
        return {
            name: _placed(inner, folder) if name in names else _with_paths(inner, folder, names)
            for name, inner in value.items()
        }
    return [_with_paths(item, folder, names) for item in value] if isinstance(value, list) else value


def _placed(value: Any, folder: Path) -> Any:
    if not isinstance(value, str) or not value or not (folder / value).exists():
        return value
    path = folder / value
    short = Path(os.path.normpath(path))
    return str(short if short.resolve() == path.resolve() else path)


def _print_kinds(verb: VerbOfKinds) -> None:
    console = SafeConsole()
    console.print(f"usage: grape {verb.name} KIND [options]\n\n{verb.summary}\n")
    width = max(map(len, verb.kinds)) + 2
    for kind in verb.kinds:
        console.print(Text.assemble((f"  {kind:<{width}}", "bold"), verb.summaries[kind]))
    console.print(f"\ngrape {verb.name} KIND --help explains a kind.")


def _own_flags(arguments: Sequence[str]) -> tuple[list[str], Path | None, bool]:
    """Separate ``--config FILE`` and ``--json``, which every verb has."""
    rest: list[str] = []
    config: Path | None = None
    as_json = False
    queue = list(arguments)
    while queue:
        word = queue.pop(0)
        if word == "--json":
            as_json = True
        elif word == "--config" or word.startswith("--config="):
            value = word.partition("=")[2] if "=" in word else (queue.pop(0) if queue else "")
            if not value or value.startswith("--"):
                raise SettingsError("--config needs a YAML file.", "For example --config settings.yaml")
            config = Path(value)
        else:
            rest.append(word)
    return rest, config, as_json


def _parse(verb: Verb, arguments: list[str], config: Path | None) -> Any:
    base = None
    for path in (verb.defaults, config):
        if path is not None:
            base = _settings_of_file(verb.settings, path, base)
    words = _spread_pairs(verb.settings, _name_positionals(verb, arguments))
    description = (inspect.getdoc(verb.settings) or "").split("Attributes:")[0].strip()
    if verb.positionals:
        usage = " ".join(name.upper() for name in verb.positionals)
        description += f"\n\nUsage: grape {verb.name} {usage} [options]"
    description += "\n\nEvery verb also takes --config FILE.yaml (settings; flags win over it) and --json."
    if verb.examples:
        description += "\n\nExamples:\n" + "\n".join(f"  {line}" for line in verb.examples)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                verb.settings,
                prog=f"grape {verb.name}",
                description=description,
                args=words,
                config=(tyro.conf.AvoidSubcommands,),
                **({} if base is None else {"default": base}),
            )
    except SystemExit as end:
        if end.code in (None, 0):
            raise
        raise UsageError(said.getvalue(), f"'grape {verb.name} --help' explains all flags.") from end


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


def _settings_of_file(kind: type[Any], path: Path, base: Any) -> Any:
    """Settings from YAML where required fields may still be absent: the command line must give those."""
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
    return settings_from_dict(kind, data or {}, base, marks=marks)


def _spread_pairs(kind: type[Any], arguments: Sequence[str]) -> list[str]:
    """Words ``safety:4,efficiency:0`` of a setting with names and numbers as the parser takes them, one by one."""
    hints = typing.get_type_hints(kind)
    flags = {f"--{name.replace('_', '-')}" for name, hint in hints.items() if typing.get_origin(hint) is Mapping}
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


def _name_positionals(verb: Verb, arguments: list[str]) -> list[str]:
    """Turn leading words without a flag into flags, in the order of ``verb.positionals``."""
    words = list(arguments)
    given: list[str] = []
    for name in verb.positionals:
        if not words or words[0].startswith("-"):
            break
        given += [f"--{name.replace('_', '-')}", words.pop(0)]
    return given + words
