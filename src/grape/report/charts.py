"""Geometry of the page's charts: from numbers to positions in a drawing, without any markup.

The templates draw what stands here, so that every text goes through their escaping. Positions are in the drawing's
own units with the origin at the top left; a drawing is meant to be shown at about its own size, so that its text
stays readable on a phone as well as on a wide screen.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "Chart",
    "Line",
    "Mark",
    "Point",
    "Tick",
    "line_chart",
    "nice_ticks",
    "smooth",
    "split_at",
    "success_chart",
    "thin_out",
]


@dataclass(frozen=True)
class Point:
    """One measured value.

    Attributes:
        x: Where it lies along the horizontal axis.
        y: The value.
        low: Lower end of its interval, or None.
        high: Upper end of its interval, or None.
        hollow: Whether it is drawn as an outline, e.g. a policy that the gate did not accept.
        note: Text shown on pointing at it.
    """

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    hollow: bool = False
    note: str = ""


@dataclass(frozen=True)
class Tick:
    """A labeled place on an axis."""

    position: float
    label: str


@dataclass(frozen=True)
class Mark:
    """A point in the drawing, with the ends of its whisker where it has one."""

    x: float
    y: float
    low_y: float | None
    high_y: float | None
    hollow: bool
    note: str


@dataclass(frozen=True)
class Line:
    """A series in the drawing.

    Attributes:
        label: Name for the legend.
        style: 0, 1, 2 ...: picks color, dash pattern and shape of the marks together.
        path: SVG path of the line.
        faint: SVG path of the unsmoothed values, or empty.
        aside: SVG path from the line to points beside it, or empty.
        marks: Points drawn as shapes; empty for long curves.
    """

    label: str
    style: int
    path: str
    faint: str
    aside: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Chart:
    """Everything a template needs to draw one chart.

    Attributes:
        key: Unique within the page; becomes part of ids.
        title: Heading.
        description: What the chart shows, in words, for people who do not see it.
        unit: What the vertical axis counts.
        width: Width of the drawing.
        height: Height of the drawing.
        left: Left end of the plot.
        right: Right end of the plot.
        top: Upper end of the plot.
        bottom: Lower end of the plot.
        x_ticks: Labels of the horizontal axis.
        y_ticks: Labels of the vertical axis.
        lines: The series.
        dividers: Labeled vertical lines, e.g. where an iteration begins.
    """

    key: str
    title: str
    description: str
    unit: str
    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    dividers: tuple[Tick, ...] = ()


def nice_ticks(low: float, high: float, n_steps: int = 5) -> tuple[float, ...]:
    """Round numbers that cover ``low`` to ``high`` in about ``n_steps`` steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        padding = abs(low) * 0.1 or 1.0
        low, high = low - padding, high + padding
    raw = (high - low) / max(1, n_steps)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(round(index * step, 12) for index in range(first, last + 1))


def thin_out(points: Sequence[Point], limit: int = 240) -> tuple[Point, ...]:
    """At most ``limit`` points: means of neighbors, so that a long curve stays small on the page."""
    if len(points) <= limit:
        return tuple(points)
    edges = [round(index * len(points) / limit) for index in range(limit + 1)]
    groups = [points[start:end] for start, end in itertools.pairwise(edges)]
    return tuple(
        Point(math.fsum(point.x for point in group) / len(group), math.fsum(point.y for point in group) / len(group))
        for group in groups
    )


def smooth(points: Sequence[Point], width: int) -> list[Point]:
    """Centered running mean over ``2 * width + 1`` points, narrower at the ends."""
    result = []
    for index, point in enumerate(points):
        reach = min(width, index, len(points) - 1 - index)
        window = points[index - reach : index + reach + 1]
        result.append(Point(point.x, math.fsum(item.y for item in window) / len(window)))
    return result


def _label(value: float, step: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 1e5 or abs(value) < 1e-4:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    return f"{value:.{decimals}f}".replace("-", "−")


def _path(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{'L' if index else 'M'}{x:.1f} {y:.1f}" for index, (x, y) in enumerate(places))


def split_at(points: Sequence[Point], edges: Sequence[float]) -> list[list[Point]]:
    """The points between one divider and the next, so that no line runs from one training into another."""
    pieces: list[list[Point]] = []
    for start, end in zip([-math.inf, *edges], [*edges, math.inf], strict=True):
        piece = [point for point in points if start < point.x <= end]
        if piece:
            pieces.append(piece)
    return pieces


def line_chart(
    key: str,
    title: str,
    description: str,
    unit: str,
    series: Sequence[tuple[str, Sequence[Point]]],
    *,
    dividers: Sequence[tuple[float, str]] = (),
    x_label: str = "step",
    width: float = 340,
    height: float = 210,
    y_range: tuple[float, float] | None = None,
    styles: Sequence[int] = (),
) -> Chart:
    """Curves over training.

    Long curves are drawn twice: the values faintly, their running mean on top.

    Args:
        key: Unique within the page.
        title: Heading.
        description: The chart in words.
        unit: What the vertical axis counts.
        series: Label and points of each curve; points with values that are not finite are left out.
        dividers: Place and label of vertical lines.
        x_label: ComparisonItem of the horizontal axis, put before its first label.
        width: Width of the drawing.
        height: Height of the drawing.
        y_range: Range the vertical axis covers at least; None takes it from the points.
        styles: Style of each curve; 0, 1, 2 ... when empty.

    Raises:
        ValueError: There is no finite point.
    """
    finite = [(label, [p for p in points if math.isfinite(p.y) and math.isfinite(p.x)]) for label, points in series]
    everything = [point for _, points in finite for point in points]
    if not everything:
        raise ValueError("no finite point")
    x_low, x_high = min(point.x for point in everything), max(point.x for point in everything)
    x_low = min([x_low, *(x for x, _ in dividers)])
    if x_high == x_low:
        x_low, x_high = x_low - 0.5, x_high + 0.5
    lows = [point.y for point in everything] + ([y_range[0]] if y_range else [])
    highs = [point.y for point in everything] + ([y_range[1]] if y_range else [])
    y_values = nice_ticks(min(lows), max(highs), 4)
    left, right, top, bottom = 46.0, width - 10.0, 20.0 if dividers else 10.0, height - 24.0

    def place(point: Point) -> tuple[float, float]:
        x = left + (point.x - x_low) / (x_high - x_low) * (right - left)
        y = bottom - (point.y - y_values[0]) / (y_values[-1] - y_values[0]) * (bottom - top)
        return x, y

    lines = []
    for index, (label, points) in enumerate(finite):
        if not points:
            continue
        pieces = split_at(points, [x for x, _ in dividers])
        raw = [thin_out(piece, max(2, 240 // len(pieces))) for piece in pieces]
        smoothed = [smooth(piece, len(piece) // 24) for piece in raw]
        rough = max(len(piece) for piece in raw) > 24
        marks = tuple(Mark(*place(p), None, None, p.hollow, p.note) for piece in smoothed for p in piece)
        lines.append(
            Line(
                label=label,
                style=styles[index] if styles else index,
                path=" ".join(_path([place(point) for point in piece]) for piece in smoothed),
                faint=" ".join(_path([place(point) for point in piece]) for piece in raw) if rough else "",
                aside="",
                marks=marks if len(marks) <= 12 else (),
            )
        )
    step = y_values[1] - y_values[0]
    # Updates are counted, so a place between two of them gets no label.
    x_values = [value for value in nice_ticks(x_low, x_high, 3) if x_low <= value <= x_high and value == int(value)]
    x_step = x_values[1] - x_values[0] if len(x_values) > 1 else 1.0
    x_ticks = [Tick(place(Point(value, y_values[0]))[0], _label(value, x_step)) for value in x_values]
    if x_ticks and x_label:
        x_ticks[0] = Tick(x_ticks[0].position, f"{x_label} {x_ticks[0].label}")
    return Chart(
        key=key,
        title=title,
        description=description,
        unit=unit,
        width=width,
        height=height,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        x_ticks=tuple(x_ticks),
        y_ticks=tuple(Tick(place(Point(x_low, value))[1], _label(value, step)) for value in y_values),
        lines=tuple(lines),
        dividers=_dividers([max(left, place(Point(x, 0.0))[0]) for x, _ in dividers], [d for _, d in dividers], right),
    )


def _dividers(places: Sequence[float], labels: Sequence[str], right: float) -> tuple[Tick, ...]:
    """Dividers with as much of their labels as fits before the next one: all, the last word, or nothing."""
    ticks = []
    for place, end, label in zip(places, [*places, right][1:], labels, strict=True):
        fitting = (text for text in (label, label.rpartition(" ")[2]) if 5.4 * len(text) + 6 <= end - place)
        ticks.append(Tick(place, next(fitting, "")))
    return tuple(ticks)


def success_chart(
    key: str,
    description: str,
    labels: Sequence[str],
    series: Sequence[tuple[str, Sequence[Point]]],
    *,
    width: float,
    height: float,
) -> Chart:
    """Success rates with intervals, one column a policy.

    Args:
        key: Unique within the page.
        description: The chart in words.
        labels: Name of each column.
        series: Label and points of each arm; ``x`` counts columns from 0, ``y``, ``low`` and ``high`` lie in [0, 1].
        width: Width of the drawing.
        height: Height of the drawing.
    """
    left, right, top, bottom = 46.0, width - 12.0, 16.0, height - 30.0
    column = (right - left) / max(1, len(labels))
    spread = min(14.0, 0.5 * column / max(1, len(series)))

    def y_of(value: float) -> float:
        return bottom - min(1.0, max(0.0, value)) * (bottom - top)

    lines = []
    for index, (label, points) in enumerate(series):
        shift = (index - (len(series) - 1) / 2) * spread
        places = [(left + (point.x + 0.5) * column + shift, y_of(point.y)) for point in points]
        marks = tuple(
            Mark(
                x,
                y,
                None if point.low is None else y_of(point.low),
                None if point.high is None else y_of(point.high),
                point.hollow,
                point.note,
            )
            for (x, y), point in zip(places, points, strict=True)
        )
        accepted_points = [spot for spot, point in zip(places, points, strict=True) if not point.hollow]
        lines.append(Line(label, index, _path(accepted_points), "", _aside(places, points), marks))
    return Chart(
        key=key,
        title="Success rate by iteration",
        description=description,
        unit="success rate",
        width=width,
        height=height,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        x_ticks=tuple(
            Tick(left + (index + 0.5) * column, _fitted(label, int(column / 6.2))) for index, label in enumerate(labels)
        ),
        y_ticks=tuple(Tick(y_of(value / 100), f"{value} %") for value in (0, 25, 50, 75, 100)),
        lines=tuple(lines),
    )


def _aside(places: Sequence[tuple[float, float]], points: Sequence[Point]) -> str:
    """Lines from the last policy that went on to each one that did not."""
    path, last = [], None
    for spot, point in zip(places, points, strict=True):
        if not point.hollow:
            last = spot
        elif last is not None:
            path.append(_path([last, spot]))
    return " ".join(path)


def _fitted(label: str, fits: int) -> str:
    """``label`` on one line of at most ``fits`` letters, else on two, cut where they are still too long."""
    if len(label) <= fits:
        return label
    head, _, tail = label.rpartition(" ")
    parts = [head, tail] if head else [tail]
    return "\n".join(part if len(part) <= fits else part[: max(1, fits - 1)] + "…" for part in parts)
