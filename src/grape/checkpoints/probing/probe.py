"""The verb ``probe``: with which conventions a checkpoint was trained, measured on demonstrations."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.checkpoints.probing.likelihoods import Measured, Statistics
from grape.checkpoints.probing.sampling import Sampler
from grape.checkpoints.probing.scores import Scorer
from grape.checkpoints.probing.verdict import SMALLEST_DIFFERENCE, Ranking, conclude
from grape.checkpoints.settings import ProbeSettings
from grape.core.events import SILENT, Reporter
from grape.core.files import write_json
from grape.core.remote.mirror_names import with_addresses
from grape.core.runs import open_run
from grape.core.settings import check_ranges
from grape.policies.probes import Candidate, Probe, Reading
from grape.policies.registry import recognize_policy
from grape.policies.types import OpeningOptions
from grape.store import EpisodeSource
from grape.store.demonstrations import open_demonstrations

__all__ = ["PROBE_NAME", "run_probe"]

PROBE_NAME = "probe.json"
_MOST_ROUNDS = 4
"""Each round changes one convention, and four are varied."""


def run_probe(settings: ProbeSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Score demonstrations under each preset and around the best one; with ``out``, write ``out/probe.json``.

    Returns:
        JSON values: ``verdict`` ("fits": one preset fits best; "alike": several that give the network the same input
        do; "undecided": the best cannot be told from the next; "between": a change to a preset fits better than all;
        "untrained": nothing is much better than the uniform distribution), ``sentence`` and ``next`` for people,
        ``preset`` and ``changes`` (what fits best), ``conventions`` (all of it; null for plain OpenVLA), ``nll`` (nats
        a token), ``interval``, ``accuracy`` and ``by_action``; ``candidates`` and ``variations`` (a row each),
        ``not_varied``; ``uniform``, ``frequencies`` and ``commonest`` (what knowing nothing, or token frequencies
        alone, gives); ``decisions``, ``tokens``, ``episodes``, ``tasks``, ``unnorm_key``, ``layout``, ``method``,
        ``computation``, ``policy`` and ``data``. With ``dry_run``: the plan.

    Raises:
        SettingsError: A setting is out of range or names nothing.
        CompatibilityError: The checkpoint has no action tokens, the demonstrations are not what it reads or decides,
            or ``out`` belongs to another run.
        DataError: The checkpoint or the demonstrations are missing, empty or damaged.
        PolicyError: The network's output is not finite.
    """
    check_ranges(settings)
    probe = _open(settings, weights=False)
    source = open_demonstrations(settings.data)
    sampler = Sampler(source, probe, settings.samples, settings.seed, reporter)
    if settings.dry_run:
        return _plan(settings, probe, sampler)
    probe = _open(settings, weights=True)
    if settings.out is None:
        return _probe(settings, probe, source, sampler, reporter)
    run = open_run(settings.out, "probe", settings, {"data": source.digest(), "policy": probe.policy_hash})
    if run.done is not None:
        return run.done
    summary = _probe(settings, probe, source, sampler, reporter)
    write_json(settings.out / PROBE_NAME, with_addresses(summary))
    run.finish(summary)
    return summary


def _open(settings: ProbeSettings, *, weights: bool) -> Probe:
    options = OpeningOptions(
        unnorm_key=settings.unnorm_key,
        device=settings.device,
        dtype=settings.dtype,
        attention=settings.attention,
        load_in_4bit=settings.load_in_4bit,
        chunk=settings.chunk,
        cameras=settings.cameras,
    )
    policy_type, place = recognize_policy(settings.policy)
    return policy_type.probe(place, options, weights=weights)


def _plan(settings: ProbeSettings, probe: Probe, sampler: Sampler) -> Mapping[str, Any]:
    candidates = probe.candidates(sampler.instructions)
    readings = {candidate.reading for candidate in candidates if not candidate.problem}
    around = [
        readings | {other.reading for other in probe.variations(reading, sampler.instructions) if not other.problem}
        for reading in readings
    ]
    decisions = len(sampler.decisions)
    return {
        "dry_run": True,
        "policy": settings.policy,
        "data": str(settings.data),
        "decisions": decisions,
        "episodes": len({decision.episode_id for decision in sampler.decisions}),
        "tasks": len(sampler.tasks),
        "unnorm_key": probe.unnorm_key,
        "layout": _layout(probe),
        "candidates": [
            {"name": candidate.name, **candidate.reading.facts, "problem": candidate.problem or None}
            for candidate in candidates
        ],
        "forward_passes": {
            "candidates": decisions * len(readings),
            "with_variations_of_the_best_at_most": decisions * max(map(len, around)),
        },
    }


def _probe(
    settings: ProbeSettings, probe: Probe, source: EpisodeSource, sampler: Sampler, reporter: Reporter
) -> dict[str, Any]:
    candidates = probe.candidates(sampler.instructions)
    statistics = Statistics(
        [decision.episode_id for decision in sampler.decisions], settings.confidence, seed=settings.seed
    )
    footings = [candidate.footing for candidate in candidates]
    scorer = Scorer(probe, sampler, settings.batch, footings, settings.out)
    runnable = [candidate for candidate in candidates if not candidate.problem]
    scorer.score(list(dict.fromkeys(candidate.reading for candidate in runnable)), reporter)
    measured = {
        candidate.reading: Measured.of(scorer.rows(candidate.reading), probe.action_dim) for candidate in runnable
    }
    best = _best(runnable, measured)
    reading, around = best.reading, []
    for _ in range(_MOST_ROUNDS):
        around = probe.variations(reading, sampler.instructions)
        others = list(dict.fromkeys(other.reading for other in around if not other.problem))
        scorer.score(others, reporter)
        measured |= {other: Measured.of(scorer.rows(other), probe.action_dim) for other in others}
        closer = _closer(reading, others, measured, statistics)
        if closer is None:
            break
        reading = closer
    scorer.finish()
    ranking = Ranking(statistics, measured, candidates, best, reading)
    baselines = _baselines(probe, sampler)
    return {
        **conclude(ranking, baselines, _opening_flags(settings, probe)),
        "conventions": {**best.conventions, **ranking.changes} if reading.is_chunked else None,
        "candidates": ranking.candidate_rows(),
        "variations": ranking.variation_rows(around, probe.other_footings),
        "not_varied": dict(probe.not_varied),
        **baselines,
        "decisions": len(sampler.decisions),
        "tokens": int(measured[reading].tokens_each.sum()),
        "episodes": len(set(statistics.episodes)),
        "tasks": sampler.tasks,
        "unnorm_key": probe.unnorm_key,
        "layout": _layout(probe),
        "method": statistics.method,
        "computation": probe.computation,
        "policy": str(settings.policy),
        "data": str(settings.data if isinstance(settings.data, Path) else source.path),
    }


def _layout(probe: Probe) -> dict[str, Any]:
    return {name: getattr(probe, name) for name in ("chunk", "action_dim", "cameras", "proprio_dim")}


def _opening_flags(settings: ProbeSettings, probe: Probe) -> list[str]:
    """Flags with which other verbs open the checkpoint as it was opened here."""
    words = ["--policy", str(settings.policy), "--unnorm-key", probe.unnorm_key]
    for name, value in (("--chunk", settings.chunk), ("--cameras", settings.cameras)):
        words += [] if value is None else [name, str(value)]
    return words


def _best(candidates: list[Candidate], measured: Mapping[Reading, Measured]) -> Candidate:
    """The candidate under which the demonstrations are likeliest; what has one action a decision is compared on it."""
    whole = [candidate for candidate in candidates if candidate.reading.is_chunked]
    best = min(whole, key=lambda candidate: (measured[candidate.reading].nll, not candidate.stated))
    single = [candidate for candidate in candidates if not candidate.reading.is_chunked]
    return min([best, *single], key=lambda candidate: measured[candidate.reading].first.nll)


def _closer(
    reading: Reading, others: list[Reading], measured: Mapping[Reading, Measured], statistics: Statistics
) -> Reading | None:
    """The variation that fits best, if it fits better beyond chance, and by more than nothing."""
    if not others:
        return None
    nearest = min(others, key=lambda other: measured[other].nll)
    _, (_, high) = statistics.difference(measured[nearest], measured[reading])
    return nearest if high < -SMALLEST_DIFFERENCE else None


def _baselines(probe: Probe, sampler: Sampler) -> dict[str, float]:
    """What knowing nothing gives, and what knowing how often each token occurs in each dimension gives.

    The frequencies of a token leave it out itself, with half a count added to each bin.
    """
    labels, inside = sampler.labels(sampler.decisions)
    columns: npt.NDArray[np.int32] = probe.token_ids(labels)[inside].T
    nats, commonest = [], []
    for column in columns:
        _, inverse, counts = np.unique(column, return_inverse=True, return_counts=True)
        shares = (counts[inverse] - 0.5) / (len(column) - 1 + 0.5 * probe.bins)
        nats.append(float(-np.log(shares).mean()))
        commonest.append(float(counts.max() / len(column)))
    return {
        "uniform": math.log(probe.bins),
        "frequencies": float(np.mean(nats)),
        "commonest": float(np.mean(commonest)),
    }
