"""Drawings for a paper with matplotlib: one column wide, safe for color-blind readers and for a grayscale print.

Series differ in color (Okabe and Ito, "Color Universal Design", 2008), in dash pattern and in the shape of their marks.
Equal input gives equal bytes: no time stamps, no user's matplotlibrc, only fonts that matplotlib brings along.
"""

import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from grape.core.errors import printable
from grape.core.packages import load_package
from grape.report.charts import Point, smooth, split_at
from grape.report.curves import Curves

__all__ = [
    "Difference",
    "Panel",
    "curves_figure",
    "forest_figure",
    "load_matplotlib",
    "rates_figure",
    "render",
    "scores_figure",
    "success_figure",
]

COLUMN = 3.3
"""Width of a figure in inches: a column of the usual two-column formats."""

_COLORS = ("#0072B2", "#D55E00", "#000000", "#CC79A7", "#009E73", "#56B4E9")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 1)))
_MARKS = ("o", "s", "^", "D", "v", "P")

_STYLE: Mapping[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.4,
    "grid.color": "#d8d8d8",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # outlines of Type 3 are refused by several publishers
}


@dataclass(frozen=True)
class Difference:
    """A paired difference with its interval.

    Attributes:
        label: What is compared.
        difference: The difference, in the drawing's unit.
        low: Lower end of the interval.
        high: Upper end.
        text: The figures in words, beside the mark.
        group: Number of the row's style.
        seeds: Differences of single training seeds.
        part: Whether it is part of another row, as a single task is of all tasks.
    """

    label: str
    difference: float
    low: float
    high: float
    text: str
    group: int = 0
    seeds: tuple[float, ...] = ()
    part: bool = False


@dataclass(frozen=True)
class Panel:
    """Distributions of one quantity.

    Attributes:
        title: The quantity.
        samples: Name and values of each group, e.g. an outcome.
    """

    title: str
    samples: tuple[tuple[str, tuple[float, ...]], ...]


def load_matplotlib() -> ModuleType:
    """Matplotlib, which draws the figures.

    Raises:
        SettingsError: It is not installed.
    """
    load_package("matplotlib.figure", "Figures need matplotlib", "figures")
    return load_package("matplotlib", "Figures need matplotlib", "figures")


def render(draw: Callable[[], Any]) -> dict[str, bytes]:
    """A figure as files: PDF for the paper, PNG with 300 dots an inch for everything else.

    Args:
        draw: Makes the figure; called under this module's style.

    Returns:
        Content by suffix, ``"pdf"`` and ``"png"``.
    """
    with _style(), warnings.catch_warnings():
        # A letter that the font lacks is drawn as a box, which one sees.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figure = draw()
        files = {}
        for suffix, metadata in (
            ("pdf", {"Creator": "GRAPE", "Producer": None, "CreationDate": None}),
            ("png", {"Software": None}),
        ):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix, metadata=metadata)
            files[suffix] = buffer.getvalue()
    return files


def _style() -> AbstractContextManager[Any]:
    matplotlib = load_matplotlib()
    context: AbstractContextManager[Any] = matplotlib.rc_context({**_defaults(matplotlib), **_STYLE})
    return context


def _defaults(matplotlib: ModuleType) -> dict[str, Any]:
    """Matplotlib's own settings instead of the user's, but for what chooses a window system."""
    return {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith("backend")}


def _figure(height: float, **grid: Any) -> tuple[Any, Any]:
    figure = load_matplotlib().figure.Figure(figsize=(COLUMN, height))
    return figure, figure.subplots(**grid)


def _plain(text: str) -> str:
    """Text from a file as it stands there: no formula in it, no control characters."""
    return printable(text).replace("$", r"\$")


def _marked(number: int) -> dict[str, Any]:
    index = number % len(_COLORS)
    return {"color": _COLORS[index], "marker": _MARKS[index], "clip_on": False}


def success_figure(labels: Sequence[str], series: Sequence[tuple[str, Sequence[Point]]]) -> Any:
    """Success rates with intervals by policy, a line an arm; policies that a gate rejected are hollow.

    Args:
        labels: Name of each column.
        series: Label and points of each arm; ``x`` counts columns from 0, ``y``, ``low`` and ``high`` lie in [0, 1].
    """
    figure, axes = _figure(2.1 + (0.15 if len(series) > 1 else 0))
    spread = min(0.12, 0.5 / max(1, len(series)))
    for number, (label, points) in enumerate(series):
        style = _marked(number)
        shift = (number - (len(series) - 1) / 2) * spread
        kept = [point for point in points if not point.hollow]
        axes.plot(
            [point.x + shift for point in kept],
            [100 * point.y for point in kept],
            **style,
            linestyle=_DASHES[number % len(_DASHES)],
            label=_plain(label),
        )
        for point in points:
            low, high = (point.y if end is None else end for end in (point.low, point.high))
            axes.errorbar(
                [point.x + shift],
                [100 * point.y],
                [[100 * max(0.0, point.y - low)], [100 * max(0.0, high - point.y)]],
                **style,
                markerfacecolor="white" if point.hollow else style["color"],
                capsize=2,
                elinewidth=0.9,
            )
    axes.set_ylabel("success rate (%)")
    axes.set_ylim(0, 100)
    _columns(axes, labels)
    if len(series) > 1:
        _legend(figure, axes)
    return figure


def _columns(axes: Any, labels: Sequence[str]) -> None:
    """Names below the columns, turned where they would overlap."""
    axes.set_xticks(range(len(labels)))
    longest = max((len(label) for label in labels), default=0)
    turned = longest * len(labels) > 46
    axes.set_xticklabels(
        [_plain(label) for label in labels], rotation=30 if turned else 0, ha="right" if turned else "center"
    )
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.grid(visible=False, axis="x")


def _legend(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    widest = max(len(label) for label in labels)
    columns = max(1, min(len(labels), 44 // (widest + 6)))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, handlelength=2.6, columnspacing=1.2)


def rates_figure(rows: Sequence[tuple[str, float, float, float]]) -> Any:
    """Success rates with intervals, one line each.

    Args:
        rows: Label, rate and ends of the interval, in [0, 1].
    """
    figure, axes = _figure(0.55 + 0.24 * len(rows))
    for number, (_, rate, low, high) in enumerate(rows):
        axes.errorbar(
            [100 * rate],
            [number],
            xerr=[[100 * max(0.0, rate - low)], [100 * max(0.0, high - rate)]],
            **_marked(0),
            capsize=2,
            elinewidth=0.9,
        )
    axes.set_xlabel("success rate (%)")
    axes.set_xlim(0, 100)
    _lines(axes, [row[0] for row in rows])
    return figure


def _lines(axes: Any, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)))
    axes.set_yticklabels([_plain(label) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def forest_figure(rows: Sequence[Difference], unit: str) -> Any:
    """Paired differences with intervals, one line each, beside the line of no difference.

    Args:
        rows: The comparisons.
        unit: What the horizontal axis counts.
    """
    figure, axes = _figure(0.6 + 0.27 * len(rows))
    axes.axvline(0, color="black", linewidth=0.8)
    for number, row in enumerate(rows):
        style = _marked(row.group)
        axes.errorbar(
            [row.difference],
            [number],
            xerr=[[max(0.0, row.difference - row.low)], [max(0.0, row.high - row.difference)]],
            **style,
            markerfacecolor="white" if row.part else style["color"],
            markersize=3.5 if row.part else 4.5,
            capsize=2,
            elinewidth=0.9,
        )
        axes.plot(row.seeds, [number + 0.28] * len(row.seeds), "|", color=style["color"], markersize=3.5)
    axes.set_xlabel(unit)
    _lines(axes, [row.label for row in rows])
    texts = axes.secondary_yaxis("right")
    texts.set_yticks(range(len(rows)), [row.text for row in rows], fontsize=6.5)
    texts.tick_params(length=0)
    texts.spines["right"].set_visible(False)
    return figure


def curves_figure(curves: Curves) -> Any:
    """One quantity over training: single updates thinly, their running mean on top."""
    figure, axes = _figure(1.9 + (0.15 if len(curves.series) > 1 else 0))
    starts = [x for x, _ in curves.dividers]
    for number, (label, points) in enumerate(curves.series):
        style = (curves.styles[number] if curves.styles else number) % len(_COLORS)
        for index, piece in enumerate(split_at(points, starts)):
            width = len(piece) // 24
            x = [point.x for point in piece]
            if width:
                axes.plot(x, [point.y for point in piece], color=_COLORS[style], linewidth=0.5, alpha=0.35)
            axes.plot(
                x,
                [point.y for point in smooth(piece, width)],
                color=_COLORS[style],
                linestyle=_DASHES[style] if len(curves.series) > 1 else "-",
                marker=_MARKS[style] if len(piece) < 3 else "",
                label="_" * bool(index) + _plain(label),
            )
    if curves.y_range is not None:
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, curves.y_range[0]), max(high, curves.y_range[1]))
    for start, label in curves.dividers:
        axes.axvline(start, color="#888888", linewidth=0.6, linestyle=":")
        axes.annotate(
            _plain(label),
            (start, 1),
            (2, -1),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            va="top",
            fontsize=6,
        )
    axes.set_xlabel("update")
    axes.locator_params(axis="x", integer=True)
    axes.set_title(_plain(f"{curves.title} ({curves.unit})"), loc="left")
    if len(curves.series) > 1:
        _legend(figure, axes)
    return figure


def scores_figure(panels: Sequence[Panel]) -> Any:
    """Distributions beside each other as step histograms, each group's area 1, with every value as a tick below.

    Args:
        panels: The quantities; groups of one name have one style in all of them.
    """
    figure, all_axes = _figure(1.75, ncols=len(panels), squeeze=False)
    names = list(dict.fromkeys(name for panel in panels for name, _ in panel.samples))
    for axes, panel in zip(all_axes[0], panels, strict=True):
        values = [value for _, some in panel.samples for value in some]
        low, high = min(values), max(values)
        if not high > low:
            low, high = low - 0.5, high + 0.5
        edges = np.linspace(low, high, 1 + max(6, min(24, math.ceil(math.sqrt(len(values))))))
        for name, some in panel.samples:
            number = names.index(name)
            color, dash = _COLORS[number % len(_COLORS)], _DASHES[number % len(_DASHES)]
            axes.hist(some, edges, density=True, histtype="stepfilled", color=color, alpha=0.18)
            axes.hist(some, edges, density=True, histtype="step", color=color, linestyle=dash, label=name)
            below = -0.05 - 0.05 * number
            ticks = {"color": color, "markersize": 3, "markeredgewidth": 0.5, "clip_on": False}
            axes.plot(some, [below] * len(some), "|", **ticks, transform=axes.get_xaxis_transform())
        axes.tick_params(axis="x", pad=1 + 3.5 * len(names))
        axes.set_xlabel(panel.title)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=3)
        axes.grid(visible=False, axis="y")
    all_axes[0][0].set_ylabel("density")
    handles: dict[str, Any] = {}
    for axes in all_axes[0]:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=len(handles))
    return figure
