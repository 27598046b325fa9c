"""Learning curves from the metrics that training writes: one chart a quantity, the iterations one after another."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grape.report.charts import Chart, Point, line_chart

__all__ = ["Training", "preference_charts", "sft_charts"]


@dataclass(frozen=True)
class Training:
    """Metrics of one training.

    Attributes:
        label: For people, e.g. ``"iteration 1"``.
        rows: One mapping an update, as read from ``metrics.jsonl``.
        alarm: What the training warned of, or empty.
    """

    label: str
    rows: Sequence[Mapping[str, Any]]
    alarm: str = ""


@dataclass(frozen=True)
class _Plot:
    key: str
    title: str
    unit: str
    series: tuple[tuple[str, str], ...]  # metric and label
    text: str
    y_range: tuple[float, float] | None = None
    styles: tuple[int, ...] = ()


# Styles 4 and 1 are the colours of chosen and rejected everywhere on the page.
_PREFERENCE_PLOTS = (
    _Plot(
        "margins",
        "Reward margin",
        "mean over the update's pairs",
        (("rewards/margins", "chosen − rejected"),),
        "How much further the policy moved towards chosen than towards rejected trajectories, relative to the"
        " reference policy.",
        (0.0, 0.0),
    ),
    _Plot(
        "accuracies",
        "Pair accuracy",
        "share of pairs",
        (("rewards/accuracies", "pairs ordered correctly"),),
        "Share of pairs in which the chosen trajectory gained more likelihood than the rejected one.",
        (0.0, 1.0),
    ),
    _Plot(
        "logps",
        "Log-probability of trajectories",
        "nats a trajectory",
        (("logps/chosen", "chosen"), ("logps/rejected", "rejected")),
        "Mean log-probability of chosen and of rejected trajectories under the policy. If both fall, the policy"
        " forgets what it could do.",
        None,
        (4, 1),
    ),
    _Plot("loss", "Loss", "mean over the update", (("loss", "loss"),), "The loss that training lowers."),
    _Plot(
        "nll",
        "Anchor",
        "nats a token",
        (("loss/nll", "chosen trajectories"),),
        "Mean negative log-likelihood of the chosen trajectories' tokens: the anchor that keeps them likely.",
        None,
        (4,),
    ),
)


def preference_charts(trainings: Sequence[Training]) -> tuple[Chart, ...]:
    """Charts of preference training; iterations follow each other along the horizontal axis."""
    return tuple(chart for plot in _PREFERENCE_PLOTS if (chart := _chart(f"tpo-{plot.key}", plot, trainings)))


def sft_charts(training: Training) -> tuple[Chart, ...]:
    """Charts of supervised fine-tuning: the loss, with that of held-out episodes where it was measured."""
    names = sorted({name for row in training.rows for name in row})
    series = [("loss", "training")]
    series += [(name, "held-out") for name in names if name != "loss" and "loss" in name and "hold" in name][:1]
    loss = _Plot("loss", "SFT loss", "nats a token", tuple(series), "Cross-entropy of the experts' action tokens.")
    charts = [_chart("sft-loss", loss, (training,))]
    accuracy = [name for name in names if "accurac" in name][:1]
    if accuracy:
        plot = _Plot(
            "accuracy",
            "SFT token accuracy",
            "share of tokens",
            ((accuracy[0], "most likely token is the expert's"),),
            "How often the most likely action token is the expert's.",
            (0.0, 1.0),
        )
        charts.append(_chart("sft-accuracy", plot, (training,)))
    return tuple(chart for chart in charts if chart is not None)


def _chart(key: str, plot: _Plot, trainings: Sequence[Training]) -> Chart | None:
    """The chart, or None where no training has the metric."""
    curves: list[list[Point]] = [[] for _ in plot.series]
    dividers = []
    offset = 0.0
    for training in trainings:
        last = 0.0
        for index, row in enumerate(training.rows):
            step = _number(row.get("update", row.get("step")))
            x = float(index + 1) if step is None else step
            last = max(last, x)
            for curve, (metric, _) in zip(curves, plot.series, strict=True):
                value = _number(row.get(metric))
                if value is not None:
                    curve.append(Point(offset + x, value))
        if training.rows:
            dividers.append((offset + 0.5, training.label))  # between the last update and the first new one
        offset += last
    if not any(curves):
        return None
    shown = [(label, curve) for (_, label), curve in zip(plot.series, curves, strict=True)]
    return line_chart(
        key,
        plot.title,
        f"{plot.text} {_in_words(shown)}",
        plot.unit,
        shown,
        dividers=dividers if len(dividers) > 1 else (),
        x_label="update",
        y_range=plot.y_range,
        styles=plot.styles,
    )


def _in_words(series: Sequence[tuple[str, Sequence[Point]]]) -> str:
    """First and last value of each curve, for people who do not see it."""
    return " ".join(
        f"{label}: from {points[0].y:.3g} to {points[-1].y:.3g} in {len(points)} points."
        for label, points in series
        if points
    )


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
