"""What was measured of a thing that is pushed: figures with intervals, and the control that they are compared with."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from grape.core.errors import DataError, GrapeError
from grape.core.files import content_hash
from grape.core.provenance import Provenance, read_provenance
from grape.core.trajectories import EpisodeMeta
from grape.evaluation import EvaluationResults, compare_results, read_results
from grape.evaluation.results import TaskResults
from grape.evaluation.statistics import clustered_wilson_interval
from grape.hub.parcel import Parcel
from grape.preferences.records import read_pairs, recorded_stores
from grape.report.contents import read_contents
from grape.report.folders import find_folders
from grape.report.headline import headline_of
from grape.store import EpisodeStore, open_stores

__all__ = ["Evidence", "Figure", "Measured", "read_evidence"]


@dataclass(frozen=True)
class Figure:
    """A share of episodes.

    Attributes:
        label: What it is a share of.
        rate: In [0, 1].
        low: Lower end of the 95 % interval.
        high: Upper end of it.
        episodes: How many episodes.
    """

    label: str
    rate: float
    low: float
    high: float
    episodes: int


@dataclass(frozen=True)
class Measured:
    """An evaluation of the policy, and of its control on the same initial states.

    Attributes:
        suite: Name of the suite.
        tasks: Names of the tasks.
        condition: Decoding, protocol and initial states, in words.
        own: Success of the policy, over all tasks first, then by task if there are several.
        control: Success of the policy that training started from; empty where it was not measured on these states.
        sentence: The comparison in words; empty without a control.
        caution: Whether the states were learned from or chosen on; empty where they were not.
    """

    suite: str
    tasks: tuple[str, ...]
    condition: str
    own: tuple[Figure, ...]
    control: tuple[Figure, ...] = ()
    sentence: str = ""
    caution: str = ""


@dataclass(frozen=True)
class Evidence:
    """Everything that is known in numbers of what is pushed.

    Attributes:
        measured: Evaluations of a policy.
        figures: Shares of recorded episodes.
        counts: Numbers by name.
        suite: Suite of the tasks, as far as it is known.
        notes: Sentences that belong to the figures.
    """

    measured: tuple[Measured, ...] = ()
    figures: tuple[Figure, ...] = ()
    counts: Mapping[str, int | float] | None = None
    suite: str = ""
    notes: tuple[str, ...] = ()


def read_evidence(parcel: Parcel, evaluations: Path | None) -> Evidence:
    """Find and read what was measured.

    Args:
        parcel: What is pushed.
        evaluations: Folder in which evaluations of a policy are looked for; None for the run and its surroundings.

    Raises:
        DataError: A store is damaged.
    """
    if parcel.what == "store":
        return _of_store(EpisodeStore.open(parcel.place))
    if parcel.what == "pairs":
        return _of_pairs(parcel)
    if parcel.what == "report":
        return _of_report(parcel.place)
    return _of_policy(parcel, evaluations)


def _of_policy(parcel: Parcel, folder: Path | None) -> Evidence:
    provenance = read_provenance(parcel.place)
    suite = next(iter([*provenance.collected, *provenance.validated]), "")
    own_hash = str(parcel.summary.get("policy_hash") or "")
    if not own_hash:
        note = "No record says which evaluations are of these weights, so none are quoted."
        return Evidence(suite=suite, notes=(note,))
    roots = [folder] if folder is not None else _surroundings(parcel)
    results = [result for root in roots for result in _results_in(root)]
    own = [result for result in results if result.policy_hash == own_hash]
    start = str(parcel.inputs.get("policy_hash") or "")
    controls = [result for result in results if start and result.policy_hash == start != own_hash]
    unique = {content_hash({**item.to_json(), "policy": ""}): item for item in own}  # copies are quoted once
    measured = tuple(_measured(item, controls, provenance) for item in unique.values())
    notes = () if measured else ("No evaluation of these weights was found beside the run.",)
    return Evidence(measured, suite=measured[0].suite if measured else suite, notes=notes)


def _surroundings(parcel: Parcel) -> list[Path]:
    """The run and the folder that it lies in; of a round of a loop, the loop's folder."""
    run = (parcel.run or parcel.place).absolute()
    loop = next((path for path in itertools.islice(run.parents, 3) if (path / "loop.json").is_file()), None)
    return [loop or run.parent]


def _results_in(root: Path) -> list[EvaluationResults]:
    results = []
    for folder in find_folders(root):
        if folder.verb == "evaluate" and folder.product:
            try:
                results.append(read_results(folder.path))
            except GrapeError:
                continue  # a damaged evaluation is not quoted
    return results


def _measured(result: EvaluationResults, controls: Sequence[EvaluationResults], provenance: Provenance) -> Measured:
    decoding = "greedy decoding" if result.temperature == 0 else f"sampling at temperature {result.temperature:g}"
    states = len({(outcome.task, outcome.initial_state) for outcome in result.per_episode})
    condition = f"{decoding}, {states} initial states"
    condition += f", protocol {result.protocol}" if result.protocol else ""
    measured = Measured(
        result.suite, tuple(result.tasks), condition, _figures(result), caution=_caution(result, provenance)
    )
    for control in controls:
        if (control.protocol, control.temperature) != (result.protocol, result.temperature):
            continue
        try:
            comparison = compare_results(control, result)
        except GrapeError:
            continue
        if comparison["unmatched_a"] or comparison["unmatched_b"]:
            continue
        low, high = comparison["interval"]
        sentence = (
            f"Against the policy that training started from: {comparison['verdict']}; difference "
            f"{100 * comparison['difference']:+.1f} points (95 % interval {100 * low:+.1f} to {100 * high:+.1f}; "
            f"p = {comparison['p_value']:.3g}, {comparison['test']}), {comparison['pairs']} paired episodes."
        )
        return Measured(**{**vars(measured), "control": _figures(control), "sentence": sentence})
    return measured


def _figures(result: EvaluationResults) -> tuple[Figure, ...]:
    rows: dict[str, EvaluationResults | TaskResults] = {"all tasks": result} if len(result.tasks) > 1 else {}
    rows |= result.tasks
    return tuple(Figure(name, row.success_rate, *row.interval, row.episodes) for name, row in rows.items())


def _caution(result: EvaluationResults, provenance: Provenance) -> str:
    def met(states: Mapping[str, Mapping[str, frozenset[int]]]) -> int:
        known = states.get(result.suite, {})
        keys = {(outcome.task, outcome.initial_state) for outcome in result.per_episode}
        return sum(state in known.get(task, ()) for task, state in keys)

    learned, chosen = met(provenance.collected), met(provenance.validated)
    parts = [f"{learned} of these initial states were learned from"] if learned else []
    parts += [f"{chosen} of these initial states chose the policy"] if chosen else []
    return f"{'; '.join(parts)}: the figure is likely too high." if parts else ""


def _share(label: str, metas: Sequence[EpisodeMeta]) -> list[Figure]:
    """Share of successes among the episodes whose outcome is known; nothing without any."""
    states: dict[tuple[str, int], list[bool]] = {}
    for meta in metas:
        if meta.success is not None:
            states.setdefault((meta.task, meta.initial_state), []).append(meta.success)
    if not states:
        return []
    solved, trials = [sum(known) for known in states.values()], [len(known) for known in states.values()]
    interval = clustered_wilson_interval(solved, trials)
    return [Figure(label, sum(solved) / sum(trials), *interval, sum(trials))]


def _of_store(store: EpisodeStore) -> Evidence:
    metas = store.metas()
    policies = {meta.policy_hash for meta in metas}
    tasks = sorted({meta.task for meta in metas})
    figures = _share("all tasks", metas) if len(tasks) > 1 else []
    for task in tasks:
        figures += _share(task, [meta for meta in metas if meta.task == task])
    who = "scripted experts" if policies == {""} else f"{len(policies - {''})} policy or policies"
    return Evidence(
        figures=tuple(figures),
        counts={
            "episodes": len(metas),
            "control steps": sum(meta.steps for meta in metas),
            "initial states": len({(meta.task, meta.initial_state) for meta in metas}),
        },
        suite=store.suite,
        notes=(f"The share of successes is that of the rollouts ({who}), not an evaluation of a policy.",),
    )


def _of_pairs(parcel: Parcel) -> Evidence:
    pairs, store = read_pairs(parcel.place), open_stores(recorded_stores(parcel.place))
    chosen = _share("chosen side", [store.meta(pair.chosen) for pair in pairs])
    rejected = _share("rejected side (control)", [store.meta(pair.rejected) for pair in pairs])
    return Evidence(
        figures=(*chosen, *rejected),
        counts={
            "pairs": len(pairs),
            "initial states": len({(pair.task, pair.initial_state) for pair in pairs}),
            "tasks": len({pair.task for pair in pairs}),
        },
        suite=store.suite,
        notes=("A share counts each pair once, and rests on few initial states where many pairs share one.",),
    )


def _of_report(folder: Path) -> Evidence:
    """The figures of the run that the page is about; nothing where it is a study, whose page says them."""
    try:
        contents = read_contents(folder)
        headline = headline_of(contents)
    except DataError:
        return Evidence(notes=("The figures stand on the page.",))
    if headline is None:
        return Evidence(suite=contents.suite, notes=("The run evaluated no policy.",))
    rates = [headline.after] if headline.before is None else [headline.before, headline.after]
    figures = tuple(Figure(rate.label, rate.rate, rate.low, rate.high, rate.episodes) for rate in rates)
    return Evidence(figures=figures, suite=contents.suite, notes=(headline.sentence, headline.where))
