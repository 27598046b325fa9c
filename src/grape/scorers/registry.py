"""Scorers by name.

Scorers of other distributions register a class under the entry-point group ``grape.scorers``; a program can register
its own for as long as it runs. What is no name is a command line: a program that is started without a shell.
"""

import functools
import importlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from grape.core.errors import GrapeError, SettingsError, did_you_mean
from grape.core.files import content_hash
from grape.scorers.base import Scorer
from grape.scorers.external import ExternalScorer
from grape.scorers.program import argument_vector, program_identity
from grape.scorers.shipped import SHIPPED, shipped_command, shipped_identity

__all__ = [
    "R_GCPG",
    "Choice",
    "ScorerChoice",
    "command_label",
    "is_label",
    "made_by_plugin",
    "open_scorer",
    "parse_scorers",
    "register_scorer",
    "scorer_names",
    "split_choice",
]

R_GCPG = "gcpg"
"""What the score of ``grape score`` is called among the values that can rank; no scorer is called so."""

_GROUP = "grape.scorers"
_BUILTIN: dict[str, tuple[str, str]] = {
    "costs": ("grape.scorers.builtin", "CostScorer"),
    "success": ("grape.scorers.builtin", "SuccessScorer"),
}
_of_this_process: dict[str, Callable[..., Scorer]] = {}

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_LABELED = re.compile(rf"({_LABEL.pattern})=(.+)", re.DOTALL)


@dataclass(frozen=True)
class Choice:
    """One value of ``--scorer`` or ``--judge``.

    Attributes:
        label: What its answers are stored and shown under.
        name: Registered name; empty for a program.
        argument: What stands behind the name's colon.
        command: Argument vector of a program, also of one that comes with GRAPE; empty for other names.
    """

    label: str
    name: str = ""
    argument: str = ""
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScorerChoice(Choice):
    """One value of ``--scorer``."""

    def identity(self) -> dict[str, Any]:
        """JSON value on which its values depend, as far as it is known without starting anything."""
        if self.name in SHIPPED["scorer"]:
            return shipped_identity("scorer", self.name, self.argument)
        if self.command:
            return program_identity(self.command)
        place = Path(self.argument)
        specifications = self.name == "costs" and self.argument != "" and place.is_dir()
        paths = sorted(place.glob("*.y*ml")) if specifications else [place]
        files = program_identity(("", *map(str, paths)))["files"] if self.argument else {}
        builtin = {"builtin": _builtin_specifications()} if self.name == "costs" else {}
        return {"name": self.name, "argument": self.argument, **({"files": files} if files else {}), **builtin}


@functools.cache
def _builtin_specifications() -> str:
    """Hash of all built-in cost specifications; those of scorer costs may be any."""
    from grape.costs.builtins import builtin_names, builtin_suites, builtin_text

    return content_hash([builtin_text(suite, task) for suite in builtin_suites() for task in builtin_names(suite)])


def register_scorer(name: str, kind: Callable[..., Scorer]) -> None:
    """Make a scorer known in this process, e.g. one that a notebook defines; a package has an entry point.

    Args:
        name: What it is called. One that was registered before now stands for ``kind``.
        kind: Its class, made as :class:`Scorer` says.

    Raises:
        SettingsError: The name is that of a built-in scorer, or cannot stand in ``--scorer NAME``.
    """
    taken = (*_BUILTIN, *SHIPPED["scorer"])
    if name in taken or not _LABEL.fullmatch(name):
        raise SettingsError(
            f"{name!r} cannot name a scorer of one's own.",
            f"Take letters, digits, - and _, and none of {', '.join(taken)}.",
        )
    _of_this_process[name] = kind


def scorer_names() -> tuple[str, ...]:
    """Names of all scorers, of GRAPE, from entry points, or registered in this process, sorted."""
    points = (point.name for point in metadata.entry_points(group=_GROUP))
    return tuple(sorted({*_BUILTIN, *SHIPPED["scorer"], *_of_this_process, *points}))


def parse_scorers(texts: Sequence[str]) -> tuple[ScorerChoice, ...]:
    """What the values of ``--scorer`` stand for: ``[LABEL=]NAME``, ``[LABEL=]NAME:ARGUMENT`` or ``[LABEL=]COMMAND``.

    Raises:
        SettingsError: A name is unknown, a program cannot be found, two have one label, or one has that of R_GCPG.
    """
    choices: dict[str, ScorerChoice] = {}
    for text in texts:
        label, name, argument, command = split_choice(text, "scorer", scorer_names())
        choice = ScorerChoice(label, name, argument, command)
        if choice.label == R_GCPG:
            raise SettingsError(
                f"--scorer: '{R_GCPG}' is what the score itself is called.",
                f"Choose another label, e.g. mine={text.removeprefix(f'{R_GCPG}=')!r}.",
            )
        if choice.label in choices:
            raise SettingsError(
                f"--scorer: two scorers are called '{choice.label}'.", f"Name one of them, e.g. second={text!r}."
            )
        choices[choice.label] = choice
    return tuple(choices.values())


def split_choice(text: str, kind: str, names: Sequence[str]) -> tuple[str, str, str, tuple[str, ...]]:
    """Label, name, argument and argument vector of ``[LABEL=]NAME[:ARGUMENT]`` or ``[LABEL=]COMMAND``.

    Args:
        text: What the user wrote.
        kind: ``"scorer"`` or ``"judge"``, which is also the flag.
        names: Those that are registered.

    Raises:
        SettingsError: It is neither a name nor a program that can be run.
    """
    labeled = _LABELED.fullmatch(text)
    label, rest = (labeled[1], labeled[2]) if labeled else ("", text)
    name, _, argument = rest.partition(":")
    if name in SHIPPED[kind]:
        return label or name, name, argument, shipped_command(kind, name, argument)
    if name in names:
        # A folder of votes has a name; the whole path would be cut off where it is long.
        default = Path(argument).resolve().name if (kind, name) == ("judge", "votes") and argument else rest
        return label or _plain(default), name, argument, ()
    if is_label(rest) and not Path(rest).exists() and shutil.which(rest) is None:
        raise SettingsError(f"Unknown {kind} {rest!r}.", f"{did_you_mean(rest, names)} Or give a command line.")
    command = argument_vector(rest, f"--{kind}")
    return label or command_label(command), "", "", command


def command_label(command: Sequence[str]) -> str:
    """What a program is called by default: its script, or the program itself."""
    script = next((word for word in command[1:] if not word.startswith("-") and Path(word).is_file()), command[0])
    return _plain(Path(script).stem)


def is_label(text: object) -> bool:
    """Whether scorers can be called so, and files: letters, digits, ``-``, ``_`` and dots."""
    return isinstance(text, str) and _LABEL.fullmatch(text) is not None


def _plain(text: str) -> str:
    """A label that can be a file's name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")[:64] or "unnamed"


def open_scorer(
    choice: ScorerChoice, timeout: float = 600.0, warn: Callable[[str], None] = lambda message: None
) -> Scorer:
    """Make a scorer; a program is started.

    Args:
        choice: Which one.
        timeout: Seconds within which a program must start, and answer.
        warn: Hears of every replacement of a program.

    Raises:
        SettingsError: The plugin that registered it cannot be loaded, or takes no argument.
        ProgramError: The program does not start.
    """
    if choice.command:
        return ExternalScorer(choice.command, timeout, warn)
    if choice.name in _BUILTIN:
        module, attribute = _BUILTIN[choice.name]
        kind = getattr(importlib.import_module(module), attribute)
        if choice.argument and choice.name == "success":
            raise SettingsError("--scorer success takes no argument.", "Leave out what follows the colon.")
        scorer: Scorer = kind(*([choice.argument] if choice.argument else []))
        return scorer
    return cast(Scorer, made_by_plugin(choice.name, choice.argument, "scorer", _GROUP, _of_this_process, Scorer))


def made_by_plugin(
    name: str, argument: str, kind: str, group: str, registered: Mapping[str, Callable[..., Any]], base: type[Any]
) -> Any:
    """What a class of another distribution, or of this process, makes.

    Args:
        name: Its registered name.
        argument: Its only argument; empty for none.
        kind: ``"scorer"`` or ``"judge"``, for messages.
        group: Group of entry points.
        registered: Classes of this process by name.
        base: What it must derive from.

    Raises:
        SettingsError: It cannot be loaded or made, or is something else.
    """
    try:
        factory = registered[name] if name in registered else metadata.entry_points(group=group)[name].load()
        made = factory(*([argument] if argument else []))
    except GrapeError:
        raise
    except Exception as error:
        raise SettingsError(
            f"The {kind} {name!r} cannot be made: {type(error).__name__}: {error}.",
            "Fix or uninstall the package that registers it.",
        ) from error
    if not isinstance(made, base):
        raise SettingsError(
            f"The {kind} {name!r} is registered as something that makes no {base.__module__}.{base.__name__}.",
            f"Derive its class from {base.__name__}.",
        )
    return made
