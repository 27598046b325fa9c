"""Figures and tables of a run for a paper: what ``grape report --figures`` writes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from grape.core.errors import GrapeError
from grape.core.files import sweep_temporaries, write_bytes, write_text
from grape.core.preferences import Score
from grape.evaluation import compare_results
from grape.evaluation.format import p_text
from grape.report import numbers, plots
from grape.report.charts import Point
from grape.report.contents import Evaluated, RoundContents, RunContents
from grape.report.curves import preference_curves, sft_curves
from grape.report.tables import Row, csv_text, run_tables

__all__ = ["comparison_row", "run_figures", "write_figures"]

Draw = Callable[[], Any]

_OUTCOMES = {True: "success", False: "failure", None: "outcome unknown"}


def write_figures(
    folder: Path,
    figures: Mapping[str, Draw],
    tables: Mapping[str, Sequence[Row]],
    advance: Callable[[], object] = lambda: None,
) -> list[str]:
    """Write each figure as PDF and PNG and each table as CSV; files of earlier reports with other names stay.

    Args:
        folder: Where to; made if missing.
        figures: What draws each, by name.
        tables: Rows of each, by name.
        advance: Called after every figure.

    Returns:
        Names of the files.

    Raises:
        SettingsError: Matplotlib is not installed.
        GrapeError: A file cannot be written.
    """
    names = []
    sweep_temporaries(folder)
    for name, draw in figures.items():
        for suffix, content in plots.render(draw).items():
            names.append(f"{name}.{suffix}")
            write_bytes(folder / names[-1], content)
        advance()
    for name, rows in tables.items():
        names.append(f"{name}.csv")
        write_text(folder / names[-1], csv_text(rows))
    return names


def run_figures(contents: RunContents) -> tuple[dict[str, Draw], dict[str, list[Row]]]:
    """Figures and tables of a run by name; what the run does not hold is left out."""
    figures: dict[str, Draw] = {}
    tables = run_tables(contents)
    success = _success(contents)
    if success is not None:
        figures["success"] = success
    differences = list(_differences(contents))
    if differences:
        rows = [_mark(row) for row in differences]
        figures["differences"] = partial(plots.forest_figure, rows, "difference in success (points)")
        tables["differences"] = differences
    curves = [] if contents.sft is None else list(sft_curves(contents.sft))
    curves += preference_curves([item.training for item in contents.rounds if item.training is not None])
    for quantity in curves:
        figures[f"training-{quantity.key}"] = partial(plots.curves_figure, quantity)
    for item in contents.rounds:
        if panels := _score_panels(item):
            figures[f"scores-{_slug(item.round.label)}"] = partial(plots.scores_figure, panels)
    return figures, tables


def _slug(label: str) -> str:
    """A label as part of a file's name."""
    return "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in label).strip("-").lower()


def _success(contents: RunContents) -> Draw | None:
    """Success by iteration where a loop ordered its policies, else one line a policy."""
    if not contents.is_loop:
        rates = [
            (policy.label, policy.results.success_rate, *policy.results.interval)
            for arm in contents.arms
            for policy in arm.policies
            if policy.results is not None
        ]
        return partial(plots.rates_figure, rates) if rates else None
    labels: list[str] = []
    series = []
    for arm in contents.arms:
        points = []
        for column, policy in enumerate(arm.policies):
            if column == len(labels):
                labels.append(policy.label)
            if policy.results is not None:
                low, high = policy.results.interval
                points.append(Point(column, policy.results.success_rate, low, high, policy.accepted is False))
        if points:
            series.append((arm.label or "this run", points))
    return partial(plots.success_figure, labels, series) if series else None


def _differences(contents: RunContents) -> Iterable[Row]:
    """Each arm's policies against its first on the same states, then the test, with its tasks."""
    for arm in contents.arms:
        for policy in arm.policies[1:]:
            yield from _difference("iterations", arm.label, arm.policies[0], policy, tasks=False)
    if contents.before is not None and contents.after is not None and contents.before.name != contents.after.name:
        yield from _difference("test", "", contents.before, contents.after, tasks=True)


def _difference(states: str, arm: str, first: Evaluated, policy: Evaluated, *, tasks: bool) -> Iterable[Row]:
    if first.results is None or policy.results is None:
        return
    try:
        comparison = compare_results(first.results, policy.results)
    except GrapeError:
        return  # other states or another suite: the page says so
    names = {"states": states, "arm": arm, "policy": policy.label, "baseline": first.label}
    yield {**names, "task": "", **comparison_row(comparison, comparison["p_value"])}
    if tasks and len(comparison["tasks"]) > 1:
        for task, figures in comparison["tasks"].items():
            yield {**names, "task": task, **comparison_row(figures, figures["p_holm"])}


def comparison_row(figures: Mapping[str, Any], p_value: float) -> Row:
    """A comparison's columns; ``p_value`` is the one to report, adjusted where several were looked at."""
    low, high = figures["interval"]
    return {
        "difference": figures["difference"],
        "interval_low": low,
        "interval_high": high,
        "interval_method": figures["interval_method"],
        "p_value": p_value,
        "test": figures["test"],
        "pairs": figures["pairs"],
        "initial_states": figures["states"],
        "only_baseline_solved": figures["only_a"],
        "only_policy_solved": figures["only_b"],
    }


def _mark(row: Row) -> plots.Difference:
    """A row of the table as a line of the drawing."""
    group = {"iterations": 0, "test": 1}[row["states"]]
    where = "test: " if group else f"{row['arm']}: " if row["arm"] else ""
    return plots.Difference(
        label=where + (row["task"] or f"{row['policy']} − {row['baseline']}"),
        difference=100 * row["difference"],
        low=100 * row["interval_low"],
        high=100 * row["interval_high"],
        text=f"{numbers.points(row['difference'])}, {p_text(row['p_value'])}",
        group=group,
        part=bool(row["task"]),
    )


def _score_panels(item: RoundContents) -> list[plots.Panel]:
    """Distributions of the score and of its unweighted parts by outcome."""
    panels = []
    quantities: dict[str, Callable[[Score], float | None]] = {
        "score $R_{GCPG}$": lambda score: score.gcpg,
        "$R_{ext}$": lambda score: score.r_ext,
        "$R_{self}$ (nats)": lambda score: score.r_self,
    }
    for title, value in quantities.items():
        samples = []
        for outcome, name in _OUTCOMES.items():
            values = (value(score) for score in item.scores.values() if score.success is outcome)
            if known := tuple(number for number in values if number is not None):
                samples.append((name, known))
        if samples:
            panels.append(plots.Panel(title, tuple(samples)))
    return panels
