"""How summaries are shown to people: tables and sentences, no computation."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = [
    "Summary",
    "interval",
    "percent",
    "show_comparison",
    "show_evaluation",
    "show_fields",
    "show_loop",
    "show_tasks",
]

Summary = Mapping[str, Any]


def percent(value: float) -> str:
    """``0.4375`` as ``43.8 %``."""
    return f"{100 * value:.1f} %"


def interval(bounds: tuple[float, float] | list[float]) -> str:
    """Bounds of a success rate as ``35.0 - 52.1 %``."""
    return f"{100 * bounds[0]:.1f} - {100 * bounds[1]:.1f} %"


def show_fields(summary: Summary, console: Console, *names: str) -> None:
    """One line a named value that is there."""
    width = max((len(name) for name in names), default=0)
    for name in names:
        if name in summary:
            value = summary[name]
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            console.print(f"{name.replace('_', ' '):<{width}}  {text}", markup=False, highlight=False, soft_wrap=True)


def show_tasks(summary: Summary, console: Console) -> None:
    """Table of success a task, with a last row for all."""
    table = Table(title=None)
    with_interval = "interval" in summary
    for column in ("task", "success", *(("95 % interval",) if with_interval else ()), "episodes", "mean steps"):
        table.add_column(column, justify="left" if column == "task" else "right")
    for name, row in [*summary["tasks"].items(), ("all", summary)]:
        if name == "all":
            table.add_section()
        cells = [name, percent(row["success_rate"])]
        cells += [interval(row["interval"])] if with_interval else []
        table.add_row(*cells, str(row["episodes"]), f"{row['mean_steps']:.1f}")
    console.print(table)


def show_evaluation(summary: Summary, console: Console) -> None:
    """Table of success with intervals, and where the results are."""
    show_tasks(summary, console)
    show_fields(summary, console, "results")


def show_comparison(summary: Summary, console: Console) -> None:
    """The verdict in a sentence."""
    console.print(summary["sentence"], markup=False, highlight=False, soft_wrap=True)


def show_loop(summary: Summary, console: Console) -> None:
    """Table of the policies, the headline and the report's path."""
    table = Table(title="validation states (the gate's)")
    for column in ("policy", "success", "95 % interval", "gate"):
        table.add_column(column, justify="right" if column in ("success", "95 % interval") else "left")
    for entry in summary["policies"]:
        table.add_row(entry["label"], percent(entry["success_rate"]), interval(entry["interval"]), entry["verdict"])
    console.print(table)
    console.print("Test states, first policy (A) against last (B):", highlight=False)
    show_comparison(summary["comparison"], console)
    show_fields(summary, console, "policy", "report")
