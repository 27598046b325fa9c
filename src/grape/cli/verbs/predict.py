"""``grape predict``."""

import math

from rich.console import Console
from rich.table import Table

from grape.checkpoints import PredictSettings, run_predict
from grape.cli.show import Summary, show_fields
from grape.cli.verb import Verb


def _show(summary: Summary, console: Console) -> None:
    table = Table(title=None)
    table.add_column("dimension")
    for column in ("action", "normalised", "token", "probability"):
        table.add_column(column, justify="right")
    for name, value, inner, token, logp, in_range in zip(
        *(summary[key] for key in ("action_names", "action", "normalised", "tokens", "logps", "in_range")), strict=True
    ):
        mark = "" if in_range else " (clipped)"
        table.add_row(name, f"{value:+.5f}", f"{inner:+.3f}", f"{token}{mark}", f"{100 * math.exp(logp):.1f} %")
    console.print(table)
    facts = {
        "prompt": summary["prompt"].replace("\n", "\\n"),
        "statistics": summary["unnorm_key"],
        "center crop": "yes" if summary["center_crop"] else "no",
        "log-probability": f"{summary['logp']:.4f}",
        "computed on": summary["computation"],
    }
    show_fields(facts, console, *facts)


VERB = Verb(
    name="predict",
    settings=PredictSettings,
    run=run_predict,
    show=_show,
    examples=(
        'grape predict --policy runs/sft/policy --image frame.png --instruction "open the drawer"',
        'grape predict --policy openvla/openvla-7b --image frame.png --instruction "put the carrot on the plate" '
        "--unnorm-key bridge_orig --json",
    ),
)
