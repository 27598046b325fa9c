"""Sentences about comparisons: numbers in, English out."""

from collections.abc import Mapping
from typing import Any

__all__ = ["comparison_sentence", "need_sentence", "p_text", "points"]


def points(difference: float) -> str:
    """A difference of shares as signed percentage points: ``0.12`` as ``+12.0``, and never ``-0.0``."""
    value = round(100 * difference, 1)
    return f"{value if value else 0.0:+.1f}"


def p_text(p_value: float) -> str:
    """A p-value as ``p < 0.001``, ``p = 0.012`` or ``p = 0.48``."""
    if p_value < 0.001:
        return "p < 0.001"
    return f"p = {p_value:.3f}" if p_value < 0.0995 else f"p = {p_value:.2f}"


def comparison_sentence(verdict: str, figures: Mapping[str, Any], confidence: float) -> str:
    """The verdict with the size of the difference, its interval and the test.

    Args:
        verdict: ``"better"``, ``"worse"`` or ``"not distinguishable"``: B as against A.
        figures: ``difference``, ``interval``, ``p_value`` and ``test`` of the comparison.
        confidence: Level of the interval.
    """
    low, high = figures["interval"]
    details = (
        f"({100 * confidence:g} % interval {points(low)} to {points(high)}; {p_text(figures['p_value'])}, "
        f"{figures['test']})"
    )
    difference = points(figures["difference"])
    if verdict == "better":
        return f"B is better than A by {difference} points {details}."
    if verdict == "worse":
        return f"B is worse than A by {difference.lstrip('-')} points {details}."
    return f"B is not distinguishable from A: the difference is {difference} points {details}."


def need_sentence(needed: Mapping[str, Any], verdict: str) -> str:
    """How many episodes a difference needs, and what the episodes at hand can show.

    Args:
        needed: ``difference``, ``origin``, ``power``, ``number``, ``unit`` and ``detectable`` of the comparison.
        verdict: The comparison's verdict.
    """
    size = f"{100 * needed['difference']:.1f} points"
    chance = f"{100 * needed['power']:.0f} % power"
    what = {"stated": f"a difference of {size}", "observed": f"the observed difference, {size},"}.get(
        needed["origin"], f"a difference of {size}, say,"
    )
    text = f"To find {what} with {chance}, about {needed['number']} {needed['unit']} are needed"
    if verdict != "not distinguishable":
        return text + "."
    if needed["detectable"] is None:
        return f"{text}; so few as these could not show any difference."
    return f"{text}; those at hand show differences from {100 * needed['detectable']:.1f} points on."
