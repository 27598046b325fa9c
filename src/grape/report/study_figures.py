"""Figures and tables of a study for a paper, read from its ``study.json`` and the results of its cells."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from grape.core.errors import DataError
from grape.core.files import read_json_mapping
from grape.evaluation.format import p_text, points
from grape.evaluation.statistics import clustered_rate_interval
from grape.report import plots
from grape.report.charts import Point
from grape.report.curves import Curves
from grape.report.figures import Draw
from grape.report.tables import Row

__all__ = ["is_study", "study_figures"]

_HINT = "Run the same 'grape study' again: it makes the file from the cells that are there."
# The figure of merit: unit of a difference, and how many of it a value of study.json is.
_UNITS = {
    "success": ("difference in success (points)", 100.0),
    "collisions": ("difference in episodes with a collision (points)", 100.0),
    "steps": ("difference in control steps an episode", 1.0),
}
_METRICS = {
    "rewards/margins": ("Reward margin", "mean over the update"),
    "rewards/accuracies": ("Pair accuracy", "share of pairs"),
    "displacement": ("Displacement of chosen sides", "nats a token"),
    "loss/nll": ("Imitation", "nats a token"),
    "saturation": ("Strength left", "share"),
    "loss": ("Loss", "mean over the update"),
}

Cell = Mapping[str, Any]


def is_study(folder: Path) -> bool:
    """Whether ``grape study`` wrote the folder."""
    return (folder / "study.json").is_file()


def study_figures(folder: Path) -> tuple[dict[str, Draw], dict[str, list[Row]]]:
    """Figures and tables of a study by name; what is not there yet is left out.

    Raises:
        DataError: A file is damaged, or says something else than a study does.
    """
    summary = read_json_mapping(folder / "study.json", hint=_HINT)
    try:
        figures, tables = _of_summary(summary)
        cells = [read_json_mapping(path, hint=_HINT) for path in sorted((folder / "cells").glob("*.json"))]
        arms = [row["arm"] for row in summary["arms"]]
        by_iteration = _iterations(cells, arms)
        if len({row["iteration"] for row in by_iteration}) > 1:
            figures["success-by-iteration"] = _success_figure(by_iteration)
        for curves in _curves(cells, arms):
            figures[f"training-{curves.key}"] = partial(plots.curves_figure, curves)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise DataError(f"{folder} is no complete study ({type(error).__name__}: {error}).", _HINT) from error
    if by_iteration:
        tables["success-by-iteration"] = by_iteration
    return figures, tables


def _of_summary(summary: Mapping[str, Any]) -> tuple[dict[str, Draw], dict[str, list[Row]]]:
    """Success of each arm and the paired differences."""
    figures: dict[str, Draw] = {}
    tables: dict[str, list[Row]] = {}
    rates = [
        (row["arm"], row["success"]["rate"], *row["success"]["interval"]) for row in summary["arms"] if row["success"]
    ]
    if rates:
        figures["success"] = partial(plots.rates_figure, rates)
        tables["arms"] = [_arm_row(row) for row in summary["arms"]]
    comparisons: Sequence[Mapping[str, Any]] = summary["comparisons"]
    if comparisons:
        merit = summary["merit"]["name"]
        unit, factor = _UNITS[merit]
        baselines = list(dict.fromkeys(row["baseline"] for row in comparisons))
        marks = []
        for row in comparisons:
            low, high = row["interval"] or (row["difference"], row["difference"])
            amount = f"{row['difference']:+.1f}" if factor == 1 else points(row["difference"])
            marks.append(
                plots.Difference(
                    label=f"{row['arm']} − {row['baseline']}",
                    difference=factor * row["difference"],
                    low=factor * low,
                    high=factor * high,
                    text=f"{amount}, {p_text(row['p_holm'])}".replace("-", "−"),
                    group=baselines.index(row["baseline"]),
                    seeds=tuple(factor * value for value in row["seeds"].values()),
                )
            )
        figures["differences"] = partial(plots.forest_figure, marks, unit)
        tables["differences"] = [_comparison_row(row) for row in comparisons]
    return figures, tables


def _arm_row(row: Mapping[str, Any]) -> Row:
    def share(name: str) -> Row:
        value = row[name] or {"rate": None, "interval": (None, None)}
        low, high = value["interval"]
        return {f"{name}_rate": value["rate"], f"{name}_low": low, f"{name}_high": high}

    return {
        "arm": row["arm"],
        "seeds": len(row["seeds"]),
        "episodes": row["episodes"],
        **share("success"),
        **share("collisions"),
        "mean_control_steps": row["steps"],
    } | {f"success_seed_{seed}": rate for seed, rate in zip(row["seeds"], row["success_of_seeds"], strict=False)}


def _comparison_row(row: Mapping[str, Any]) -> Row:
    low, high = row["interval"] or (None, None)
    seeds_low, seeds_high = row["interval_seeds"] or (None, None)
    return {
        "arm": row["arm"],
        "baseline": row["baseline"],
        "difference": row["difference"],
        "interval_low": low,
        "interval_high": high,
        "interval_method": row["interval_method"],
        "p_value": row["p_value"],
        "p_holm": row["p_holm"],
        "tests": row["tests"],
        "seeds_interval_low": seeds_low,
        "seeds_interval_high": seeds_high,
        "p_seeds": row["p_seeds"],
        "pairs": row["pairs"],
        "initial_states": row["states"],
        "higher": row["higher"],
        "lower": row["lower"],
        "verdict": row["verdict"],
    } | {f"difference_seed_{seed}": value for seed, value in row["seeds"].items()}


def _iterations(cells: Sequence[Cell], arms: Sequence[str]) -> list[Row]:
    """Success after each iteration over all seeds; a state's episodes, of all seeds, go together."""
    rows: list[Row] = []
    for arm in arms:
        outcomes: dict[int, list[tuple[tuple[str, int], int]]] = {}
        for cell in cells:
            if cell["arm"] == arm:
                for item in cell["rounds"]:
                    ended = [
                        ((cell["tasks"][task], state), success) for task, state, _, success, *_ in item["outcomes"]
                    ]
                    outcomes.setdefault(item["iteration"], []).extend(ended)
        for iteration, ended in sorted(outcomes.items()):
            states, successes = zip(*ended, strict=True)
            low, high = clustered_rate_interval(successes, states)
            rows.append(
                {
                    "arm": arm,
                    "iteration": iteration,
                    "episodes": len(ended),
                    "successes": sum(successes),
                    "success_rate": sum(successes) / len(ended),
                    "interval_low": low,
                    "interval_high": high,
                }
            )
    return rows


def _success_figure(rows: Sequence[Row]) -> Callable[[], Any]:
    last = max(row["iteration"] for row in rows)
    series: dict[str, list[Point]] = {}
    for row in rows:
        point = Point(row["iteration"], row["success_rate"], row["interval_low"], row["interval_high"])
        series.setdefault(row["arm"], []).append(point)
    labels = ["start", *(str(number) for number in range(1, last + 1))]
    return partial(plots.success_figure, labels, list(series.items()))


def _curves(cells: Sequence[Cell], arms: Sequence[str]) -> list[Curves]:
    """A drawing a metric, a line an arm: the mean over the seeds in the first iteration."""
    drawings = []
    for metric, (title, unit) in _METRICS.items():
        series, styles = [], []
        for style, arm in enumerate(arms):
            values: dict[float, list[float]] = {}
            for item in (item for cell in cells if cell["arm"] == arm for item in cell["rounds"]):
                if item["iteration"] == 1:
                    for update, value in zip(
                        item["curve"].get("update", ()), item["curve"].get(metric, ()), strict=False
                    ):
                        if update is not None and value is not None:
                            values.setdefault(update, []).append(value)
            if values:
                means = tuple(Point(update, math.fsum(some) / len(some)) for update, some in sorted(values.items()))
                series.append((arm, means))
                styles.append(style)
        if series:
            key = metric.replace("/", "-")
            if len(series) == 1:  # a single curve has no legend
                title = f"{title}, {series[0][0]}"
            drawings.append(Curves(key, title, unit, "", tuple(series), (), None, tuple(styles)))
    return drawings
