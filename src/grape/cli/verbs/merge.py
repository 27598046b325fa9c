"""``grape merge``."""

from rich.console import Console

from grape.cli.show import Summary, show_fields, show_tasks
from grape.cli.verb import Verb
from grape.collect import MergeSettings, run_merge


def _show(summary: Summary, console: Console) -> None:
    show_tasks(summary, console)
    show_fields(summary["merged"], console, "stores", "episodes", "copied", "duplicates", "missing")
    show_fields(summary, console, "store")


VERB = Verb(
    name="merge",
    settings=MergeSettings,
    run=run_merge,
    show=_show,
    positionals=("stores",),
    examples=(
        "grape merge shards/1 shards/2 shards/3 --out runs/rollouts",
        "grape merge runs/first-states runs/more-states --out runs/all-states --link",
        "grape merge runs/rollouts --out runs/packed --pack 256",
        "grape merge shards/1 shards/3 --out runs/rollouts --partial",
        "grape merge shards/1 shards/2 shards/3 --out runs/rollouts --dry-run",
    ),
)
