"""Learning curves from the metrics that training writes: one chart a quantity, the iterations one after another."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grape.report.charts import Chart, Point, line_chart

__all__ = ["Curves", "Training", "preference_charts", "preference_curves", "sft_charts", "sft_curves"]


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
class Curves:
    """One quantity over training, for the page and for a paper.

    Attributes:
        key: Unique among the curves of a run.
        title: Heading.
        unit: What the vertical axis counts.
        description: The curves in words.
        series: Label and points of each curve.
        dividers: Place and label of each training's start; empty with a single one.
        y_range: Range the vertical axis covers at least; None takes it from the points.
        styles: Style of each curve, see :class:`grape.report.charts.Line`; empty counts from 0.
    """

    key: str
    title: str
    unit: str
    description: str
    series: tuple[tuple[str, tuple[Point, ...]], ...]
    dividers: tuple[tuple[float, str], ...]
    y_range: tuple[float, float] | None
    styles: tuple[int, ...]


@dataclass(frozen=True)
class _Plot:
    key: str
    title: str
    unit: str
    series: tuple[tuple[str, str], ...]  # metric and label
    text: str
    y_range: tuple[float, float] | None = None
    styles: tuple[int, ...] = ()


# Styles 4 and 1 are the colors of chosen and rejected everywhere on the page.
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


def preference_curves(trainings: Sequence[Training]) -> tuple[Curves, ...]:
    """Curves of preference training; iterations follow each other along the horizontal axis."""
    return tuple(curves for plot in _PREFERENCE_PLOTS if (curves := _curves(f"tpo-{plot.key}", plot, trainings)))


def preference_charts(trainings: Sequence[Training]) -> tuple[Chart, ...]:
    """The page's drawings of :func:`preference_curves`."""
    return tuple(_chart(curves) for curves in preference_curves(trainings))


def sft_charts(training: Training) -> tuple[Chart, ...]:
    """The page's drawings of :func:`sft_curves`."""
    return tuple(_chart(curves) for curves in sft_curves(training))


def sft_curves(training: Training) -> tuple[Curves, ...]:
    """Curves of supervised fine-tuning: the loss, with that of held-out episodes where it was measured."""
    names = sorted({name for row in training.rows for name in row})
    series = [("loss", "training")]
    series += [(name, "held-out") for name in names if name != "loss" and "loss" in name and "hold" in name][:1]
    loss = _Plot("loss", "SFT loss", "nats a token", tuple(series), "Cross-entropy of the experts' action tokens.")
    all_curves = [_curves("sft-loss", loss, (training,))]
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
        all_curves.append(_curves("sft-accuracy", plot, (training,)))
    return tuple(curves for curves in all_curves if curves is not None)


def _chart(curves: Curves) -> Chart:
    return line_chart(
        curves.key,
        curves.title,
        curves.description,
        curves.unit,
        curves.series,
        dividers=curves.dividers,
        x_label="update",
        y_range=curves.y_range,
        styles=curves.styles,
    )


def _curves(key: str, plot: _Plot, trainings: Sequence[Training]) -> Curves | None:
    """The curves, or None where no training has the metric."""
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
    series = tuple((label, tuple(curve)) for (_, label), curve in zip(plot.series, curves, strict=True))
    return Curves(
        key=key,
        title=plot.title,
        unit=plot.unit,
        description=f"{plot.text} {_in_words(series)}",
        series=series,
        dividers=tuple(dividers) if len(dividers) > 1 else (),
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
