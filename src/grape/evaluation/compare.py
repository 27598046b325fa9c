"""The verb ``compare``: is policy B better than policy A on the same initial states?"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from grape.core.events import SILENT, Reporter
from grape.core.files import file_hash, write_json
from grape.core.runs import open_run
from grape.core.selections import format_numbers
from grape.core.settings import Range, check_ranges, setting
from grape.evaluation.bootstrap import FEWEST_DEVIATING, FEWEST_TASKS
from grape.evaluation.format import comparison_sentence, need_sentence
from grape.evaluation.pairing import Key, PairedOutcomes, Pairing, pair_results
from grape.evaluation.power import (
    detectable_difference,
    detectable_state_difference,
    paired_episodes_needed,
    paired_states_needed,
)
from grape.evaluation.results import EvaluationResults, read_results, results_path
from grape.evaluation.statistics import cluster_sums, clustered_rate_interval, holm

__all__ = ["COMPARISON_NAME", "CompareSettings", "compare_results", "run_compare"]

COMPARISON_NAME = "comparison.json"
POWER = 0.8
# What a policy must gain to be worth another evaluation, where neither the data nor the user name a difference.
DEFAULT_DIFFERENCE = 0.05


_STATISTICS = "Statistics"


@dataclass(frozen=True)
class CompareSettings:
    """Say whether policy B is better or worse than policy A, or whether the episodes cannot tell.

    Episodes are paired by task, initial state and sample. The verdict comes from the exact McNemar test (with several
    rollouts a state, from the exact sign-flip test over initial states). The interval of the difference is a bootstrap:
    over initial states within tasks, or, from five tasks on, over tasks where that one is wider. Where few initial
    states differ, it is Tango's score interval. See docs/statistics.md.

    Attributes:
        a: Evaluation of policy A: the folder 'grape evaluate' wrote, or its results.json.
        b: Evaluation of policy B.
        out: Folder to write comparison.json to; without it nothing is written.
        confidence: Level of the intervals; the verdict's significance level is 1 minus this.
        difference: Difference of success rates, e.g. 0.05 for 5 points, for which the needed number of episodes is
            computed; without it, the observed difference is taken, or 5 points where none was observed.
        bootstrap_samples: Bootstrap samples for the intervals.
        seed: Seed of the bootstrap.
    """

    a: Path = setting(identity=False, common=True)
    b: Path = setting(identity=False, common=True)
    out: Path | None = setting(None, identity=False, common=True)
    confidence: float = setting(0.95, group=_STATISTICS, range=Range(0.5, 1, open_high=True), common=True)
    difference: float | None = setting(None, group=_STATISTICS, range=Range(0, 1, open_low=True), common=True)
    bootstrap_samples: int = setting(10_000, group=_STATISTICS, range=Range(1000), common=True)
    seed: int = setting(0, group=_STATISTICS, common=True)


def run_compare(settings: CompareSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Compare two evaluations and, with ``out``, write ``out/comparison.json``.

    Returns:
        What :func:`compare_results` returns.

    Raises:
        SettingsError: A setting is out of range.
        CompatibilityError: The evaluations are of different suites or limits, or ``out`` belongs to another run.
        DataError: An evaluation is missing, truncated or incomplete, or the two share no initial state.
    """
    check_ranges(settings)
    a, b = read_results(settings.a), read_results(settings.b)
    comparison = compare_results(
        a,
        b,
        confidence=settings.confidence,
        difference=settings.difference,
        bootstrap_samples=settings.bootstrap_samples,
        seed=settings.seed,
    )
    for warning in comparison["warnings"]:
        reporter.warn(warning)
    if settings.out is not None:
        inputs = {name: file_hash(results_path(path)) for name, path in (("a", settings.a), ("b", settings.b))}
        run = open_run(settings.out, "compare", settings, inputs)
        if run.done is None:
            write_json(settings.out / COMPARISON_NAME, comparison)
            run.finish(comparison)
    return comparison


def compare_results(
    a: EvaluationResults,
    b: EvaluationResults,
    *,
    confidence: float = 0.95,
    difference: float | None = None,
    bootstrap_samples: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare policy B with policy A on the episodes that both evaluations hold.

    Args:
        a: Results of policy A.
        b: Results of policy B.
        confidence: Level of the intervals; significance is judged at 1 minus this.
        difference: Difference to plan for, in (0, 1]; None takes the observed one.
        bootstrap_samples: Bootstrap samples.
        seed: Seed of the bootstrap.

    Returns:
        JSON values: ``verdict`` ("better", "worse", "not distinguishable": B as against A), ``headline`` (one
        sentence), ``sentence`` (headline, method and number of episodes needed), ``difference`` with ``interval``,
        ``interval_method``, ``p_value``, ``p_worse`` and ``p_better`` (one-sided), ``test``, ``pairs``, ``states``,
        ``only_a``, ``only_b``, ``needed``, ``a`` and ``b`` (figures over the pairs), ``tasks`` (the same a task, with
        ``p_holm`` adjusted for the number of tasks), ``changed`` (initial states that only one of them solved),
        ``unmatched_a``, ``unmatched_b``, ``warnings``.

    Raises:
        CompatibilityError: The suites differ, or limits that episodes came up against.
        DataError: No task and initial state in common.
    """
    pairing = pair_results(a, b)
    pairs = pairing.pairs
    alpha = 1 - confidence
    figures = _figures(pairs, confidence, bootstrap_samples, seed)
    verdict = "not distinguishable"
    if figures["p_value"] < alpha:
        verdict = "better" if pairs.difference > 0 else "worse"
    warnings = _warnings(a, b, pairing)
    needed = _needed(pairs, difference, alpha)
    headline = comparison_sentence(verdict, figures, confidence)
    parts = [headline, _method_sentence(pairs, figures, verdict), need_sentence(needed, verdict), *warnings]
    tasks = {name: _figures(pairs.of_task(name), confidence, bootstrap_samples, seed) for name in pairs.tasks}
    for task, adjusted in zip(tasks.values(), holm([task["p_value"] for task in tasks.values()]), strict=True):
        task["p_holm"] = adjusted
    return {
        "verdict": verdict,
        "headline": headline,
        "sentence": " ".join(part for part in parts if part),
        **figures,
        "confidence": confidence,
        "p_worse": pairs.p_value("less"),
        "p_better": pairs.p_value("greater"),
        "a": {"policy": a.policy, "policy_hash": a.policy_hash, **figures["a"]},
        "b": {"policy": b.policy, "policy_hash": b.policy_hash, **figures["b"]},
        "needed": needed,
        "tasks": tasks,
        "changed": {"only_a": _listed(pairs.only_a), "only_b": _listed(pairs.only_b)},
        "unmatched_a": _listed(pairing.unmatched_a),
        "unmatched_b": _listed(pairing.unmatched_b),
        "warnings": warnings,
    }


def _figures(pairs: PairedOutcomes, confidence: float, draws: int, seed: int) -> dict[str, Any]:
    """Difference, interval and test of some pairs."""
    interval = pairs.interval(confidence, draws=draws, seed=seed)
    return {
        "difference": pairs.difference,
        "interval": [interval.low, interval.high],
        "interval_method": interval.method,
        "p_value": pairs.p_value(),
        "test": pairs.test_name,
        "pairs": len(pairs),
        "states": len(set(pairs.states)),
        "only_a": len(pairs.only_a),
        "only_b": len(pairs.only_b),
        "a": _rate(pairs, pairs.a, confidence),
        "b": _rate(pairs, pairs.b, confidence),
    }


def _rate(pairs: PairedOutcomes, successes: tuple[bool, ...], confidence: float) -> dict[str, Any]:
    """Success rate of one policy over the pairs, with its own interval."""
    interval = clustered_rate_interval(successes, pairs.states, confidence)
    return {"success_rate": sum(successes) / len(pairs), "interval": list(interval)}


def _needed(pairs: PairedOutcomes, stated: float | None, alpha: float) -> dict[str, Any]:
    """How many pairs would find a difference, and what these pairs can find."""
    observed = abs(pairs.difference)
    difference = stated or observed or DEFAULT_DIFFERENCE
    origin = "stated" if stated else "observed" if observed else "default"
    if pairs.repeated:
        sums = cluster_sums(pairs.differences, pairs.states)
        means = sums / cluster_sums(np.ones(len(pairs)), pairs.states)
        n = len(means)
        # One state more that differs keeps the estimate off zero where all agreed.
        deviation = float(np.sqrt((np.sum((means - means.mean()) ** 2) + 1) / n))
        number = paired_states_needed(difference, deviation, POWER, alpha)
        detectable: float | None = detectable_state_difference(n, deviation, POWER, alpha)
        unit = "initial states"
    else:
        # Adding half a differing pair on each side (Agresti and Min 2005) keeps the estimate off zero.
        discordance = (len(pairs.only_a) + len(pairs.only_b) + 1) / (len(pairs) + 2)
        number = paired_episodes_needed(difference, max(discordance, difference), POWER, alpha)
        detectable = detectable_difference(len(pairs), discordance, POWER, alpha)
        unit = "paired episodes"
    return {
        "difference": difference,
        "origin": origin,
        "power": POWER,
        "number": number,
        "unit": unit,
        "detectable": detectable,
    }


def _method_sentence(pairs: PairedOutcomes, figures: Mapping[str, Any], verdict: str) -> str:
    """What the interval is, and why it may disagree with the test."""
    low, high = figures["interval"]
    excludes_zero = low > 0 or high < 0
    method = figures["interval_method"]
    tasks = len(pairs.tasks)
    if method.startswith("score"):
        few = f"fewer than {FEWEST_DEVIATING} initial states deviate from the commonest outcome"
        text = f"The interval is a {method}, because {few}."
    elif method == "bootstrap over tasks":
        text = f"The interval is a {method} ({tasks} of them), so it also covers how tasks differ."
    elif tasks >= FEWEST_TASKS:
        text = f"The interval is a {method}: the {tasks} tasks differ no more than their initial states explain."
    else:
        count = "one task is" if tasks == 1 else f"{tasks} tasks are"
        text = f"The interval is a {method}, because {count} too few to resample: it is about these tasks only."
    if verdict != "not distinguishable" and not excludes_zero:
        text += " It includes 0 although the test is clear"
        varies = "the difference varies from task to task, so expect it on these tasks, not on others"
        text += f": {varies}." if method == "bootstrap over tasks" else "; the exact test decides."
    if verdict == "not distinguishable" and excludes_zero:
        text += " It excludes 0 although the test is not clear; the exact test decides."
    return text


def _warnings(a: EvaluationResults, b: EvaluationResults, pairing: Pairing) -> list[str]:
    """Differences in protocol, and whatever else weakens the comparison."""
    warnings = []
    for name, fact_a, fact_b in (
        ("protocol", a.protocol or "none", b.protocol or "none"),
        ("temperature", a.temperature, b.temperature),
        ("seed", a.seed, b.seed),
        ("executed actions a chunk", a.execute or "all", b.execute or "all"),
        ("versions", dict(a.versions), dict(b.versions)),
    ):
        if fact_a != fact_b:
            warnings.append(
                f"Warning: the protocols differ: {name} is {fact_a} for A, {fact_b} for B, so the difference is not of "
                "the policies alone."
            )
    for name, fact_a, fact_b in (
        ("operators of the expert", a.operators, b.operators),
        ("device and number type", a.computation, b.computation),
    ):
        if fact_a and fact_b and fact_a != fact_b:
            warnings.append(
                f"Warning: the {name}: {fact_a} for A, {fact_b} for B, so the difference is not of the policies alone."
            )
    for task in pairing.pairs.tasks:
        if a.tasks[task].instruction != b.tasks[task].instruction:
            warnings.append(
                f"Warning: the instruction of {task} differs: {a.tasks[task].instruction!r} for A, "
                f"{b.tasks[task].instruction!r} for B."
            )
    if a.policy_hash and a.policy_hash == b.policy_hash:
        warnings.append("Warning: A and B are the same policy (equal weights and configuration).")
    for name, unmatched in (("A", pairing.unmatched_a), ("B", pairing.unmatched_b)):
        if unmatched:
            states_text = "; ".join(f"{task} {states}" for task, states in _listed(unmatched).items())
            count = f"{len(unmatched)} episode{'' if len(unmatched) == 1 else 's'}"
            warnings.append(f"Warning: {count} of {name} had no partner and were left out: {states_text}.")
    return warnings


def _listed(keys: tuple[Key, ...]) -> dict[str, str]:
    """Initial states by task, as text."""
    tasks = sorted({task for task, _, _ in keys})
    return {name: format_numbers(tuple(state for task, state, _ in keys if task == name)) for name in tasks}
