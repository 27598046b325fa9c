"""``grape collect``."""

from rich.console import Console

from grape.cli.show import Summary, show_fields, show_tasks
from grape.cli.verb import Verb
from grape.collect import CollectSettings, run_collect


def _show(summary: Summary, console: Console) -> None:
    show_tasks(summary, console)
    if "mixed" in summary:
        mixed = summary["mixed"]
        text = f"{mixed['episodes']} more episodes from {mixed['states']} initial states"
        show_fields({"mixed outcome": text}, console, "mixed outcome")
    if "shard" in summary:
        text = f"{summary['shard']}, {summary['episodes']} of {summary['whole']} episodes; 'grape merge' joins them"
        show_fields({"shard": text}, console, "shard")
    show_fields(summary, console, "store")


VERB = Verb(
    name="collect",
    settings=CollectSettings,
    run=run_collect,
    show=_show,
    examples=(
        "grape collect --policy expert --tasks drawer-open --initial-states 0-64 "
        "--operators clean:40,sloppy:25 --out runs/demonstrations",
        "grape collect --policy runs/sft/policy --tasks 0,1 --initial-states 1000-1047 --samples 8 --out runs/rollouts",
        "grape collect --policy runs/sft/policy --initial-states 1000-1047 --samples 4 --mixed-episodes 200 "
        "--out runs/rollouts",
        "grape collect --policy runs/sft/policy --samples 8 --shard 2/8 --out shards/2",
        "grape collect --policy runs/sft/policy --samples 16 --extend --out runs/rollouts",
        "grape collect --policy runs/sft/policy --samples 8 --out runs/rollouts --dry-run",
    ),
)
