"""Makes the cells of one seed: what all arms share once, what each arm does in a folder of its own.

::

    work/seed-0/{demonstrations,sft}      the starting policy (work/start/ where all seeds share it)
    work/seed-0/iteration-1/collect       the first rollouts, of which every arm makes what it can
    work/seed-0/arms/tpo/iteration-1/...  scores, pairs, training and measurement of an arm
    work/seed-0/diagnosis/...             fresh rollouts of the starting policy, for --diagnose

Every stage is a verb's folder, which resumes; so does a cell that was killed.
"""

import contextlib
import math
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from grape.collect import run_collect
from grape.collect.settings import CollectSettings
from grape.core.errors import CompatibilityError, GrapeError, NoPairsError
from grape.core.events import Reporter
from grape.core.files import content_hash, read_json, read_jsonl, write_json
from grape.core.runs import identity_of, is_complete, open_run
from grape.core.seeds import derive_seed
from grape.core.tasks import Task
from grape.envs.base import SuiteBase
from grape.evaluation import read_results, run_evaluate
from grape.loop.stages import Stages
from grape.preferences import PairSettings, ScoreSettings, run_pair, run_score
from grape.store import EpisodeStore, open_stores
from grape.study.arms import Arm
from grape.study.cells import CELLS, Cell, Outcome, Round, cell_hash, check_starts, read_cell, software, write_cell
from grape.study.checks import loop_settings
from grape.study.settings import StudySettings
from grape.training.settings import TrainSettings

__all__ = ["Bench", "curve", "rounded"]

_POINTS = 40  # of a curve in a file
_METRICS = (
    "loss", "loss/preference", "loss/anchor", "loss/nll", "rewards/margins", "rewards/accuracies", "logps/chosen",
    "logps/rejected", "displacement", "saturation",
)  # fmt: skip


class Bench:
    """Makes cells of one seed.

    Args:
        settings: The study.
        seed: The seed.
        suite: Its suite.
        tasks: Its tasks.
        reporter: Hears of progress.
    """

    def __init__(
        self, settings: StudySettings, seed: int, suite: SuiteBase, tasks: Sequence[Task], reporter: Reporter
    ) -> None:
        self._settings, self._seed, self._suite, self._tasks = settings, seed, suite, tasks
        self._reporter = reporter
        self._root = settings.out / "work" / f"seed-{seed}"
        self._shared = Stages(loop_settings(settings, None, self._root, seed))

    def make(self, arm: Arm) -> None:
        """Run all stages of a cell that are not done, and write its result.

        Raises:
            GrapeError: A stage failed.
        """
        settings, folder = self._settings, self.folder(arm)
        with _timed(self._root):
            policy = self.start()
            if arm.trains:
                run_collect(self._shared.collect(1, policy), self._reporter)
                self._check_start()
        identity = {"cell": cell_hash(settings, arm), "seed": self._seed, "arm": arm.name}
        run = open_run(folder, "study cell", loop_settings(settings, arm, folder, self._seed), identity)
        with _timed(folder):
            rounds = self._rounds(arm, policy, folder)
        start = rounds[0].policy_hash if not arm.trains else self.first_store().metas()[0].policy_hash
        cell = Cell(
            settings=cell_hash(settings, arm),
            seed=self._seed,
            arm=arm.name,
            suite=settings.suite,
            tasks=tuple(task.name for task in self._tasks),
            merit=settings.merit,
            measured_on=settings.measured_on,
            start=start,
            software=software(),
            versions=dict(self._suite.versions()),
            rounds=rounds,
            wall_seconds=_seconds(folder)["wall"],
            cpu_seconds=_seconds(folder)["cpu"],
            start_cpu_seconds=_seconds(self._root)["cpu"],
        )
        path = write_cell(settings.out, cell)
        run.finish({"cell": path.name})

    def _check_start(self) -> None:
        """Refuse a start that differs from that of the seed's other cells, before an arm is trained from it.

        Raises:
            CompatibilityError: It differs.
        """
        store = self.first_store()
        others = [read_cell(path) for path in sorted((self._settings.out / CELLS).glob(f"{self._seed}-*.json"))]
        if others:
            first = replace(others[0].rounds[0], iteration=1, rollouts=store.digest())
            own = replace(others[0], seed=self._seed, start=store.metas()[0].policy_hash, rounds=(first,))
            check_starts([own, *others])

    def start(self) -> Path:
        """Make the starting policy where it is not given: from demonstrations, for this seed or for all."""
        if not self._settings.policy:
            from grape.training import run_sft

            stages = self._shared
            if self._settings.shared_start:
                stages = Stages(loop_settings(self._settings, None, self._start_root, 0))
            run_collect(stages.demonstrations(), self._reporter)
            run_sft(stages.sft(), self._reporter)
        return self.start_policy

    @property
    def start_policy(self) -> Path:
        """Where the starting policy lies."""
        return Path(self._settings.policy) if self._settings.policy else self._start_root / "sft" / "policy"

    @property
    def _start_root(self) -> Path:
        return self._settings.out / "work" / "start" if self._settings.shared_start else self._root

    def folder(self, arm: Arm) -> Path:
        """Where an arm works."""
        return self._root / "arms" / arm.name

    def stages(self, arm: Arm) -> Stages:
        """The stages of an arm."""
        return Stages(loop_settings(self._settings, arm, self.folder(arm), self._seed))

    def first_store(self) -> EpisodeStore:
        """The rollouts of the first iteration, which all arms share."""
        return EpisodeStore.open(self._shared.folder(1) / "collect" / "store")

    def fresh_rollouts(self) -> CollectSettings:
        """Rollouts of the starting policy from the validation states, on which no arm trains."""
        states, samples = self._shared.validation_states, self._settings.diagnosis_samples
        return replace(
            self._shared.collect(1, self.start_policy),
            out=self._root / "diagnosis" / f"samples-{samples}",
            initial_states=f"{states[0]}-{states[-1]}",
            samples=samples,
            mixed_episodes=0,
            mixed_samples=0,
            seed=derive_seed(self._seed, "study", "diagnosis") % 2**31,
        )

    def learning(self, arm: Arm, iteration: int, policy: Path) -> tuple[ScoreSettings, PairSettings, TrainSettings]:
        """Scoring, pairing and training of an iteration from a policy; unpaired methods take no pairs."""
        stages = self.stages(arm)
        score, train = self._scoring(arm, iteration), stages.train(iteration, policy)
        if train.unpaired:
            earlier = range(iteration - len(train.replay), iteration)
            train = replace(train, scores=score.out, replay=tuple(self._scoring(arm, one).out for one in earlier))
        else:  # an iteration that found no pairs leaves none to replay
            train = replace(train, replay=tuple(folder for folder in train.replay if is_complete(folder)))
        return score, replace(stages.pair(iteration), scores=score.out), train

    def _scoring(self, arm: Arm, iteration: int) -> ScoreSettings:
        """Scoring of an iteration; in the first, arms that score alike share the scores."""
        score = self.stages(arm).score(iteration)
        if iteration > 1:
            return score
        digits = content_hash(identity_of(arm.score))[:12]
        place = self._shared.folder(1) / "collect" / "store"
        return replace(score, store=place, out=self._root / "scores" / digits)

    def _rounds(self, arm: Arm, policy: Path, folder: Path) -> tuple[Round, ...]:
        """Every iteration of an arm; the measured starting policy alone for one that does not train."""
        stages = self.stages(arm)
        if not arm.trains:
            return (Round(iteration=0, **self._measured(stages, policy, folder / "measured")),)
        rounds = []
        for iteration in range(1, self._settings.iterations + 1):
            place = stages.folder(iteration)
            if iteration > 1:
                run_collect(stages.collect(iteration, policy), self._reporter)
            policy, facts = self._trained(arm, iteration, policy)
            measured = self._measured(stages, policy, place / "measured")
            rounds.append(Round(iteration=iteration, **facts, **measured))
        return tuple(rounds)

    def _trained(self, arm: Arm, iteration: int, policy: Path) -> tuple[Path, dict[str, Any]]:
        """The policy after an iteration, and what it learned from; the one before where there is nothing to learn.

        Raises:
            GrapeError: The optimizer took another number of steps than the study's.
        """
        from grape.training import run_train

        score, pair, train = self.learning(arm, iteration, policy)
        store = open_stores(score.stores)
        outcomes = [meta.success for meta in store.metas() if meta.success is not None]
        facts: dict[str, Any] = {
            "rollouts": store.digest(),
            "collected": len(store),
            "collected_success": sum(outcomes) / len(outcomes) if outcomes else None,
        }
        run_score(score, self._reporter)
        try:
            if not train.unpaired:
                run_pair(pair, self._reporter)
            done = run_train(train, self._reporter)
        except NoPairsError as error:
            self._reporter.warn(f"Seed {self._seed}, {arm.name}, iteration {iteration}: {error.message}")
            return policy, {**facts, "stopped": error.message}
        if done["updates"] != self._settings.updates:
            raise GrapeError(
                f"Arm {arm.name} took {done['updates']} optimizer steps where the study has {self._settings.updates}.",
                "Please report it: arms would not be comparable.",
            )
        facts |= {"pairs": done.get("pairs", done["episodes"]), "updates": done["updates"]}
        return Path(done["policy"]), {**facts, "curve": curve(train.out / "metrics.jsonl", _METRICS)}

    def _measured(self, stages: Stages, policy: Path, out: Path) -> dict[str, Any]:
        """Hash of the policy, and its outcomes on the states that are measured on."""
        chooses = self._settings.measured_on == "validation"
        evaluation = stages.validate(policy, out) if chooses else stages.test(policy, out)
        evaluation = replace(
            evaluation, max_steps=self._settings.test_max_steps, execute=self._settings.collect.execute
        )
        run_evaluate(evaluation, self._reporter, chooses=chooses)
        results = read_results(out)
        collisions = _collisions(out / "rollouts" / "store", required=self._settings.merit == "collisions")
        places = {task.name: number for number, task in enumerate(self._tasks)}
        outcomes = tuple(
            Outcome(
                places[one.task], one.initial_state, one.sample, int(one.success), one.steps, collisions.get(one.key)
            )
            for one in results.per_episode
        )
        return {"policy_hash": results.policy_hash, "outcomes": tuple(sorted(outcomes))}


def _collisions(path: Path, *, required: bool) -> Mapping[tuple[str, int, int], int]:
    """States with a collision by task, initial state and sample; empty where the suite records no such signal.

    Raises:
        CompatibilityError: It is required and was not recorded.
    """
    store = EpisodeStore.open(path)
    counts = {}
    for meta in store.metas():
        signals = store.read(meta.episode_id, frames=False).signals
        if "collision" not in signals:
            if required:
                raise CompatibilityError(
                    f"The suite '{meta.suite}' records no collisions.", "Choose --merit success or steps."
                )
            return {}
        counts[meta.task, meta.initial_state, meta.sample] = int((np.asarray(signals["collision"]) > 0.5).sum())
    return counts


def curve(path: Path, metrics: Sequence[str]) -> dict[str, tuple[float | None, ...]]:
    """Metrics of training at a few evenly spread updates, the first and the last among them, four digits each."""
    rows = [row for row in read_jsonl(path) if "update" in row and "loss" in row]
    places = np.unique(np.linspace(0, len(rows) - 1, min(_POINTS, len(rows))).round().astype(int)) if rows else ()
    kept = [rows[place] for place in places]
    names = ("update", *(name for name in metrics if any(name in row for row in kept)))
    return {name: tuple(rounded(row.get(name)) for row in kept) for name in names}


def rounded(value: Any) -> float | None:
    """A number with the four digits that files keep; None for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.4g}")


_CLOCK = "seconds.json"


def _seconds(folder: Path) -> Mapping[str, float]:
    """Wall and CPU time that stages below a folder took in all processes that worked there to their end."""
    path = folder / _CLOCK
    stored = read_json(path) if path.exists() else {}
    return {name: float(stored.get(name, 0.0)) for name in ("wall", "cpu")}


@contextlib.contextmanager
def _timed(folder: Path) -> Iterator[None]:
    """Add what the block takes to the folder's account."""
    wall, cpu = time.perf_counter(), _cpu()
    try:
        yield
    finally:
        before = _seconds(folder)
        spent = {"wall": time.perf_counter() - wall, "cpu": _cpu() - cpu}
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / _CLOCK, {name: round(before[name] + value, 2) for name, value in spent.items()})


def _cpu() -> float:
    """CPU time of this process and of its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
