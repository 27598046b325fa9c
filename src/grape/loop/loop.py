"""The verb ``loop``: from a policy (or nothing) to an aligned policy and a report."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.cluster import open_cluster
from grape.collect import run_collect
from grape.core.errors import NoPairsError
from grape.core.events import SILENT, Reporter, append_event
from grape.core.files import write_json
from grape.core.launched import launched_process
from grape.core.provenance import add_validated
from grape.core.remote.mirror_names import address_in_mirror
from grape.core.runs import RunFolder, open_run, recorded_inputs
from grape.core.selections import format_numbers
from grape.core.tasks import Task
from grape.envs.base import SuiteBase
from grape.envs.external_python import suite_of
from grape.envs.registry import select_tasks
from grape.evaluation import (
    best_on_validation,
    gate_decision,
    pair_results,
    read_results,
    run_compare,
    run_evaluate,
)
from grape.loop.checks import check_settings
from grape.loop.filtered_bc import compare_filtered_bc
from grape.loop.plan import plan_loop
from grape.loop.settings import LoopSettings
from grape.loop.stages import Stages
from grape.loop.trainings import Trainings, open_trainings, serve_trainings, tell_failure
from grape.preferences import run_pair, run_score
from grape.training.process_group import check_no_launcher

__all__ = ["run_loop"]

Summary = Mapping[str, Any]

_GATE = {"gate": "no worse estimate, no task significantly worse"}
"""The gate's rule as a run's inputs hold it; runs of release 0.1 hold none, and keep the rule they were begun with."""


@dataclass(frozen=True)
class _Incumbent:
    """The policy that goes on, and its evaluation on the gate's states."""

    label: str
    policy: Path
    evaluation: Path

    @property
    def slug(self) -> str:
        """The label as a folder's name."""
        return self.label.lower().replace(" ", "-")


def run_loop(settings: LoopSettings, reporter: Reporter = SILENT) -> Summary:
    """Run every stage in order; a stage whose folder is complete costs nothing.

    Of several processes that a launcher started the main one does so, and all of them train; the others return its
    summary, or an empty one where it failed.

    Returns:
        Summary: the policies with their validation success, the comparison of the first policy with the best one of
        the validation states on the test states, filtered BC beside them where asked for, paths of the best
        policy and of the report.

    Raises:
        GrapeError: A stage failed; what was finished is kept and the same command goes on from there.
    """
    process = launched_process()
    if not process.is_main:
        if settings.dry_run:
            return {}
        serve_trainings(settings.out)
        return RunFolder(settings.out, "loop").done or {}
    with contextlib.nullcontext() if settings.dry_run else tell_failure(settings.out):
        return _run_main(settings, reporter)


def _run_main(settings: LoopSettings, reporter: Reporter) -> Summary:
    """The loop in its only process, or in the main one of a job."""
    if settings.gpus > 1:
        check_no_launcher(settings.gpus)
    suite = suite_of(settings.suite, settings.env_python)
    tasks = select_tasks(suite, settings.tasks)
    check_settings(settings, suite, tasks)
    stages = Stages(settings)
    if settings.dry_run:
        return plan_loop(settings, tasks)
    inputs = _gate_of(settings.out)
    if not inputs and settings.gate:
        reporter.warn(
            f"{settings.out} was begun by release 0.1, whose gate lets a policy pass unless it is significantly worse; "
            "it goes on with that rule. What is still to be scored is priced without the simulator's verdict, what is "
            "still to be trained imitates only chosen sides that succeeded, and the result is the best policy on the "
            "validation states. For a loop that is today's throughout, choose another --out."
        )
    run = open_run(settings.out, "loop", settings, inputs)
    with open_trainings(settings.out) as trainings:
        if run.done is not None and _covers(run.done, settings):
            return run.done
        # One cluster for all stages: starting one takes longer than a small stage.
        with open_cluster(settings.ray_address) if stages.uses_ray else contextlib.nullcontext():
            summary = _run_stages(settings, suite, tasks, stages, trainings, reporter, tolerate_losses=not inputs)
        run.finish(summary)
    return summary


def _run_stages(
    settings: LoopSettings,
    suite: SuiteBase,
    tasks: Sequence[Task],
    stages: Stages,
    trainings: Trainings,
    reporter: Reporter,
    *,
    tolerate_losses: bool,
) -> dict[str, Any]:
    first = _first_policy(settings, stages, trainings, reporter)
    trained: Path | None = None  # by iteration 1
    entries: list[dict[str, Any]] = [_entry(first, settings.out, accepted=True, verdict="starting point")]
    incumbent = first
    passed = [first]
    for iteration in range(1, settings.iterations + 1):
        reporter.info(f"iteration {iteration} of {settings.iterations}, from {incumbent.label}")
        append_event(settings.out, "iteration", number=iteration, start=incumbent.label)
        candidate, accepted, verdict = _iterate(
            settings, stages, iteration, incumbent, trainings, reporter, tolerate_losses=tolerate_losses
        )
        if candidate is None:
            reporter.warn(f"Iteration {iteration}: {verdict} The loop stops here.")
            entries[-1]["stopped"] = verdict
            break
        trained = trained or candidate.policy
        entries.append(_entry(candidate, settings.out, accepted=accepted, verdict=verdict))
        reporter.info(
            f"{candidate.label}: success {entries[-1]['success_rate']:.2f} on the validation states; {verdict}"
        )
        if accepted:
            incumbent = candidate
            passed.append(candidate)
    best = passed[best_on_validation([read_results(policy.evaluation).success_rate for policy in passed])]
    if best is not incumbent:
        reporter.info(f"the result is {best.label}: the highest success on the validation states")
    comparison = _headline(settings, stages, first, best, reporter)
    summary = {
        "title": settings.title,
        "suite": settings.suite,
        "tasks": [task.name for task in tasks],
        "seed": settings.seed,
        "iterations": settings.iterations,
        "policies": entries,
        "policy": _relative(best.policy, settings.out),
        "test": {
            "before": f"test/{first.slug}",
            "after": f"test/{best.slug}",
            "labels": [first.label, best.label],
            "states": format_numbers(tuple(stages.test_states)),
        },
        "comparison": comparison,
        "commands": ["grape loop --config settings.yaml --out AGAIN"],
        "versions": dict(suite.versions()),
    }
    if settings.compare_cloning:
        summary["arms"] = []
        if trained is not None and settings.train.method != "filtered-bc":
            method = settings.train.method
            summary["arms"] = compare_filtered_bc(
                stages, first.policy, entries[0], trained, method, trainings, reporter
            )
    write_json(settings.out / "loop.json", summary)
    if settings.report:
        from grape.report import ReportSettings, run_report

        page = ReportSettings(run=settings.out, out=settings.out / "report.html")
        summary |= {"report": str(run_report(page, reporter)["report"])}
    return summary


def _gate_of(out: Path) -> dict[str, str]:
    """The gate's rule as the inputs of the run in ``out``, or of a new one; empty for a run of release 0.1."""
    inputs = recorded_inputs(out, "loop")
    return {} if inputs is not None and "gate" not in inputs else _GATE


def _covers(done: Summary, settings: LoopSettings) -> bool:
    """Whether a complete run holds all that is asked for now."""
    return done["iterations"] >= settings.iterations and ("arms" in done or not settings.compare_cloning)


def _first_policy(settings: LoopSettings, stages: Stages, trainings: Trainings, reporter: Reporter) -> _Incumbent:
    """The given policy, or one trained from demonstrations; evaluated on the gate's states."""
    if settings.policy:
        policy, label = Path(settings.policy), "starting policy"
    else:
        reporter.info("demonstrations of the scripted experts")
        run_collect(stages.demonstrations(), reporter)
        reporter.info("supervised fine-tuning (SFT)")
        trainings.sft(stages.sft(), reporter)
        policy, label = settings.out / "sft" / "policy", "SFT"
    evaluation = settings.out / "evaluate" / "sft"
    run_evaluate(stages.validate(policy, evaluation), reporter, chooses=True)
    if not settings.policy:
        _note_validation(settings, stages, policy)
    return _Incumbent(label, policy, evaluation)


def _note_validation(settings: LoopSettings, stages: Stages, policy: Path) -> None:
    """Write beside the loop's own policy that these states decide whether it is kept."""
    tasks = select_tasks(suite_of(settings.suite, settings.env_python), settings.tasks)
    add_validated(policy, settings.suite, [task.name for task in tasks], stages.validation_states)


def _iterate(
    settings: LoopSettings,
    stages: Stages,
    iteration: int,
    incumbent: _Incumbent,
    trainings: Trainings,
    reporter: Reporter,
    *,
    tolerate_losses: bool = False,
) -> tuple[_Incumbent | None, bool, str]:
    """One iteration: the candidate, whether the gate accepts it and why; None where there was nothing to learn."""
    folder = stages.folder(iteration)
    run_collect(stages.collect(iteration, incumbent.policy), reporter)
    run_score(stages.score(iteration), reporter)
    try:
        if not settings.train.unpaired:
            run_pair(stages.pair(iteration), reporter)
        trainings.train(stages.train(iteration, incumbent.policy), reporter)
    except NoPairsError as error:
        return None, False, error.message
    candidate = _Incumbent(f"iteration {iteration}", folder / "train" / "policy", folder / "evaluate")
    run_evaluate(stages.validate(candidate.policy, candidate.evaluation), reporter, chooses=True)
    _note_validation(settings, stages, candidate.policy)
    run_compare(stages.compare(incumbent.evaluation, candidate.evaluation, folder / "compare"), reporter)
    return candidate, *_gate(settings, incumbent, candidate, tolerate_losses)


def _gate(
    settings: LoopSettings, incumbent: _Incumbent, candidate: _Incumbent, tolerate_losses: bool
) -> tuple[bool, str]:
    """Whether the candidate goes on, and why in one sentence."""
    if not settings.gate:
        return True, "accepted: the gate is off"
    pairs = pair_results(read_results(incumbent.evaluation), read_results(candidate.evaluation)).pairs
    decision = gate_decision(
        pairs, alpha=settings.gate_alpha, margin=settings.gate_margin, tolerate_losses=tolerate_losses
    )
    return decision.accepted, decision.reason


def _headline(
    settings: LoopSettings, stages: Stages, first: _Incumbent, best: _Incumbent, reporter: Reporter
) -> Summary:
    """First policy against the best one of the validation states, on states that decided nothing."""
    before, after = settings.out / "test" / first.slug, settings.out / "test" / best.slug
    run_evaluate(stages.test(first.policy, before), reporter)
    run_evaluate(stages.test(best.policy, after), reporter)
    return run_compare(stages.compare(before, after, settings.out / "test" / f"compare-{after.name}"), reporter)


def _entry(policy: _Incumbent, root: Path, *, accepted: bool, verdict: str) -> dict[str, Any]:
    results = read_results(policy.evaluation)
    return {
        "label": policy.label,
        "policy": _relative(policy.policy, root),
        "evaluation": _relative(policy.evaluation, root),
        "success_rate": results.success_rate,
        "interval": list(results.interval),
        "accepted": accepted,
        "verdict": verdict,
    }


def _relative(path: Path, root: Path) -> str:
    """``path`` as seen from the run's folder where it lies inside, so that a run can be moved; else its address."""
    return str(path.relative_to(root)) if path.is_relative_to(root) else address_in_mirror(path) or str(path)
