"""The figures of agreement: who orders as whom, how reliable raters are, how calibrated judges, and where they part."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from grape.agreement.concordance import concordance_between
from grape.agreement.probabilities import calibration_of
from grape.agreement.reliability import reliability_of
from grape.agreement.sources import Couples, Kind, Source

__all__ = ["MeasuredAgreement", "measure_agreement"]


@dataclass(frozen=True, eq=False)
class MeasuredAgreement:
    """The figures.

    Attributes:
        figures: JSON values: ``sources`` with what each decided, ``matrix`` of concordances, ``reliability`` by kind of
            source, ``calibration`` of each judge.
        disagreements: The couples on which most sources contradict one another, most first: JSON values.
    """

    figures: dict[str, Any]
    disagreements: tuple[dict[str, Any], ...]


def measure_agreement(couples: Couples, sources: Sequence[Source], most_disagreements: int = 20) -> MeasuredAgreement:
    """Compare all sources with one another.

    Args:
        couples: What they were asked about.
        sources: The first one is success.
        most_disagreements: How many couples on which they disagree are listed.
    """
    success = sources[0].order
    figures = {
        "episodes": len(couples.scores),
        "states": len(set(couples.states)),
        "couples": len(couples.names),
        "sources": [_decided(source) for source in sources],
        "matrix": [
            {
                "source": row.label,
                "reference": column.label,
                **concordance_between(row.order, column.order, couples.states).to_dict(),
            }
            for row in sources
            for column in sources
            if row is not column
        ],
        "reliability": _reliability(couples, sources),
        "calibration": {
            source.label: calibration
            for source in sources
            if source.p is not None
            and source.kind == "judge"
            and (calibration := calibration_of(source.p, success, couples.states)) is not None
        },
    }
    return MeasuredAgreement(figures, tuple(_disagreements(couples, sources, most_disagreements)))


def _decided(source: Source) -> dict[str, Any]:
    known = np.isfinite(source.order)
    return {
        "label": source.label,
        "kind": source.kind,
        "known": int(known.sum()),
        "ties": int((source.order[known] == 0).sum()),
    }


def _reliability(couples: Couples, sources: Sequence[Source]) -> dict[str, Any]:
    """Alpha of the sources of each kind of which there are several."""
    kinds: dict[str, Kind] = {"raters": "rater", "judges": "judge", "scorers": "scorer"}
    table = {}
    for name, kind in kinds.items():
        orders = [source.order for source in sources if source.kind == kind]
        if len(orders) > 1:
            table[name] = {
                "sources": len(orders),
                **reliability_of(np.stack(orders, axis=1), couples.states).to_dict(),
            }
    return table


def _disagreements(couples: Couples, sources: Sequence[Source], most: int) -> list[dict[str, Any]]:
    orders = np.stack([source.order for source in sources], axis=1)
    first, second = (orders == 1).sum(axis=1), (orders == -1).sum(axis=1)
    minority = np.minimum(first, second)
    ranked = sorted(np.flatnonzero(minority).tolist(), key=lambda number: (-int(minority[number]), number))
    rows = []
    for number in ranked[:most]:
        one, other = couples.names[number]
        task, initial_state = couples.places[couples.states[number]]
        rows.append(
            {
                "task": task,
                "initial_state": initial_state,
                "a": one,
                "b": other,
                "for_a": [source.label for source, order in zip(sources, orders[number], strict=True) if order == 1],
                "for_b": [source.label for source, order in zip(sources, orders[number], strict=True) if order == -1],
                "ties": [source.label for source, order in zip(sources, orders[number], strict=True) if order == 0],
            }
        )
    return rows
