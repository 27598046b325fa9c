"""A study's page: the figure of merit, every difference in one forest plot, and the arms' curves of training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grape.core.files import sweep_beside, write_text
from grape.report.charts import Chart, Point, line_chart, nice_ticks, success_chart
from grape.report.page import render_template
from grape.study.analysis import amount
from grape.study.cells import Cell
from grape.study.diagnosis_table import diagnosis_lines
from grape.study.settings import StudySettings

__all__ = ["Forest", "ForestRow", "forest", "write_page"]

_CURVES = (
    ("rewards/margins", "Reward margin", "mean over the update", "How far chosen and rejected sides part."),
    ("displacement", "Displacement of chosen sides", "nats a token", "Below 0 the chosen side became less likely."),
    ("loss/nll", "Imitation", "nats a token", "Mean negative log-likelihood of what is imitated."),
    ("saturation", "Strength left", "share", "Share of its full strength at which the preference term still pulls."),
    ("loss", "Loss", "mean over the update", "The loss that training lowers; it differs from arm to arm."),
)


@dataclass(frozen=True)
class ForestRow:
    """One comparison in the drawing.

    Attributes:
        label: The two arms.
        text: Difference and adjusted p-value, in words.
        y: Middle of its line.
        x: Place of the difference.
        low: Left end of the interval over fresh states.
        high: Its right end.
        seeds: Places of the differences of single seeds.
        style: Color and dash pattern, by the baseline.
        note: The whole sentence.
    """

    label: str
    text: str
    y: float
    x: float
    low: float
    high: float
    seeds: tuple[float, ...]
    style: int
    note: str


@dataclass(frozen=True)
class Forest:
    """All comparisons of a study in one drawing.

    Attributes:
        width: Width of the drawing.
        height: Height of the drawing.
        zero: Place of no difference.
        ticks: Place and label of the axis' values.
        rows: The comparisons.
        description: The drawing in words.
    """

    width: float
    height: float
    zero: float
    ticks: tuple[tuple[float, str], ...]
    rows: tuple[ForestRow, ...]
    description: str


def forest(comparisons: Sequence[Mapping[str, Any]], merit: str) -> Forest | None:
    """Geometry of the forest plot; None without comparisons.

    Args:
        comparisons: As :func:`grape.study.analysis.analyze` gives them.
        merit: The figure of merit, for units.
    """
    if not comparisons:
        return None
    width, left, right, top, line = 720.0, 230.0, 560.0, 14.0, 34.0
    factor = 1.0 if merit == "steps" else 100.0
    values = [0.0]
    for row in comparisons:
        values += [factor * value for value in (row["difference"], *(row["interval"] or ()), *row["seeds"].values())]
    ticks = nice_ticks(min(values), max(values), 6)

    def place(value: float) -> float:
        return left + (factor * value - ticks[0]) / (ticks[-1] - ticks[0]) * (right - left)

    baselines = list(dict.fromkeys(row["baseline"] for row in comparisons))
    rows = []
    for number, row in enumerate(comparisons):
        low, high = row["interval"] or (row["difference"], row["difference"])
        rows.append(
            ForestRow(
                label=f"{row['arm']} − {row['baseline']}",
                text=f"{amount(merit, row['difference'])}, p = {row['p_holm']:.2g}".replace("-", "−"),
                y=top + (number + 0.5) * line,
                x=place(row["difference"]),
                low=place(low),
                high=place(high),
                seeds=tuple(place(value) for value in row["seeds"].values()),
                style=baselines.index(row["baseline"]) % 6,
                note=row["sentence"],
            )
        )
    return Forest(
        width=width,
        height=top + line * len(rows) + 30,
        zero=place(0.0),
        ticks=tuple((place(value / factor), f"{value:+g}".replace("-", "−") if value else "0") for value in ticks),
        rows=tuple(rows),
        description=" ".join(row["sentence"] for row in comparisons),
    )


def write_page(settings: StudySettings, summary: Mapping[str, Any], cells: Sequence[Cell]) -> str:
    """Write ``out/study.html`` and return its name.

    Raises:
        SettingsError: Jinja is not installed.
        GrapeError: The page cannot be written.
    """
    target = settings.out / "study.html"
    page = render_template(
        "study.html.j2",
        title=settings.title,
        summary=summary,
        forest=forest(summary["comparisons"], settings.merit),
        iterations=_iterations(settings, cells),
        curves=_curves(settings, cells),
        diagnosis=diagnosis_lines(summary["diagnosis"]) if "diagnosis" in summary else [],
        made_by=sorted({", ".join(cell.software.values()) for cell in cells}),
        versions=sorted({item for cell in cells for item in cell.versions.items()}),
    )
    sweep_beside(target)
    write_text(target, page)
    return target.name


def _iterations(settings: StudySettings, cells: Sequence[Cell]) -> Chart | None:
    """Success after every iteration, a line an arm; None with one iteration."""
    if settings.iterations < 2:
        return None
    series = []
    for name in settings.arms:
        points = []
        for iteration in range(settings.iterations + 1):
            outcomes = [
                outcome
                for cell in cells
                for item in cell.rounds
                if cell.arm == name and item.iteration == iteration
                for outcome in item.outcomes
            ]
            if outcomes:
                rate = sum(outcome.success for outcome in outcomes) / len(outcomes)
                points.append(Point(iteration, rate, note=f"{name}, iteration {iteration}: {100 * rate:.1f} %"))
        series.append((name, points))
    labels = ["start", *(f"iteration {number}" for number in range(1, settings.iterations + 1))]
    text = "Success rate over all seeds after each iteration. " + " ".join(
        f"{point.note}." for _, points in series for point in points
    )
    return success_chart("iterations", text, labels, series, width=600, height=330)


def _curves(settings: StudySettings, cells: Sequence[Cell]) -> list[Chart]:
    """One chart a metric, one line an arm: the mean over the seeds in the first iteration."""
    charts = []
    for number, (metric, title, unit, text) in enumerate(_CURVES):
        series, styles = [], []
        for style, name in enumerate(settings.arms):
            sums: dict[float, list[float]] = {}
            for item in (item for cell in cells if cell.arm == name for item in cell.rounds if item.iteration == 1):
                for update, value in zip(item.curve.get("update", ()), item.curve.get(metric, ()), strict=False):
                    if update is not None and value is not None:
                        sums.setdefault(update, []).append(value)
            if sums:
                points = [Point(update, math.fsum(some) / len(some)) for update, some in sorted(sums.items())]
                series.append((name, points))
                styles.append(style)
        if series:
            words = [f"{name}: from {points[0].y:.3g} to {points[-1].y:.3g}." for name, points in series]
            charts.append(
                line_chart(
                    f"curve-{number}", title, f"{text} {' '.join(words)}", unit, series, x_label="update", styles=styles
                )
            )
    return charts
