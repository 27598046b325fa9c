"""How the page writes numbers."""

import math

from grape.evaluation import wording

__all__ = ["count_of", "fixed", "percent", "points", "short", "signed"]

MINUS = "−"


def percent(value: float) -> str:
    """``0.4375`` as ``43.8 %``, whole numbers without a decimal."""
    text = f"{100 * value:.1f}"
    return f"{text.removesuffix('.0')} %"


def points(difference: float) -> str:
    """A difference of shares as signed percentage points, e.g. ``+12.0``."""
    return wording.points(difference).replace("-", MINUS)


def signed(value: float, digits: int = 2) -> str:
    """``0.5`` as ``+0.50``, with a true minus sign."""
    value = round(value, digits) or 0.0
    return f"{value:+.{digits}f}".replace("-", MINUS)


def short(value: float | None, digits: int = 3) -> str:
    """A number with ``digits`` significant digits, without an exponent where it can be avoided."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}" if decimals <= 6 else f"{value:.{digits - 1}e}"
    return text.replace("-", MINUS)


def fixed(value: float) -> str:
    """A position in a drawing or a percentage, with at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"


def count_of(number: int, noun: str) -> str:
    """``1 episode``, ``2,400 episodes``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
