"""Printing of summaries as tables and sentences; no computation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = [
    "LOOP_PATHS",
    "Summary",
    "interval",
    "percent",
    "show_comparison",
    "show_evaluation",
    "show_fields",
    "show_loop",
    "show_plain_values",
    "show_plan",
    "show_tasks",
    "show_training",
]

Summary = Mapping[str, Any]

LOOP_PATHS = ("policy", "evaluation", "before", "after")
"""Paths in a loop's summary, within the loop's folder."""


def percent(value: float) -> str:
    """``0.4375`` as ``43.8 %``."""
    return f"{100 * value:.1f} %"


def interval(bounds: tuple[float, float] | list[float]) -> str:
    """Bounds of a success rate as ``35.0 - 52.1 %``."""
    return f"{100 * bounds[0]:.1f} - {100 * bounds[1]:.1f} %"


def show_fields(summary: Summary, console: Console, *names: str) -> None:
    """Print a line for each named value that is present."""
    width = max((len(name) for name in names), default=0)
    for name in names:
        if name in summary:
            value = summary[name]
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            console.print(f"{name.replace('_', ' '):<{width}}  {text}", soft_wrap=True)


def show_plain_values(summary: Summary, console: Console) -> None:
    """Print every value of a summary that is neither None, a list nor a mapping."""
    plain = (name for name, value in summary.items() if value is not None and not isinstance(value, dict | list))
    show_fields(summary, console, *plain)


def show_plan(summary: Summary, console: Console) -> None:
    """The plan of a dry run: its values, and what they hold, one a line; rows of one kind as a table."""
    _show_value({name: value for name, value in summary.items() if name != "dry_run"}, "", console)


def _show_value(value: Summary, indent: str, console: Console) -> None:
    width = max((len(str(name)) for name in value), default=0)
    for name, inner in value.items():
        title = f"{indent}{str(name).replace('_', ' '):<{width}}"
        if isinstance(inner, Mapping) and inner:
            console.print(title.rstrip() + ":", soft_wrap=True)
            _show_value(inner, indent + "  ", console)
        elif isinstance(inner, list) and inner and all(isinstance(row, Mapping) for row in inner):
            console.print(title.rstrip() + ":", soft_wrap=True)
            console.print(_table_of(inner))
        else:
            console.print(f"{title}  {_plain(inner)}".rstrip(), soft_wrap=True)


def _table_of(rows: list[Summary]) -> Table:
    table = Table()
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        numbers = all(isinstance(row.get(name), int | float | None) for row in rows)
        table.add_column(str(name).replace("_", " "), justify="right" if numbers else "left")
    for row in rows:
        table.add_row(*(_plain(row[name]) if name in row else "" for name in names))
    return table


def _plain(value: Any) -> str:
    """Text of a value."""
    if value is None or value in ({}, []):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value) if abs(value) < 10_000 else f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)


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
    """Table of success with intervals, what else was measured, and where the results are."""
    show_tasks(summary, console)
    _show_measures(summary, "", console)
    seeds = summary.get("seeds")
    if seeds:
        file = Path(summary["results"]).with_name(seeds["file"])
        title = f"{seeds['samples']} sampled rollouts from each initial state ({file})"
        _show_measures(seeds, title, console)
    if summary.get("until") == "last-step":
        console.print("Episodes ran to their last step; success is that of the last state.")
    show_fields(summary, console, "protocol", "results")


def _show_measures(summary: Summary, title: str, console: Console) -> None:
    """Table of the shares of episodes in which something held, in the last state or ever, where that was measured."""
    names = dict.fromkeys(name.rpartition("_")[0] for name in summary.get("measures", ()))
    if not names:
        return
    table = Table(title=title or None)
    for column in ("task", "", "at the end", "ever"):
        share = column in ("at the end", "ever")
        table.add_column(column, justify="right" if share else "left", no_wrap=share, overflow="fold")
    for task, row in [*summary["tasks"].items(), ("all", summary)]:
        table.add_section()
        for index, name in enumerate(names):
            shares = (row["measures"][f"{name}_{when}"] for when in ("end", "ever"))
            cells = (f"{percent(share['rate'])} ({interval(share['interval'])})" for share in shares)
            table.add_row("" if index else task, name, *cells)
    console.print(table)


def show_comparison(summary: Summary, console: Console) -> None:
    """The verdict in a sentence."""
    console.print(summary["sentence"], soft_wrap=True)


def show_training(summary: Summary, console: Console) -> None:
    """What was trained on, the last update's metrics, and where the policy is."""
    facts = [name for name, value in summary.items() if isinstance(value, int) and not isinstance(value, bool)]
    show_fields(summary, console, "method", *facts)
    metrics = summary.get("metrics") or {}
    if metrics:
        console.print("last update:")
        show_fields(
            {f"  {name}": value for name, value in metrics.items()}, console, *(f"  {name}" for name in metrics)
        )
    for name, value in (summary.get("holdout") or {}).items():
        show_fields({f"held-out {name}": value}, console, f"held-out {name}")
    show_fields(summary, console, "policy")


def show_loop(summary: Summary, console: Console) -> None:
    """Test and validation tables, the verdicts and the report's path."""
    table = Table(title="validation states (the gate's)")
    for column in ("policy", "success", "95 % interval", "gate"):
        table.add_column(column, justify="right" if column in ("success", "95 % interval") else "left")
    for entry in summary["policies"]:
        table.add_row(entry["label"], percent(entry["success_rate"]), interval(entry["interval"]), entry["verdict"])
    test, comparison = summary["test"], summary["comparison"]
    first, last = test.get("labels", ("first policy", "last policy"))
    _show_test(comparison, f"test states {test.get('states', '')}".rstrip(), first, last, console)
    console.print(f"A: {first}, B: {last}.")
    show_comparison(comparison, console)
    console.print(table)
    for arm in summary.get("arms", ()):
        _show_arm(arm, console)
    show_fields(summary, console, "policy", "report")


def _show_test(comparison: Summary, title: str, first: str, last: str, console: Console) -> None:
    """Success of the first and the last policy by task, with a last row for all."""
    table = Table(title=f"{title} (nothing was learned or decided on them)")
    table.add_column("task")
    for column in ("episodes", first, "95 % interval", last, "95 % interval"):
        table.add_column(column, justify="right")
    for name, row in [*comparison["tasks"].items(), ("all", comparison)]:
        if name == "all":
            table.add_section()
        rates = [
            text
            for side in ("a", "b")
            for text in (percent(row[side]["success_rate"]), interval(row[side]["interval"]))
        ]
        table.add_row(name, str(row["pairs"]), *rates)
    console.print(table)


def _show_arm(arm: Summary, console: Console) -> None:
    """Print the results of another method on the same rollouts."""
    table = Table(title=f"the same start and rollouts, with {arm['label']} (test states)")
    for column in ("policy", "success", "95 % interval", "episodes"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    for row in arm["test"]:
        table.add_row(row["label"], percent(row["success_rate"]), interval(row["interval"]), str(row["episodes"]))
    console.print(table)
    own, other = (row["label"] for row in arm["test"])
    console.print(f"A: {other}, B: {own}.")
    show_comparison(arm["comparison"], console)
