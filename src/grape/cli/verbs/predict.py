"""``grape predict``."""

import math

from rich.console import Console
from rich.table import Table

from grape.checkpoints import PredictSettings, run_predict
from grape.cli.show import Summary, show_fields
from grape.cli.verb import Verb


def _show(summary: Summary, console: Console) -> None:
    console.print(_chunk_table(summary) if "actions" in summary else _action_table(summary))
    facts = {
        "prompt": summary["prompt"].replace("\n", "\\n"),
        "statistics": summary["unnorm_key"],
        "log-probability": "none: no action tokens" if summary["logp"] is None else f"{summary['logp']:.4f}",
    }
    if summary.get("head") == "l1":
        facts["log-probability"] = "none: an L1 regression head"
    if "center_crop" in summary:
        facts["center crop"] = "yes" if summary["center_crop"] else "no"
    if summary.get("support"):
        facts["log-probability"] += f" (over the {summary['support']}, temperature {summary['temperature']:g})"
    if "conventions" in summary:
        facts["conventions"] = ", ".join(f"{name} {value}" for name, value in summary["conventions"].items())
    facts["computed on"] = summary["computation"]
    show_fields(facts, console, *facts)


def _action_table(summary: Summary) -> Table:
    table = Table(title=None)
    table.add_column("dimension")
    for column in ("action", "normalised", "token", "probability"):
        table.add_column(column, justify="right")
    for name, value, inner, token, logp, in_range in zip(
        *(summary[key] for key in ("action_names", "action", "normalised", "tokens", "logps", "in_range")), strict=True
    ):
        mark = "" if in_range else " (clipped)"
        table.add_row(name, f"{value:+.5f}", f"{inner:+.3f}", f"{token}{mark}", f"{100 * math.exp(logp):.1f} %")
    return table


def _chunk_table(summary: Summary) -> Table:
    """One row an action."""
    table = Table(title=None)
    for column in ("action", *summary["action_names"]):
        table.add_column(column, justify="right")
    for number, row in enumerate(summary["actions"]):
        table.add_row(str(number), *(f"{value:+.3f}" for value in row))
    return table


VERB = Verb(
    name="predict",
    settings=PredictSettings,
    run=run_predict,
    show=_show,
    examples=(
        'grape predict --policy runs/sft/policy --image frame.png --instruction "open the drawer"',
        'grape predict --policy openvla/openvla-7b --image frame.png --instruction "put the carrot on the plate" '
        "--unnorm-key bridge_orig --json",
        'grape predict --policy oft-7b --preset simplevla-rl --image frame.png --instruction "open the drawer" --json',
    ),
)
