"""``grape probe``."""

from typing import Any

from rich.console import Console
from rich.table import Table

from grape.checkpoints import ProbeSettings, run_probe
from grape.cli.show import Summary, percent, show_fields
from grape.cli.verb import Verb


def _show(summary: Summary, console: Console) -> None:
    console.print(_candidate_table(summary))
    console.print(_variation_table(summary))
    reasons = "; ".join(f"{name.replace('_', ' ')} ({reason})" for name, reason in summary["not_varied"].items())
    console.print(f"Not varied: {reasons}.", soft_wrap=True)
    console.print(summary["sentence"], soft_wrap=True)
    for note in summary["notes"]:
        console.print(note, soft_wrap=True)
    console.print(summary["next"], soft_wrap=True)
    facts = {
        "without a policy": f"{summary['uniform']:.2f} nats a token where all tokens are equally likely, "
        f"{summary['frequencies']:.2f} knowing how often each occurs; the commonest is right in "
        f"{percent(summary['commonest'])}",
        "compared on": f"{summary['decisions']} decisions of {summary['episodes']} episodes and "
        f"{len(summary['tasks'])} tasks, {summary['tokens']} tokens, softmax over the action tokens at temperature 1",
        "intervals": summary["method"],
        "statistics": summary["unnorm_key"],
        "computed on": summary["computation"],
    }
    show_fields(facts, console, *facts)


def _candidate_table(summary: Summary) -> Table:
    """One row a candidate. Its own softmax is another footing: not to be compared down the column."""
    single = any(row["name"] == "openvla" for row in summary["candidates"])
    table = Table(title="demonstrations under each preset")
    table.add_column("preset", no_wrap=True)
    for column in ("nats a token", "interval", *(["first action"] if single else []), "tokens right", "own softmax"):
        table.add_column(column, justify="right")
    table.add_column("worse by", justify="right")
    for row in summary["candidates"]:
        name = f"{row['name']}{' (stated)' if row['stated'] and row['name'] != 'stated' else ''}"
        if "problem" in row:
            table.add_row(name, "cannot be run")
            continue
        own = row["own"]
        table.add_row(
            name,
            f"{row['nll']:.3f}",
            "{:.3f} to {:.3f}".format(*row["interval"]),
            *([f"{row['first_nll']:.3f}"] if single else []),
            percent(row["accuracy"]),
            f"{own['nll']:.3f} ({own['support']}, {own['temperature']:g})",
            f"{row['difference']:.3f}",
        )
    return table


def _variation_table(summary: Summary) -> Table:
    """One row a change of a single convention."""
    table = Table(title=f"what a single convention costs, from {summary['best']}")
    for column in ("convention", "from", "to", "costs, nats a token", "tokens right"):
        table.add_column(column, justify="left" if column in ("convention", "from", "to") else "right")
    for row in summary["variations"]:
        cells = [row["convention"], _word(row["from"]), _word(row["to"])]
        if "problem" in row:
            table.add_row(*cells, "same input" if row["problem"].startswith("gives") else "cannot be run", "")
            continue
        cost = "{:+.3f} ({:+.3f} to {:+.3f})".format(row["cost"], *row["interval"])
        table.add_row(*cells, cost, percent(row["accuracy"]))
    return table


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


VERB = Verb(
    name="probe",
    settings=ProbeSettings,
    run=run_probe,
    show=_show,
    examples=(
        "grape probe --policy oft-7b --data rlds:/data/libero_spatial_no_noops --unnorm-key libero_spatial",
        "grape probe --policy runs/sft/policy --data runs/demonstrations --samples 512 --out runs/probe --json",
    ),
)
