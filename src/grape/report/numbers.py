"""Formatting of numbers on the page."""

import math

from grape.evaluation import format

__all__ = ["count_of", "fixed", "percent", "points", "quantity", "short", "signed"]

MINUS = "−"


def percent(value: float) -> str:
    """``0.4375`` as ``43.8 %``, whole numbers without a decimal."""
    text = f"{100 * value:.1f}"
    return f"{text.removesuffix('.0')} %"


def points(difference: float) -> str:
    """A difference of shares as signed percentage points, e.g. ``+12.0``."""
    return format.points(difference).replace("-", MINUS)


def signed(value: float, digits: int = 2) -> str:
    """``0.5`` as ``+0.50``, with a true minus sign; what rounds to zero is ``0``."""
    if round(value, digits) == 0:
        return "0"
    return f"{value:+.{digits}f}".replace("-", MINUS)


def short(value: float | None, digits: int = 3) -> str:
    """A number with ``digits`` significant digits but at most four decimals."""
    if value is None or not math.isfinite(value):
        return "–"
    if abs(value) < 5e-5:
        return "0"
    decimals = min(4, max(0, digits - 1 - math.floor(math.log10(abs(value)))))
    text = f"{value:.{decimals}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", MINUS)


def quantity(value: float, unit: str) -> str:
    """A cost with its unit: lengths below a meter in centimeters, shares and ratios bare."""
    if unit.startswith("m") and (unit == "m" or unit[1] in "/²") and abs(value) < 1:
        value, unit = 100 * value, f"c{unit}"
    bare = unit in ("", "1", "fraction", "ratio", "signal")
    return short(value, 2) if bare else f"{short(value, 2)} {unit.replace('step2', 'step²')}"


def fixed(value: float) -> str:
    """A position in a drawing or a percentage, with at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"


def count_of(number: int, noun: str) -> str:
    """``1 episode``, ``2,400 episodes``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
