"""Diagnoses over seeds: one row an arm and iteration, and what it says in words."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from grape.study.diagnosis import DiagnosedRound, Diagnosis

__all__ = ["diagnosis_lines", "summarize_diagnoses"]

_CHANGES = (
    "success", "failure", "failure_head", "failure_tail", "success_since_start", "failure_since_start", "chosen",
    "rejected", "rejected_head", "rejected_tail",
)  # fmt: skip
_PREFERENCE, _ANCHOR = "preference", "anchor"


def summarize_diagnoses(arms: Sequence[str], diagnoses: Sequence[Diagnosis]) -> list[dict[str, Any]]:
    """One row an arm and iteration.

    Args:
        arms: Names of the study's arms, in order.
        diagnoses: Those there are.

    Returns:
        Rows of ``arm``, ``iteration``, ``figures`` and ``sentence``. A figure is None where no seed has it, else a
        mapping of ``mean``, ``deviation`` over the seeds (None for one) and ``seeds``. Figures, of which changes and
        distances are nats per executed token:

        - ``success``, ``failure``, ``failure_head``, ``failure_tail``: change on fresh rollouts; ``contrast``: the
          first minus the second; ``success_since_start``, ``failure_since_start``;
        - ``chosen``, ``rejected``, ``rejected_head``, ``rejected_tail``: change on the sides that the training saw;
        - ``share``: norm of the preference term's gradient relative to the sum of the norms of all terms, mean over
          updates; ``share_first``, ``share_last``: at the first and last update; ``cosine_first``, ``cosine_last``: of
          the angle between the gradients of preference and anchor;
        - ``margin``: of the last update; ``weight_first``, ``weight_last``: mean ``sigmoid(-d)`` there;
          ``saturated``: share of comparisons below 0.1 after training; ``clipped``: share of clipped updates;
        - ``distance_fresh``, ``distance_trained``, ``distance_before``: mean absolute log-ratios;
        - ``pairs``, ``both_outcomes``, ...: kinds of comparisons.
    """
    rows = []
    for arm in arms:
        members = {item.seed: item for item in diagnoses if item.arm == arm}
        for iteration in sorted({part.iteration for item in members.values() for part in item.rounds}):
            rounds = {
                seed: part for seed, item in members.items() for part in item.rounds if part.iteration == iteration
            }
            values = {seed: _values(part) for seed, part in sorted(rounds.items())}
            names = dict.fromkeys(name for some in values.values() for name in some)
            figures = {name: _figure({seed: some.get(name) for seed, some in values.items()}) for name in names}
            row = {"arm": arm, "iteration": iteration, "seeds": list(values), "figures": figures}
            rows.append({**row, "sentence": _sentence(row)})
    return rows


def _values(part: DiagnosedRound) -> dict[str, float | None]:
    """Figures of one seed."""
    changes = {
        **part.fresh,
        **{f"{name}_since_start": change for name, change in part.since_start.items()},
        **part.trained,
    }
    values: dict[str, float | None] = {name: changes[name].mean if name in changes else None for name in _CHANGES}
    success, failure = values["success"], values["failure"]
    values["contrast"] = None if success is None or failure is None else success - failure
    updates = [dict(zip(part.curve, column, strict=True)) for column in zip(*part.curve.values(), strict=True)] or [{}]
    shares = [share for at in updates if (share := _share(part.terms, at)) is not None]
    values["share"] = float(np.mean(shares)) if shares else None
    for name, at in (("first", updates[0]), ("last", updates[-1])):
        values |= {f"share_{name}": _share(part.terms, at), f"cosine_{name}": _cosine(at)}
        values[f"weight_{name}"] = at.get("saturation")
    values |= {"margin": updates[-1].get("rewards/margins"), "clipped": updates[-1].get("clipped")}
    values["saturated"] = part.saturated
    values |= {f"distance_{name}": part.distance.get(name) for name in ("fresh", "trained", "before")}
    return {**values, **part.comparisons}


def _share(terms: Sequence[str], at: Mapping[str, float | None]) -> float | None:
    """Share of the preference term in the gradient's norms; None without training or without a norm."""
    if len(terms) < 2:
        return float(_PREFERENCE in terms) if terms else None
    preference, anchor = (at.get(f"grad_norm/{name}") for name in (_PREFERENCE, _ANCHOR))
    if preference is None or anchor is None or preference + anchor == 0:
        return None
    return preference / (preference + anchor)


def _cosine(at: Mapping[str, float | None]) -> float | None:
    """Cosine between the gradients of both terms, from their norms and that of their sum."""
    both, preference, anchor = (at.get(name) for name in ("grad_norm", "grad_norm/preference", "grad_norm/anchor"))
    if both is None or not preference or not anchor:
        return None
    return min(1.0, max(-1.0, (both**2 - preference**2 - anchor**2) / (2 * preference * anchor)))


def _figure(seeds: Mapping[int, float | None]) -> dict[str, Any] | None:
    known = {str(seed): value for seed, value in seeds.items() if value is not None}
    if not known:
        return None
    values = list(known.values())
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "deviation": deviation, "seeds": known}


def _sentence(row: Mapping[str, Any]) -> str:
    """A row in words."""
    figures, seeds = row["figures"], len(row["seeds"])
    changes = [
        f"{text} by {_text(figures[name], '+.3f')}"
        for name, text in (("success", "successes"), ("failure", "failures"))
        if figures[name] is not None
    ]
    fresh = f"log-probabilities of fresh rollouts changed, of {' and of '.join(changes)} nats a token"
    count = f"{seeds} seed{'' if seeds == 1 else 's'}"
    if row["iteration"] == 0:
        return f"{row['arm']} is the starting policy: {fresh} ({count})."
    text = f"{row['arm']}, iteration {row['iteration']}: {fresh} ({count})"
    sides = [
        f"{name} sides by {_text(figures[name], '+.3f')}"
        for name in ("chosen", "rejected")
        if figures[name] is not None
    ]
    if not sides:
        return f"{text}; it learned nothing."
    text += f"; of what it learned from, {' and '.join(sides)}."
    share = 0.0 if figures["share"] is None else figures["share"]["mean"]
    if 0 < share < 1:
        ends = [figures[f"share_{name}"] for name in ("first", "last")]
        first, last = ("none" if figure is None else f"{100 * figure['mean']:.0f} %" for figure in ends)
        text += f" The preference term had {100 * share:.0f} % of the gradient's norms ({first} at the first update, "
        text += f"{last} at the last)."
    if figures["saturated"] is not None and share:
        text += f" After training {100 * figures['saturated']['mean']:.0f} % of comparisons have a weight below 0.1."
    return text


_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("success", "successes", "+.3f"),
    ("failure", "failures", "+.3f"),
    ("failure_tail", "their tails", "+.3f"),
    ("chosen", "chosen", "+.3f"),
    ("rejected", "rejected", "+.3f"),
    ("rejected_tail", "their tails", "+.3f"),
    ("share", "preference", ".2f"),
    ("share_first", "first", ".2f"),
    ("share_last", "last", ".2f"),
    ("margin", "margin", ".2f"),
    ("weight_last", "weight", ".2f"),
    ("saturated", "saturated", ".2f"),
    ("clipped", "clipped", ".2f"),
    ("distance_trained", "distance", ".3f"),
)
"""Figures of the table: name, heading, format."""


def diagnosis_lines(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The table as text, with means over seeds: a heading, and a line an arm and iteration."""
    lines = [("arm", "iteration", *(heading for _, heading, _ in _COLUMNS))]
    for row in rows:
        figures = [(row["figures"].get(name), form) for name, _, form in _COLUMNS]
        lines.append((row["arm"], str(row["iteration"]), *(_text(figure, form) for figure, form in figures)))
    return lines


def _text(figure: Mapping[str, Any] | None, form: str) -> str:
    """Mean over seeds, of changes with the deviation."""
    if figure is None:
        return ""
    spread = "" if figure["deviation"] is None or "+" not in form else f" ± {figure['deviation']:.3f}"
    return format(figure["mean"], form) + spread
