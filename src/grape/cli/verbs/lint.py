"""``grape lint``."""

from rich.console import Console
from rich.table import Table

from grape.cli.show import Summary, show_fields
from grape.cli.verb import Verb
from grape.exchange import LintSettings, run_lint


def _show(summary: Summary, console: Console) -> None:
    show_fields(summary, console, "kind", "episodes")
    if not summary["defects"]:
        console.print("No known defect was found.")
        return
    table = Table("defect", "count", "what it does")
    for row in summary["defects"]:
        table.add_row(row["defect"], str(row["count"]), row["meaning"])
    console.print(table)


VERB = Verb(
    name="lint",
    settings=LintSettings,
    run=run_lint,
    show=_show,
    examples=(
        "grape lint data/chosen/rlds_np_rollout data/rejected/rlds_np_rollout",
        "grape lint rollouts",
    ),
    positionals=("data", "rejected"),
)
