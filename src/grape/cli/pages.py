"""Printed pages about verbs: help, lists of kinds and recipes, completion scripts."""

import importlib
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from grape.cli.completion import completion_script
from grape.cli.help_page import describe_settings, help_page
from grape.cli.parsing import GLOBAL_FLAGS, recipe_files, settings_of_files
from grape.cli.verb import Verb, VerbOfKinds
from grape.core.settings import read_yaml

__all__ = ["entries", "page_width", "print_completion", "print_help", "print_kinds", "print_recipes"]


def page_width() -> int:
    """Columns of the terminal, but 60 to 100; 80 where there is none."""
    return min(max(shutil.get_terminal_size((80, 24)).columns, 60), 100)


def entries(texts: Mapping[str, str]) -> list[str]:
    """Names and what they mean in two columns, wrapped between words."""
    width = max(map(len, texts)) + 4
    return [
        line
        for name, text in texts.items()
        for line in textwrap.wrap(
            f"  {name}".ljust(width) + text, page_width(), subsequent_indent=" " * width, break_on_hyphens=False
        )
    ]


def print_help(verb: Verb, *, everything: bool, files: Sequence[Path] = ()) -> None:
    """Print a verb's help page.

    Args:
        verb: The verb.
        everything: Whether to explain every setting.
        files: YAML files with the defaults to show.
    """
    page = help_page(
        verb.name,
        verb.settings,
        everything=everything,
        examples=verb.examples,
        positionals=verb.positionals,
        hidden=verb.hidden,
        default=settings_of_files(verb.settings, files),
        recipes={} if verb.recipes is None else _titles(verb.recipes),
        width=page_width(),
    )
    _print([page])


def print_kinds(verb: VerbOfKinds) -> None:
    """Print the kinds of a verb."""
    _print(
        [
            f"usage: grape {verb.name} KIND [options]",
            "",
            *textwrap.wrap(verb.summary, page_width()),
            "",
            *entries({kind: verb.summaries[kind] for kind in verb.kinds}),
            "",
            f"grape {verb.name} KIND --help explains a kind.",
        ]
    )


def print_recipes(verb: Verb) -> None:
    """Print the recipes of a verb, and where their files are."""
    assert verb.recipes is not None
    _print(
        [
            f"usage: grape {verb.name} --recipe NAME [options]",
            "",
            *entries(_titles(verb.recipes)),
            "",
            f"The files are in {verb.recipes}; --config FILE and flags win over them.",
        ]
    )


def print_completion(shell: str, verbs: Iterable[str]) -> None:
    """Print the completion script of a shell.

    Raises:
        SettingsError: The shell is unknown.
    """
    special = ("help", "completion")
    words: dict[str, Sequence[str]] = {
        "": [*verbs, *special, *GLOBAL_FLAGS],
        "help": [*verbs],
        "completion": ["bash", "zsh", "fish"],
    }
    for name in verbs:
        verb = importlib.import_module(f"grape.cli.verbs.{name}").VERB
        if isinstance(verb, VerbOfKinds):
            words[name] = words[f"help {name}"] = [*verb.kinds]
        kinds = verb.kinds.values() if isinstance(verb, VerbOfKinds) else (verb,)
        for kind in kinds:
            words[kind.name] = [*(row.flag for row in describe_settings(kind.settings, kind.hidden)), *kind.flags]
    _print([completion_script(shell, words)])


def _titles(folder: Path) -> dict[str, str]:
    return {name: str(read_yaml(path)["title"]) for name, path in recipe_files(folder).items()}


def _print(lines: Iterable[str]) -> None:
    sys.stdout.write("\n".join(lines).rstrip("\n") + "\n")
