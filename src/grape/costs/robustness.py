"""By how much a formula holds or fails: the quantitative semantics of signal temporal logic.

A relation's robustness is the distance of its quantity from its bound, positive where it holds; ``not`` negates,
``all`` takes the smallest, ``any`` the largest, ``always`` the smallest and ``eventually`` the largest from a state to
the stage's end, and ``a until b`` the best state for ``b`` with ``a`` up to it (Fainekos & Pappas 2009, "Robustness of
temporal logic specifications for continuous-time signals"; Donze & Maler 2010, "Robust satisfaction of temporal logic
over real-valued signals"). A formula's cost is ``max(0, -robustness)``: how far it is from holding, zero where it
holds.

Quantities that are yes or no have robustness 1 or -1. Where a relation cannot be told, its robustness may be anything;
carried along as a lower and an upper bound, it leaves a formula's cost known where the rest decides it.
"""

import numpy as np
import numpy.typing as npt

from grape.costs.formulas import Call, Condition
from grape.costs.measurement import Recording
from grape.costs.vocabulary import QUANTITIES

__all__ = ["margin", "stage_violation", "violation"]

Float64 = npt.NDArray[np.float64]


def margin(recording: Recording, call: Call, scale: float = 1.0) -> Float64:
    """Robustness of a bounded relation at each state ``(T+1,)``, in its unit over ``scale``; NaN where it is lost."""
    value, (low, high) = recording.quantity(call), call.bounds
    if QUANTITIES[call.word.quantity].whole:
        held_value = 1.0 if low > 0.0 else 0.0
        return np.where(np.isnan(value), np.nan, np.where(value == held_value, 1.0, -1.0)) / scale
    return (high - value if np.isfinite(high) else value - low) / scale


def violation(recording: Recording, formula: Condition) -> Float64:
    """Cost of a formula without operators over time at each state ``(T+1,)``; NaN where it cannot be told."""
    low, high = _bounds(recording, formula, formula)
    most, least = np.maximum(0.0, -low), np.maximum(0.0, -high)
    return np.where(most == least, least, np.nan)


def stage_violation(recording: Recording, formula: Condition, start: int, end: int) -> tuple[Float64, int]:
    """Cost of a formula from each state of a stage to the stage's end; the first value is that of the stage.

    States at which one of its relations cannot be told are left out.

    Args:
        recording: What was recorded.
        formula: With or without operators over time.
        start: First state that counts.
        end: Last state of the stage.

    Returns:
        ``(end - start + 1,)`` with NaN at states left out, and how many states are left.
    """
    margins = {call: margin(recording, call, formula.scale(call))[start : end + 1] for call in formula.calls()}
    known = np.all([np.isfinite(values) for values in margins.values()], axis=0)
    curve = np.full(len(known), np.nan)
    count = int(known.sum())
    if count:
        left = {call: values[known] for call, values in margins.items()}
        curve[known] = np.maximum(0.0, -_over_time(formula, left))
    return curve, count


def _bounds(recording: Recording, root: Condition, formula: Condition) -> tuple[Float64, Float64]:
    """Smallest and largest possible robustness at each state."""
    if formula.call is not None:
        value = margin(recording, formula.call, root.scale(formula.call))
        lost = np.isnan(value)
        return np.where(lost, -np.inf, value), np.where(lost, np.inf, value)
    parts = [_bounds(recording, root, operand) for operand in formula.operands]
    if formula.operator == "not":
        return -parts[0][1], -parts[0][0]
    lows, highs = np.stack([low for low, _ in parts]), np.stack([high for _, high in parts])
    if formula.operator == "all":
        return lows.min(axis=0), highs.min(axis=0)
    return lows.max(axis=0), highs.max(axis=0)


def _over_time(formula: Condition, margins: dict[Call, Float64]) -> Float64:
    """Robustness at each state, looking ahead to the last one."""
    if formula.call is not None:
        return margins[formula.call]
    parts = [_over_time(operand, margins) for operand in formula.operands]
    if formula.operator == "not":
        return -parts[0]
    if formula.operator in ("all", "any"):
        chosen: Float64 = np.min(parts, axis=0) if formula.operator == "all" else np.max(parts, axis=0)
        return chosen
    if formula.operator == "always":
        smallest: Float64 = np.minimum.accumulate(parts[0][::-1])[::-1]
        return smallest
    if formula.operator == "eventually":
        largest: Float64 = np.maximum.accumulate(parts[0][::-1])[::-1]
        return largest
    return _until(*parts)


def _until(hold: Float64, reach: Float64) -> Float64:
    """``u[t] = max(reach[t], min(hold[t], u[t + 1]))``, backwards from minus infinity after the last state.

    Each state maps what follows by ``x -> max(a, min(b, x))``. Such maps compose to maps of the same form, so that
    composing neighbors at distances 1, 2, 4, ... gives all suffixes in logarithmically many vector operations.
    """
    high, low, distance = reach, hold, 1
    while distance < len(reach):
        beyond = np.full(distance, -np.inf)
        next_high = np.concatenate([high[distance:], beyond])
        high = np.maximum(high, np.minimum(low, next_high))
        low = np.minimum(low, np.concatenate([low[distance:], beyond]))
        distance *= 2
    return high
