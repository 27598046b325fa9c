"""Flags that every verb has: settings files, recipes, what is printed, help."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from grape.core.errors import SettingsError, require_known

__all__ = ["EVERY_VERB", "GLOBAL_FLAGS", "CommonFlags", "find_recipe", "recipe_files", "split_common_flags"]

GLOBAL_FLAGS = ("--help", "--version")
"""Flags that stand alone, without a verb."""

EVERY_VERB = ("--config", "--json", "--quiet", "--verbose", "--help", "--help-all")

_HELP = {"-h": "short", "--help": "short", "--help-all": "all"}


@dataclass(frozen=True)
class CommonFlags:
    """What the flags of every verb say.

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
