"""``grape agree``."""

from rich.console import Console
from rich.table import Table

from grape.cli.show import Summary, show_fields
from grape.cli.verb import Verb
from grape.report import AgreeSettings, run_agree


def _show(summary: Summary, console: Console) -> None:
    table = Table(title=f"{summary['couples']} couples of {summary['states']} initial states")
    for column in ("", "decided", "ties", "orders as success does", "couples"):
        table.add_column(column, justify="right" if column not in ("",) else "left")
    with_success = {row["source"]: row for row in summary["matrix"] if row["reference"] == "success"}
    for source in summary["sources"]:
        row = with_success.get(source["label"])
        value = "" if row is None or row["concordance"] is None else _rate(row["concordance"], row["interval"])
        couples = "" if row is None else str(row["couples"])
        table.add_row(source["label"], str(source["known"] - source["ties"]), str(source["ties"]), value, couples)
    console.print(table)
    for name, part in summary["reliability"].items():
        if part["alpha"] is not None:
            bounds = "" if part["interval"] is None else f" ({part['interval'][0]:.2f} to {part['interval'][1]:.2f})"
            console.print(f"Krippendorff's alpha, {name}: {part['alpha']:.2f}{bounds}, {part['couples']} couples")
    for name, part in summary["repeats"].items():
        console.print(f"Shown couples again, {name} decided {part['alike']} of {part['repeated']} alike")
    show_fields(summary, console, "disagreements", "figures", "page")


def _rate(value: float, bounds: list[float]) -> str:
    return f"{100 * value:.1f} % ({100 * bounds[0]:.1f} - {100 * bounds[1]:.1f})"


VERB = Verb(
    name="agree",
    settings=AgreeSettings,
    run=run_agree,
    show=_show,
    positionals=("run",),
    examples=(
        "grape agree runs/scores",
        "grape agree runs --votes runs/votes --out runs/agreement",
    ),
)
