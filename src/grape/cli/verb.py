"""Definition of a verb: its name, settings, function and how its result is printed.

Settings come from the dataclass's defaults, then a recipe (``--recipe``), then a YAML file (``--config``), then the
command line; ``--json`` prints one JSON object on standard output at the end, and everything meant for people goes to
standard error.
"""

import contextlib
import dataclasses
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from grape.cli.console import ConsoleReporter, SafeConsole
from grape.cli.parsing import (
    EVERY_VERB,
    CommonFlags,
    find_recipe,
    parse_settings,
    settings_of_files,
    split_common_flags,
)
from grape.cli.show import show_plan
from grape.core.errors import SettingsError, require_known
from grape.core.events import SILENT, Reporter
from grape.core.launched import LaunchedProcess, launched_process
from grape.core.remote.publishing import addresses_in, publishing, with_local_folders
from grape.core.repositories import pinned_settings
from grape.core.settings import settings_to_dict

__all__ = ["Verb", "VerbOfKinds", "run_verb"]

Summary = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Verb:
    """A verb of the command line.

    Attributes:
        name: What the user types.
        settings: The settings class; its docstring becomes the help page.
        run: Does the work.
        show: Prints the summary for people.
        show_plan: Prints the plan of a dry run for people.
        examples: Command lines for the help page.
        positionals: Fields that may be given without their flag, in this order.
        defaults: YAML file of settings that replace the class's defaults.
        recipes: Folder of YAML files that ``--recipe NAME`` chooses from; a recipe takes the place of ``defaults``.
        hidden: Fields of nested settings that help pages do not offer, by the nested settings' name.
        exit_code: Exit status from the summary.
        paths: Names in the summary, at any depth, whose values are paths within the run's folder.
        folder: The run's folder, from the settings.
        processes: What it is where a launcher (torchrun, SLURM's srun) started several processes of it: "one" is
            refused, "group" is one work of all of them, of which the main one prints, "each" works for itself.
    """

    name: str
    settings: type[Any]
    run: Callable[[Any, Reporter], Summary]
    show: Callable[[Summary, Console], None]
    show_plan: Callable[[Summary, Console], None] = show_plan
    examples: tuple[str, ...] = ()
    positionals: tuple[str, ...] = ()
    defaults: Path | None = None
    recipes: Path | None = None
    hidden: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    exit_code: Callable[[Summary], int] = lambda summary: 0
    paths: tuple[str, ...] = ()
    folder: Callable[[Any], Path] = lambda settings: Path(settings.out)
    processes: Literal["one", "group", "each"] = "one"

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags that it takes beside its settings."""
        return EVERY_VERB if self.recipes is None else (*EVERY_VERB, "--recipe")


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
    from grape.cli import pages

    if isinstance(verb, VerbOfKinds):
        if arguments and arguments[0] in ("-h", "--help", "--help-all", "help"):
            if len(arguments) > 1 and not arguments[1].startswith("-"):
                return run_verb(verb, [arguments[1], "--help"])
            pages.print_kinds(verb)
            return 0
        if not arguments or arguments[0].startswith("-"):
            raise SettingsError(f"'grape {verb.name}' needs a kind first.", f"Known: {', '.join(verb.kinds)}.")
        require_known(f"kind of '{verb.name}'", arguments[0], verb.kinds)
        return run_verb(verb.kinds[arguments[0]], arguments[1:])
    words, flags = split_common_flags(arguments, recipes=verb.recipes is not None)
    if verb.recipes is not None and flags.recipe == "help":
        pages.print_recipes(verb)
        return 0
    recipe = find_recipe(verb.recipes, flags.recipe) if verb.recipes is not None and flags.recipe else verb.defaults
    files = [path for path in (recipe, flags.config) if path is not None]
    if flags.help:
        pages.print_help(verb, everything=flags.help == "all", files=files)
        return 0
    settings = parse_settings(
        verb.name,
        verb.settings,
        words,
        positionals=verb.positionals,
        default=settings_of_files(verb.settings, files),
        flags=verb.flags,
    )
    with _debug_lines(flags.verbose):
        return _run(verb, settings, flags)


def _run(verb: Verb, settings: Any, flags: CommonFlags) -> int:
    process = launched_process()
    if process.count > 1 and verb.processes == "one" and not _is_shard(settings, process):
        return _refuse(verb, process)
    settings = pinned_settings(settings)
    if process.count > 1 and (addresses := addresses_in(settings)):
        raise SettingsError(
            f"{addresses[0]} is for one process; {process.launcher} started {process.count}.",
            "Give folders that all nodes share, and copy the result when it is done.",
        )
    if verb.processes == "group" and not process.is_main:
        return verb.exit_code(verb.run(settings, SILENT))
    people = SafeConsole(stderr=True)
    reporter = SILENT if flags.quiet else ConsoleReporter(people)
    with publishing(reporter):
        return _run_here(verb, with_local_folders(settings), flags, reporter, people)


def _run_here(verb: Verb, settings: Any, flags: CommonFlags, reporter: Reporter, people: Console) -> int:
    """Run the verb in a folder of this machine and show its result; returns the exit status."""
    logger = logging.getLogger("grape")
    logger.debug("settings of %s: %s", verb.name, settings_to_dict(settings))
    start_time, marks = time.time_ns(), _marks(_folder(verb, settings))
    summary = verb.run(settings, reporter)
    logger.debug("%s took %.1f s", verb.name, (time.time_ns() - start_time) / 1e9)
    folder = _folder(verb, settings, summary)
    if not flags.quiet and folder is not None and _was_complete(folder, settings, marks, start_time):
        people.print(
            f"already complete: nothing was done; what follows is the result in {folder}. "
            "Another --out, or none of that folder, starts afresh.",
            soft_wrap=True,
        )
    if verb.paths:
        summary = _with_paths(summary, verb.folder(settings), frozenset(verb.paths))
    if flags.json:
        sys.stdout.write(json.dumps(summary, allow_nan=False) + "\n")
        sys.stdout.flush()
    planned = bool(summary.get("dry_run"))
    if not flags.json or not (planned or flags.quiet):
        (verb.show_plan if planned else verb.show)(summary, SafeConsole(stderr=flags.json))
    return verb.exit_code(summary)


def _is_shard(settings: Any, process: LaunchedProcess) -> bool:
    """Whether tasks of SLURM may play a shard each: unlike processes of torchrun they can be told which."""
    return process.by_slurm and bool(getattr(settings, "shard", ""))


def _refuse(verb: Verb, process: LaunchedProcess) -> int:
    """Say once that a verb is not for several processes; the others leave with the same exit status.

    Raises:
        SettingsError: In the main process.
    """
    if not process.is_main:
        return SettingsError.exit_code
    hint = "Start it without the launcher; 'grape train', 'sft' and 'loop' are for several processes."
    if process.by_slurm:
        hint = (
            "Start it with srun --ntasks 1; 'grape train', 'sft' and 'loop' are for several tasks. Where each task has "
            f"a work of its own: env -u SLURM_STEP_NUM_TASKS grape {verb.name} ..."
        )
    raise SettingsError(f"'grape {verb.name}' is one process, but {process.launcher} started {process.count}.", hint)


@contextlib.contextmanager
def _debug_lines(enabled: bool) -> Iterator[None]:
    """Print GRAPE's log records on standard error, but for those that the console shows anyway."""
    if not enabled:
        yield
        return
    logger, handler = logging.getLogger("grape"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(lambda record: not getattr(record, "on_console", False))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def _folder(verb: Verb, settings: Any, summary: Summary | None = None) -> Path | None:
    """The run's folder; a default chosen by the verb is known from its summary only."""
    if isinstance(getattr(settings, "out", None), Path):
        return verb.folder(settings)
    results = (summary or {}).get("results")
    return Path(results).parent if isinstance(results, str) else None


def _marks(folder: Path | None) -> tuple[int, int] | None:
    """Inode and modification time of ``done.json``, to notice its replacement; None where there is none."""
    with contextlib.suppress(OSError):
        if folder is not None:
            status = os.stat(folder / "done.json")
            return status.st_ino, status.st_mtime_ns
    return None


def _was_complete(folder: Path, settings: Any, before: tuple[int, int] | None, began: int) -> bool:
    """Whether the run was complete before the verb began: ``done.json`` is unchanged, or older than the start."""
    now = _marks(folder)
    if now is None or getattr(settings, "dry_run", False):
        return False
    return now == before if settings.out is not None else now[1] < began - 10**8


def _with_paths(value: Any, folder: Path, names: frozenset[str]) -> Any:
    """The summary with paths that can be used where one stands; in the run's folder they are relative to it."""
    if isinstance(value, Mapping):
        return {
            name: _placed(inner, folder) if name in names else _with_paths(inner, folder, names)
            for name, inner in value.items()
        }
    return [_with_paths(item, folder, names) for item in value] if isinstance(value, list) else value


def _placed(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_placed(item, folder) for item in value]
    if not isinstance(value, str) or not value or not (folder / value).exists():
        return value
    path = folder / value
    short = Path(os.path.normpath(path))
    return str(short if short.resolve() == path.resolve() else path)
