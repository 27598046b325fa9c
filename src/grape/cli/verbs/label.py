"""``grape label``."""

from rich.console import Console
from rich.table import Table

from grape.cli.show import Summary
from grape.cli.verb import Verb
from grape.labeling import LabelSettings, run_label


def _show(summary: Summary, console: Console) -> None:
    cast = summary["cast"]
    table = Table(title=f"{cast} vote{'' if cast == 1 else 's'} cast in this run")
    for column in ("rater", "votes", "couples", "skipped", "marked", "left / right", "decided alike when shown again"):
        table.add_column(column, justify="left" if column == "rater" else "right")
    for name, rater in summary["raters"].items():
        again = f"{rater['alike']} of {rater['repeated']}" if rater["repeated"] else "none was shown again"
        sides = f"{rater['left']} / {rater['right']}"
        counts = (str(rater[column]) for column in ("votes", "couples", "skipped", "marked"))
        table.add_row(name, *counts, sides, again)
    if summary["raters"]:
        console.print(table)
    console.print(f"votes    {summary['votes']}", soft_wrap=True)


VERB = Verb(
    name="label",
    settings=LabelSettings,
    run=run_label,
    show=_show,
    examples=(
        "grape label --scores runs/scores",
        "grape label --store runs/rollouts --votes runs/votes --couples 50",
    ),
)
