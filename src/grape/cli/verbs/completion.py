"""``grape completion``."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from grape.cli.completion import SHELLS, completion_script
from grape.cli.help_page import describe_settings
from grape.cli.main import VERBS
from grape.cli.verb import Verb, VerbOfKinds
from grape.core.errors import SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.setting_fields import setting

_OWN = ("--config", "--json", "--quiet", "--verbose", "--help", "--help-all")


@dataclass(frozen=True)
class CompletionSettings:
    """Print a script that completes verbs and flags in a shell.

    Attributes:
        shell: bash, zsh or fish.
    """

    shell: str = setting("", common=True)


def _words() -> dict[str, Sequence[str]]:
    """What can follow each beginning of a command line."""
    words: dict[str, Sequence[str]] = {"": [*VERBS, "help"], "completion": SHELLS, "help": list(VERBS)}
    for name in VERBS:
        if name == "completion":
            continue
        verb = importlib.import_module(f"grape.cli.verbs.{name}").VERB
        if isinstance(verb, VerbOfKinds):
            words[name] = list(verb.kinds)
            words |= {f"{name} {kind}": _flags(item) for kind, item in verb.kinds.items()}
        else:
            words[name] = _flags(verb)
    return words


def _flags(verb: Verb) -> list[str]:
    rows = describe_settings(verb.settings, verb.hidden)
    switches = [row.flag.replace("--", "--no-", 1) for row in rows if not row.metavar and row.default == "yes"]
    own = [*_OWN, "--recipe"] if verb.recipes is not None else _OWN
    return [*(row.flag for row in rows), *switches, *own]


def _run(settings: CompletionSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    if not settings.shell:
        raise SettingsError("No shell is named.", f"Give one of {', '.join(SHELLS)}: source <(grape completion bash)")
    return {"text": completion_script(settings.shell, _words())}


def _show(summary: Mapping[str, Any], console: Console) -> None:
    console.print(summary["text"], soft_wrap=True, end="")


VERB = Verb(
    name="completion",
    settings=CompletionSettings,
    run=_run,
    show=_show,
    positionals=("shell",),
    examples=("source <(grape completion bash)", "grape completion fish | source"),
)
