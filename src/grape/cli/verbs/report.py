"""``grape report``."""

from rich.console import Console

from grape.cli.show import Summary, show_fields
from grape.cli.verb import Verb
from grape.report import ReportSettings, run_report


def _show(summary: Summary, console: Console) -> None:
    show_fields(summary, console, "report", "bytes", "pairs", "figures")


VERB = Verb(
    name="report",
    settings=ReportSettings,
    run=run_report,
    show=_show,
    positionals=("run",),
    examples=("grape report runs/demo", "grape report runs/demo --figures"),
)
