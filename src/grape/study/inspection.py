"""Diagnoses a finished cell from its work folder: what training did to which log-probabilities, and with what pull.

Log-probabilities of the policies before and after are computed as training computes them, on two sets of episodes:
fresh rollouts of the study's starting policy from the validation states, from which no arm learns, and the episodes
that the training saw. The rest is in the training's own records.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.collect import run_collect
from grape.core.errors import CompatibilityError, DataError
from grape.core.events import Reporter
from grape.core.preferences import PreferencePair
from grape.policies.base import TrainablePolicy
from grape.policies.opening import parse_hub_name
from grape.store import EpisodeStore
from grape.study.arms import Arm
from grape.study.bench import Bench, curve, rounded
from grape.study.cells import Cell, software
from grape.study.diagnosis import Change, DiagnosedRound, Diagnosis, write_diagnosis
from grape.study.settings import StudySettings
from grape.training.batches import collate
from grape.training.dataset import StepDataset
from grape.training.distributed import SINGLE_PROCESS, device_of
from grape.training.items import ComparisonItem, make_items
from grape.training.logprobs import StepLogprobs, recorded_reference
from grape.training.loop import deterministic
from grape.training.lora import computing_type, open_for_training, parameter_counts
from grape.training.objectives import Objective
from grape.training.plan import choose_micro_batch, starting_options
from grape.training.settings import TrainSettings
from grape.training.sources import TrainingData, read_data

__all__ = ["check_work", "diagnose_cell", "pair_kinds"]

Floats = npt.NDArray[np.float64]

SATURATED = 0.1
"""Weights below it count as saturated: the loss pulls at less than a fifth of what it does at the start."""

_KINDS = (
    "pairs", "chosen_succeeded", "both_outcomes", "two_successes", "two_failures", "decided_by_self", "decided_by_ext",
    "decided_otherwise",
)  # fmt: skip
_METRICS = ("grad_norm", "grad_norm/preference", "grad_norm/anchor", "rewards/margins", "saturation", "clipped")


def check_work(settings: StudySettings, bench: Bench, arm: Arm, cell: Cell) -> None:
    """Refuse a cell whose work folder lacks what a diagnosis reads, before any other is diagnosed.

    Raises:
        DataError: Something is missing.
    """
    needed = [] if parse_hub_name(settings.policy) else [bench.start_policy]
    for item in cell.rounds:
        if item.updates:
            train = bench.learning(arm, item.iteration, bench.start_policy)[2]
            needed += [*(folder / "done.json" for folder in train.data), train.out / "policy"]
            needed.append(train.out / "metrics.jsonl")
    for path in needed:
        if not path.exists():
            raise DataError(
                f"{path} is missing, which a diagnosis of cell {cell.seed}-{cell.arm} reads.",
                "Diagnose where the cell was made, before its work/ folder is removed; --merge takes diagnoses over. "
                "--cells names the cells to diagnose.",
            )


def diagnose_cell(settings: StudySettings, bench: Bench, arm: Arm, cell: Cell, reporter: Reporter) -> Path:
    """Diagnose a finished cell and write the result.

    Args:
        settings: The study.
        bench: Where the cell was made.
        arm: Its arm.
        cell: Its result.
        reporter: Hears of progress.

    Returns:
        The file.

    Raises:
        DataError: The work folder is damaged.
        CompatibilityError: It is not that of the cell's result.
    """
    collection = bench.fresh_rollouts()
    run_collect(collection, reporter)
    store = EpisodeStore.open(collection.out / "store")
    if store.metas()[0].policy_hash != cell.start:
        raise _foreign(cell, bench.start_policy)
    train = bench.learning(arm, 1, bench.start_policy)[2]
    with deterministic(train.threads):
        rounds = _Inspection(bench, arm, cell, store, reporter).rounds()
    diagnosis = Diagnosis(
        settings=cell.settings,
        seed=cell.seed,
        arm=cell.arm,
        start=cell.start,
        samples=settings.diagnosis_samples,
        fresh=store.digest(),
        software=software(),
        rounds=tuple(rounds),
    )
    return write_diagnosis(settings.out, diagnosis)


def _foreign(cell: Cell, policy: Path) -> CompatibilityError:
    return CompatibilityError(
        f"{policy} is not the policy that the result of cell {cell.seed}-{cell.arm} was made with.",
        "Diagnose where the cell was made, or delete its result and make it again.",
    )


class _Inspection:
    """The rounds of one cell."""

    def __init__(self, bench: Bench, arm: Arm, cell: Cell, store: EpisodeStore, reporter: Reporter) -> None:
        self._bench, self._arm, self._cell, self._reporter = bench, arm, cell, reporter
        episodes = {meta.episode_id: (0, meta.episode_id) for meta in store.metas()}
        self._metas = {meta.episode_id: meta for meta in store.metas()}
        self._fresh = TrainingData((), (store,), episodes, frozenset(), {})

    def rounds(self) -> list[DiagnosedRound]:
        """Every iteration of the cell, each against the policy that it started from."""
        path = self._bench.start_policy
        train = self._bench.learning(self._arm, 1, path)[2]
        policy = self._opened(path, train, self._cell.start)
        fresh = self._load(self._fresh, train, policy)
        before = start = _token_logps(policy, train, fresh)
        rounds = []
        for item in self._cell.rounds:
            after = before
            learned: dict[str, Any] = {}
            if item.updates:
                train = self._bench.learning(self._arm, item.iteration, path)[2]
                data = read_data(train, self._reporter)
                steps = self._load(data, train, policy)
                untrained = _token_logps(policy, train, steps)
                path = train.out / "policy"
                del policy  # before the next one takes its memory
                policy = self._opened(path, train, item.policy_hash)
                after = _token_logps(policy, train, fresh)
                learned = _learned(train, data, steps, untrained, _token_logps(policy, train, steps))
            elif item.policy_hash != policy.spec.policy_hash:
                raise _foreign(self._cell, path)
            rounds.append(
                DiagnosedRound(
                    iteration=item.iteration,
                    policy_hash=item.policy_hash,
                    fresh=self._by_outcome(fresh, after - before),
                    since_start=self._by_outcome(fresh, after - start),
                    trained=learned.get("trained", {}),
                    distance={"fresh": _distance(fresh, after), **learned.get("distance", {})},
                    comparisons=learned.get("comparisons", {}),
                    terms=learned.get("terms", ()),
                    saturated=learned.get("saturated"),
                    curve=curve(train.out / "metrics.jsonl", _METRICS) if item.updates else {},
                )
            )
            before = after
        return rounds

    def _opened(self, path: Path, train: TrainSettings, policy_hash: str) -> TrainablePolicy:
        """A policy as training opens it.

        Raises:
            CompatibilityError: It is not the one of the cell's result.
        """
        policy = open_for_training(path, train, starting_options(train), device_of(train.device))
        if policy.spec.policy_hash != policy_hash:
            raise _foreign(self._cell, path)
        return policy

    def _load(self, data: TrainingData, train: TrainSettings, policy: TrainablePolicy) -> StepDataset:
        return data.load(self._reporter, train.picture_cache_gb * 1e9, data.check_policy(policy))

    def _by_outcome(self, steps: StepDataset, change: Floats) -> dict[str, Change]:
        """Changes of the fresh rollouts, ``(T, D)``, by how they ended."""
        sides: dict[str, list[tuple[int, int]]] = {"success": [], "failure": [], "failure_head": [], "failure_tail": []}
        for name, (start, stop) in steps.step_spans.items():
            meta = self._metas[name]
            if meta.success is None:
                continue
            sides["success" if meta.success else "failure"].append((start, stop))
            if not meta.success and (usual := self._usual_length(meta.task)):
                middle = min(start + usual, stop)
                sides["failure_head"].append((start, middle))
                sides["failure_tail"].append((middle, stop))
        return _changes(change, **sides)

    def _usual_length(self, task: str) -> int:
        """Median control steps of a task's fresh successes; 0 without any."""
        lengths = [meta.steps for meta in self._metas.values() if meta.task == task and meta.success]
        return int(np.median(lengths)) if lengths else 0


def _token_logps(policy: TrainablePolicy, train: TrainSettings, steps: StepDataset) -> Floats:
    """A policy's log-probability of each executed token, ``(T, D)``."""
    batch = choose_micro_batch(train.micro_batch, parameter_counts(policy)["parameters"])
    return StepLogprobs(policy, steps, batch, autocast=computing_type(train, device_of(train.device))).executed(batch)


def _distance(steps: StepDataset, logps: Floats) -> float:
    """Mean absolute log-ratio a token against whoever recorded the episodes."""
    recorded_reference(steps)  # refuses what was not sampled
    recorded = steps.logps_NKD[:][steps.executed_mask(np.arange(len(steps)))]
    return _rounded(float(np.abs(logps - recorded).mean()))


def _changes(change: Floats, **sides: Sequence[tuple[int, int]]) -> dict[str, Change]:
    """Changes of some sides, given by their control steps; those without any are left out."""
    changes = {}
    for name, ranges in sides.items():
        means = [float(change[start:stop].mean()) for start, stop in ranges if start < stop]
        if means:
            deviation = float(np.std(means, ddof=1)) if len(means) > 1 else 0.0
            changes[name] = Change(len(means), _rounded(float(np.mean(means))), _rounded(deviation))
    return changes


def _rounded(value: float) -> float:
    """Four digits.

    Raises:
        DataError: It is not finite.
    """
    short = rounded(value)
    if short is None:
        raise DataError("A policy's log-probabilities are not finite.", "Its folder is damaged: make the cell again.")
    return short


def _learned(
    train: TrainSettings, data: TrainingData, steps: StepDataset, before: Floats, after: Floats
) -> dict[str, Any]:
    """What is said of the episodes that a training saw; the fields of :class:`DiagnosedRound` by name."""
    spans, axis = steps.step_spans, steps.axis
    if train.method == "filtered-bc":
        whole: Sequence[ComparisonItem] = [ComparisonItem(name, span) for name, span in spans.items()]
    else:
        whole = make_items(train.method if train.unpaired else "tpo", data.samples, spans, axis=axis)[0]
    items = make_items(train.method, data.samples, spans, train.window, train.stride, axis=axis)[0]
    recomputed = train.reference == "recomputed"
    parts = [_parted(item) for item in whole if item.chosen[0] < item.chosen[1]]
    segments, comparisons = collate(items, before.sum(axis=1) if recomputed else recorded_reference(steps), axis)
    loss = Objective(train, after.shape[1], SINGLE_PROCESS).loss(1.0)
    sums = comparisons.sums(axis.sums(segments, after.sum(axis=1)))
    terms, metrics = loss(sums)
    weights = [loss(sums.pair(number))[1]["saturation"] for number in range(len(items)) if "saturation" in metrics]
    return {
        "trained": _changes(
            after - before,
            chosen=[item.chosen for item in whole],
            rejected=[item.rejected for item in whole],
            rejected_head=[head for head, _ in parts],
            rejected_tail=[tail for _, tail in parts],
        ),
        "distance": {"trained": _distance(steps, after), "before": _distance(steps, before)},
        "comparisons": _kinds(train, data),
        "terms": tuple(terms),
        "saturated": _rounded(sum(weight < SATURATED for weight in weights) / len(weights)) if weights else None,
    }


def _parted(item: ComparisonItem) -> tuple[tuple[int, int], tuple[int, int]]:
    """A rejected side as far as the chosen one is long, and the rest."""
    start, stop = item.rejected
    middle = min(stop, start + item.chosen[1] - item.chosen[0])
    return (start, middle), (middle, stop)


def _kinds(train: TrainSettings, data: TrainingData) -> dict[str, int]:
    """What a training learned from, counted."""
    outcomes = {name: meta.success for name, meta in zip(data.episodes, data.metas(), strict=True)}
    pairs = [sample for sample in data.samples if isinstance(sample, PreferencePair)]
    if train.unpaired or train.method == "filtered-bc":
        return {"episodes": len(outcomes), "succeeded": sum(value is True for value in outcomes.values())}
    return pair_kinds(pairs, outcomes)


def pair_kinds(pairs: Iterable[PreferencePair], outcomes: Mapping[str, bool | None]) -> dict[str, int]:
    """Kinds of pairs.

    Args:
        pairs: The pairs.
        outcomes: Whether each episode succeeded; None where nobody knows.

    Returns:
        ``pairs``; those with a success ``chosen_succeeded``; those of ``both_outcomes``, of ``two_successes``, of
        ``two_failures``; and of the pairs of equal outcome those ``decided_by_self`` or ``decided_by_ext``, the largest
        term of the score in favor of the chosen side, or ``decided_otherwise`` (stages' costs, chance).
    """
    counts = dict.fromkeys(_KINDS, 0)
    for pair in pairs:
        chosen, rejected = outcomes[pair.chosen], outcomes[pair.rejected]
        counts["pairs"] += 1
        counts["chosen_succeeded"] += chosen is True
        if chosen is None or rejected is None:
            continue
        if chosen != rejected:
            counts["both_outcomes"] += 1
            continue
        counts["two_successes" if chosen else "two_failures"] += 1
        favor = max(pair.terms.items(), key=lambda item: item[1], default=("", 0.0))
        by_term = favor[1] > 0 and favor[0] in ("self", "ext")
        counts[f"decided_by_{favor[0]}" if by_term else "decided_otherwise"] += 1
    return counts
