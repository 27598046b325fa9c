"""Arms against baselines: figures of merit, paired differences over seeds and states, and what could have been seen.

All figures come from the cells' outcomes alone. Every difference is an arm minus a baseline on equal initial states
and samples under equal seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.evaluation.bootstrap import paired_difference_interval, pooled_mean_interval
from grape.evaluation.format import p_text, points
from grape.evaluation.power import detectable_difference, detectable_state_difference
from grape.evaluation.statistics import cluster_sums, clustered_rate_interval, holm, sign_flip_test
from grape.study.cells import Cell, Outcome, Round
from grape.study.checks import baselines_of
from grape.study.seeds import over_seeds
from grape.study.settings import Merit, StudySettings

__all__ = ["MERITS", "amount", "analyze"]

Key = tuple[int, str, int, int]
"""Seed, task, initial state and sample."""

POWER = 0.8

Floats = npt.NDArray[np.float64]

MERITS: Mapping[Merit, str] = {
    "success": "success rate",
    "steps": "control steps an episode, where both arms of a comparison succeeded",
    "collisions": "share of episodes with a collision",
}
"""What each figure of merit is, for people."""

_LOWER_IS_BETTER = ("steps", "collisions")

_VALUES: Mapping[str, Callable[[Outcome], float | None]] = {
    "success": lambda outcome: outcome.success,
    "steps": lambda outcome: outcome.steps,
    "collisions": lambda outcome: None if outcome.collisions is None else float(outcome.collisions > 0),
}


def analyze(settings: StudySettings, arms: Sequence[str], cells: Sequence[Cell]) -> dict[str, Any]:
    """The table.

    Args:
        settings: The study.
        arms: Names of its arms, in order.
        cells: What is there of it, equal starts within a seed.

    Returns:
        ``merit`` (``name``, ``measured``: a sentence that was fixed before anything ran), ``arms`` (one mapping each:
        success, steps and collisions with intervals, and what was learned from), ``comparisons`` (arm, baseline,
        difference with intervals, tests, ``p_holm`` over all arms compared with that baseline, discordant counts, what
        could have been detected, verdict and sentence), ``warnings``.
    """
    rounds = {
        (cell.arm, cell.seed): (cell.tasks, item)
        for cell in cells
        if (item := cell.round(settings.iterations)) is not None
    }
    tables = {name: _outcomes(rounds, name) for name in arms}
    comparisons: list[dict[str, Any]] = []
    baselines = baselines_of(settings)
    for number, baseline in enumerate(baselines):
        others = [name for name in arms if name not in baselines[: number + 1]]  # each couple once
        rows = [
            row
            for name in others
            if (row := _comparison(settings, name, baseline, tables[name], tables[baseline])) is not None
        ]
        for row, adjusted in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
            comparisons.append(_judged(settings, {**row, "p_holm": adjusted, "tests": len(rows)}))
    return {
        "merit": {"name": settings.merit, "measured": _measured(settings)},
        "arms": [_arm(name, tables[name], [cell for cell in cells if cell.arm == name], settings) for name in arms],
        "comparisons": comparisons,
        "warnings": _warnings(settings, cells),
    }


def _measured(settings: StudySettings) -> str:
    """What the figure of merit is and where it is measured."""
    how = (
        "greedy decoding" if settings.test_temperature == 0 else f"sampled at temperature {settings.test_temperature:g}"
    )
    count = settings.test_states if settings.measured_on == "test" else settings.validation_states
    each = "" if settings.test_samples == 1 else f", {settings.test_samples} rollouts each"
    return f"{MERITS[settings.merit]} on {count} {settings.measured_on} states a task{each}, {how}"


def _outcomes(rounds: Mapping[tuple[str, int], tuple[Sequence[str], Round]], arm: str) -> dict[Key, Outcome]:
    return {
        (seed, tasks[outcome.task], outcome.initial_state, outcome.sample): outcome
        for (name, seed), (tasks, item) in rounds.items()
        if name == arm
        for outcome in item.outcomes
    }


def _arm(name: str, table: Mapping[Key, Outcome], cells: Sequence[Cell], settings: StudySettings) -> dict[str, Any]:
    """Figures of one arm over all its seeds."""
    rounds = [item for cell in cells if (item := cell.round(settings.iterations))]
    learned = [item for cell in cells for item in cell.rounds if 0 < item.iteration <= settings.iterations]
    row: dict[str, Any] = {
        "arm": name,
        "seeds": sorted(cell.seed for cell in cells),
        "episodes": len(table),
        **{measure: _share(table, value) for measure, value in _VALUES.items() if measure != "steps"},
        "steps": float(np.mean([outcome.steps for outcome in table.values()])) if table else None,
        "success_of_seeds": [sum(one.success for one in item.outcomes) / len(item.outcomes) for item in rounds],
        "rollouts": [item.collected for item in learned],
        "pairs": [item.pairs for item in learned],
        "updates": [item.updates for item in learned],
        "stopped": sum(bool(item.stopped) for item in learned),
        "cpu_seconds": round(sum(cell.cpu_seconds for cell in cells), 1),
        "wall_seconds": round(sum(cell.wall_seconds for cell in cells), 1),
    }
    return row


def _share(table: Mapping[Key, Outcome], value: Callable[[Outcome], float | None]) -> dict[str, Any] | None:
    """Share of episodes with an interval about fresh states; a state's rollouts, of all seeds, go together."""
    known = {key: number for key, outcome in table.items() if (number := value(outcome)) is not None}
    if not known:
        return None
    interval = clustered_rate_interval(list(known.values()), [key[1:3] for key in known])
    return {"rate": sum(known.values()) / len(known), "interval": list(interval)}


def _comparison(
    settings: StudySettings, arm: str, baseline: str, b: Mapping[Key, Outcome], a: Mapping[Key, Outcome]
) -> dict[str, Any] | None:
    """Difference of an arm against a baseline; None where they share nothing to compare."""
    value = _VALUES[settings.merit]
    shared = sorted(a.keys() & b.keys())
    if settings.merit == "steps":
        keys = [key for key in shared if a[key].success and b[key].success]
    else:
        keys = [key for key in shared if value(a[key]) is not None and value(b[key]) is not None]
    if not keys:
        return None
    differences = np.array([float(value(b[key]) or 0) - float(value(a[key]) or 0) for key in keys])
    by_seed = {
        seed: float(differences[[key[0] == seed for key in keys]].mean()) for seed in sorted({key[0] for key in keys})
    }
    further = over_seeds(by_seed, settings.confidence)
    states = [key[1:3] for key in keys]
    interval, method = _interval(settings, differences, states)
    return {
        "arm": arm,
        "baseline": baseline,
        "difference": float(differences.mean()),
        "interval": interval,
        "interval_method": method,
        "p_value": sign_flip_test(cluster_sums(differences, states)),
        "states": len(set(states)),
        "pairs": len(keys),
        "higher": int((differences > 0).sum()),
        "lower": int((differences < 0).sum()),
        "seeds": {str(seed): number for seed, number in by_seed.items()},
        "interval_seeds": None if further.interval is None else _possible(settings.merit, further.interval),
        "p_seeds": further.p_value,
        "p_seeds_flip": further.p_flip,
        "success_difference": sum(b[key].success - a[key].success for key in shared) / len(shared),
        "deviation": _deviation(differences, states),
    }


def _interval(
    settings: StudySettings, differences: Floats, states: Sequence[tuple[str, int]]
) -> tuple[list[float] | None, str]:
    """Interval of the mean difference of these policies over fresh initial states."""
    if settings.merit != "steps":
        numbers = [state for _, state in states]
        interval = paired_difference_interval(differences, [task for task, _ in states], numbers, settings.confidence)
        return [interval.low, interval.high], interval.method
    sums, counts = cluster_sums(differences, states), cluster_sums(np.ones(len(states)), states)
    if len(sums) < 2:
        return None, "none: a single initial state"
    return list(pooled_mean_interval(sums, counts, settings.confidence)), "bootstrap over initial states"


def _possible(merit: str, interval: Sequence[float]) -> list[float]:
    """The interval within what a difference can be: those of shares lie in [-1, 1]."""
    return list(interval) if merit == "steps" else [min(1.0, max(-1.0, bound)) for bound in interval]


def _deviation(differences: Floats, states: Sequence[tuple[str, int]]) -> float:
    """Standard deviation over states of the mean difference; one state more that differs keeps it off zero."""
    means = cluster_sums(differences, states) / cluster_sums(np.ones(len(states)), states)
    return float(np.sqrt((np.sum((means - means.mean()) ** 2) + 1) / len(means)))


def _judged(settings: StudySettings, row: dict[str, Any]) -> dict[str, Any]:
    """A comparison with its verdict, what could have been detected, and both in words."""
    alpha = 1 - settings.confidence
    better = row["difference"] < 0 if settings.merit in _LOWER_IS_BETTER else row["difference"] > 0
    verdict = "not distinguishable"
    if row["p_holm"] < alpha:
        verdict = "better" if better else "worse"
    strict = alpha / row["tests"]  # the first step of Holm
    deviation = row.pop("deviation")
    detectable: float | None
    if settings.merit == "success" and row["pairs"] == row["states"]:
        discordance = (row["higher"] + row["lower"] + 1) / (row["pairs"] + 2)
        detectable = detectable_difference(row["pairs"], discordance, POWER, strict)
    else:
        scale = max(1.0, 4 * deviation)  # the function is about shares, which end at 1
        detectable = scale * detectable_state_difference(row["states"], deviation / scale, POWER, strict)
        if settings.merit != "steps" and detectable > 1:
            detectable = None
    row |= {"verdict": verdict, "detectable": detectable, "power": POWER}
    return {**row, "sentence": _sentence(settings, row)}


def _sentence(settings: StudySettings, row: Mapping[str, Any]) -> str:
    """The comparison in words."""
    level = f"{100 * settings.confidence:g} %"
    text = (
        f"{row['arm']} is {row['verdict']} {'from' if row['verdict'].startswith('not') else 'than'} {row['baseline']}: "
    )
    text += f"{amount(settings.merit, row['difference'])} in {_NAMES[settings.merit]}"
    if row["interval"]:
        text += f" ({level} interval over fresh states {_between(settings.merit, row['interval'])}"
        text += (
            f", over further seeds {_between(settings.merit, row['interval_seeds'])})" if row["interval_seeds"] else ")"
        )
    text += f"; {p_text(row['p_holm'])} after Holm over {row['tests']} arm{'s' if row['tests'] > 1 else ''}"
    text += f"; of {row['pairs']} pairs on {row['states']} states {row['higher']} are higher, {row['lower']} lower."
    if row["p_seeds"] is not None:
        text += f" Over {len(row['seeds'])} seeds {p_text(row['p_seeds'])}"
        spread = row["interval_seeds"] is not None and row["interval_seeds"][0] <= 0 <= row["interval_seeds"][1]
        text += ": further runs may not show it." if spread and not row["verdict"].startswith("not") else "."
    else:
        text += " With one seed nothing is known of further runs."
    if settings.merit != "success":
        text += f" Success differs by {points(row['success_difference'])} points."
    if row["detectable"] is None:
        return f"{text} So few pairs could not have shown any difference."
    return (
        f"{text} A difference of {amount(settings.merit, row['detectable']).lstrip('+')} would have been seen with "
        f"{100 * POWER:.0f} % power."
    )


_NAMES: Mapping[str, str] = {"success": "success", "steps": "control steps", "collisions": "episodes with a collision"}


def amount(merit: str, value: float) -> str:
    """A difference with its unit and sign."""
    return f"{value:+.1f} steps" if merit == "steps" else f"{points(value)} points"


def _between(merit: str, interval: Sequence[float]) -> str:
    low, high = (f"{value:+.1f}" if merit == "steps" else points(value) for value in interval)
    return f"{low} to {high}"


def _warnings(settings: StudySettings, cells: Sequence[Cell]) -> list[str]:
    """What a reader of the table must know."""
    warnings = []
    learned = [(cell, item) for cell in cells for item in cell.rounds if 0 < item.iteration <= settings.iterations]
    if stopped := [f"{cell.seed}-{cell.arm}, iteration {item.iteration}" for cell, item in learned if item.stopped]:
        count = f"{len(stopped)} iteration{'' if len(stopped) == 1 else 's'}"
        warnings.append(f"There was nothing to learn in {count}, e.g. {stopped[0]}: no optimizer step.")
    later = {item.collected for _, item in learned}
    if len(later) > 1:
        warnings.append(f"Collections differ in size: {min(later)} to {max(later)} rollouts.")
    commits = {cell.software.get("commit", cell.software.get("version", "")) for cell in cells}
    if len(commits) > 1:
        warnings.append(f"Cells were made by {len(commits)} versions of the software: {', '.join(sorted(commits))}.")
    versions = {tuple(sorted(cell.versions.items())) for cell in cells}
    if len(versions) > 1:
        warnings.append("Cells were made with different versions of simulators or packages; see their files.")
    if settings.measured_on == "validation":
        warnings.append("Measured on validation states: for choosing settings, not for a claim.")
    return warnings
