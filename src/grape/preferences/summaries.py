"""What a set of scores says as a whole."""

from typing import Any

import numpy as np
import numpy.typing as npt

from grape.costs import concordance
from grape.preferences.gcpg import RawTerms, couples, outcome_groups

__all__ = ["summarize_scores"]

Float64 = npt.NDArray[np.float64]


def summarize_scores(raw: RawTerms, weighted: Float64, r_ext: Float64) -> dict[str, Any]:
    """Numbers for people, as JSON values.

    Args:
        raw: Unweighted terms of all episodes.
        weighted: The terms whose sum is R_GCPG, ``(E, 3)``, see :func:`grape.preferences.gcpg.weighted_terms`.
        r_ext: R_ext, ``(E,)``; NaN where a task has no specification, so that nothing was priced.

    Returns:
        ``episodes``, ``successes``, ``success_rate`` of the known outcomes (None without any), ``unknown_outcomes``
        where there are some; ``means`` of the unweighted terms (R_self a step, R_ext, cost, steps); ``correlations``
        (Pearson) of R_self a step, R_ext and R_GCPG with success, ``overall`` and ``within_states`` (what is left
        after subtracting each initial state's means), None where one of them does not vary; ``states``: how many
        initial states had both outcomes, only successes, only failures, or one episode;
        ``upsets``: share of (success, failure) pairs of an initial state in which the failure ranks higher;
        ``concordance``: chance that R_ext is higher for the success of such a pair (ties count half), None without one;
        ``equal_outcomes``: ``couples`` of episodes of one initial state and one outcome, in how many of them R_self and
        R_ext ``disagree``, and the shares of those in which each ``decides`` the order;
        ``tasks``: episodes, successes and means a task.
    """
    gcpg = np.array([sum(terms) for terms in weighted.tolist()])
    r_step = raw.r_self / np.maximum(raw.steps, 1)
    tasks = {}
    for number, name in enumerate(raw.tasks):
        chosen = raw.task == number
        tasks[name] = {
            "episodes": int(chosen.sum()),
            **_outcomes(raw.success[chosen]),
            "means": _means(raw, r_step, r_ext, chosen),
        }
    everything = np.ones(len(gcpg), dtype=bool)
    terms = {"self": r_step, "ext": r_ext, "gcpg": gcpg}
    return {
        "episodes": len(gcpg),
        **_outcomes(raw.success),
        "means": _means(raw, r_step, r_ext, everything),
        "correlations": {
            "overall": {name: _correlation(values, raw.success) for name, values in terms.items()},
            "within_states": {name: _correlation(values, raw.success, raw) for name, values in terms.items()},
        },
        "states": _states(raw),
        "upsets": _upsets(gcpg, raw),
        "concordance": _concordance(r_ext, raw),
        "equal_outcomes": _equal_outcomes(weighted, raw),
        "tasks": tasks,
    }


def _outcomes(success: Float64) -> dict[str, Any]:
    known = success[np.isfinite(success)]
    counts = {"successes": int(known.sum()), "success_rate": float(known.mean()) if len(known) else None}
    return counts | ({"unknown_outcomes": len(success) - len(known)} if len(known) < len(success) else {})


def _means(raw: RawTerms, r_step: Float64, r_ext: Float64, chosen: npt.NDArray[np.bool_]) -> dict[str, float | None]:
    sampled, priced = r_step[chosen & np.isfinite(r_step)], chosen & np.isfinite(r_ext)
    return {
        "r_self_per_step": float(sampled.mean()) if len(sampled) else None,
        "r_ext": float(r_ext[priced].mean()) if priced.any() else None,
        "cost": float(raw.cost[priced].mean()) if priced.any() else None,
        "steps": float(raw.steps[chosen].mean()),
    }


def _correlation(values: Float64, success: Float64, within: RawTerms | None = None) -> float | None:
    known = np.isfinite(values) & np.isfinite(success)
    if not known.any():
        return None
    a, b = values[known], success[known]
    if within is not None:
        state = within.state[known]
        count = np.maximum(np.bincount(state), 1)
        a, b = a - (np.bincount(state, a) / count)[state], b - (np.bincount(state, b) / count)[state]
    a, b = a - a.mean(), b - b.mean()
    product = float(np.sqrt(np.sum(a**2) * np.sum(b**2)))
    varies = min(float(np.abs(a).max()), float(np.abs(b).max())) > 1e-12
    return float(np.clip(np.sum(a * b) / product, -1.0, 1.0)) if varies and product > 0 else None


def _states(raw: RawTerms) -> dict[str, int]:
    count, successes = np.bincount(raw.state), np.bincount(raw.state, np.nan_to_num(raw.success))
    unknown = np.bincount(raw.state, np.isnan(raw.success)) > 0
    several = (count > 1) & ~unknown
    return {
        "mixed": int(np.sum(several & (successes > 0) & (successes < count))),
        "all_successes": int(np.sum(several & (successes == count))),
        "all_failures": int(np.sum(several & (successes == 0))),
        "single": int(np.sum(count == 1)),
        **({"unknown": int(np.sum((count > 1) & unknown))} if unknown.any() else {}),
    }


def _upsets(gcpg: Float64, raw: RawTerms) -> float | None:
    """Share of (success, failure) pairs of one state that R_GCPG orders the other way round."""
    one, other = couples(raw.state)
    lead = (raw.success[one] - raw.success[other]) * (gcpg[one] - gcpg[other])
    differs = np.abs(raw.success[one] - raw.success[other]) == 1.0
    return float(np.mean(lead[differs] < 0)) if differs.any() else None


def _concordance(r_ext: Float64, raw: RawTerms) -> float | None:
    known = np.isfinite(raw.success) & np.isfinite(r_ext)
    return concordance((-r_ext[known]).tolist(), (raw.success[known] > 0.5).tolist(), raw.state[known].tolist())[0]


def _equal_outcomes(weighted: Float64, raw: RawTerms) -> dict[str, Any]:
    one, other = couples(outcome_groups(raw))
    of_self, of_ext = (weighted[one, :2] - weighted[other, :2]).T
    opposed = of_self * of_ext < 0
    disagree = int(opposed.sum())
    decides = None
    if disagree:
        lead = np.abs(of_self[opposed]) - np.abs(of_ext[opposed])
        decides = {"self": float(np.mean(lead > 0)), "ext": float(np.mean(lead < 0))}
    return {"couples": len(one), "disagree": disagree, "decides": decides}
