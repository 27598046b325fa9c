"""The verb ``train``: trajectory-wise preference optimization and its baselines.

Trajectory-wise preference optimization (TPO, arXiv 2411.19309; not TRL's method of that abbreviation) compares whole
trajectories of one initial state. The gradient is exact and its memory does not grow with the trajectory
(:mod:`grape.training.gradients`); the reference costs no second model (:mod:`grape.training.logprobs`).
"""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grape.core.events import SILENT, Reporter
from grape.core.runs import recorded_inputs
from grape.policies.base import TrainablePolicy
from grape.policies.registry import read_policy
from grape.training.batches import StepValues, collate
from grape.training.decision_axis import Segments
from grape.training.displacement import displacement_alarm
from grape.training.distributed import (
    ProcessGroup,
    ReducedOnce,
    copy_whole,
    is_sharded,
    join_process_group,
    local_part,
    shard_fully,
)
from grape.training.gradients import (
    GradientResult,
    frame_logps,
    micro_batches,
    one_pass_gradient,
    two_pass_gradient,
)
from grape.training.items import ComparisonItem
from grape.training.logprobs import (
    StepLogprobs,
    check_parity,
    parity_alarm,
    recomputed_reference,
    recorded_reference,
)
from grape.training.loop import Gradient, PeriodicEvaluation, TrainingRun, TrainLoop, deterministic
from grape.training.lora import computing_type, open_for_training, parameter_counts, prepare_parameters
from grape.training.losses import LossTerms, TrajectorySums
from grape.training.objectives import Objective
from grape.training.plan import (
    choose_micro_batch,
    gradient_mode,
    plan_schedule,
    plan_training,
    schedule_facts,
    split_samples,
    starting_options,
)
from grape.training.settings import TrainSettings, check_train
from grape.training.sources import TrainingData, read_data

__all__ = ["run_train"]


def run_train(settings: TrainSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Align a policy with preference pairs or scored episodes; the result is ``out/policy``.

    Returns:
        Summary: pairs or episodes, updates, frames, the last update's metrics, ``alarm`` (a warning of likelihood
        displacement, or empty), parity of the reference, hashes and paths. With ``dry_run``: the plan.

    Raises:
        SettingsError: A setting is out of range or names nothing.
        DataError: There is nothing to learn from, or pairs, scores or episodes are damaged or missing.
        CompatibilityError: The episodes were not recorded by this policy, or ``out`` belongs to another run.
        TrainingError: A loss, gradient or weight is not finite.
    """
    check_train(settings)
    data = read_data(settings, reporter)
    if settings.dry_run:
        return plan_training(settings, data)
    weightless = read_policy(settings.policy, starting_options(settings))
    if weightless is not None:  # what does not fit is told before weights are read
        data.check_policy(weightless)
    processes = join_process_group(settings.device)
    with deterministic(settings.threads):
        summary = _train(settings, data, processes, reporter if processes.is_main else SILENT)
    return {**summary, "policy": str(settings.out / "policy")}  # done.json names it as seen from its folder


def _train(
    requested: TrainSettings, data: TrainingData, processes: ProcessGroup, reporter: Reporter
) -> Mapping[str, Any]:
    policy, autocast = _open(requested, processes.device), computing_type(requested, processes.device)
    spec = data.check_policy(policy)
    data.check_references(requested, spec)
    parameters = parameter_counts(policy)["parameters"]
    settings = replace(requested, micro_batch=choose_micro_batch(requested.micro_batch, parameters))
    batches = processes.run_on_main(lambda: _batches_of(settings.out))
    identity = {
        "policy_hash": spec.policy_hash,
        **data.inputs,
        "computation": spec.computation if autocast is None else f"{spec.computation}, computing in {autocast}",
        **batches,
    }
    run = TrainingRun("train", requested, identity, processes)
    if run.done is not None:
        return run.done
    if not batches:
        anchor = ", and the anchor imitates chosen sides that failed, too" if settings.is_anchored else ""
        reporter.warn(
            f"{settings.out} was begun by release 0.1 and goes on as it began: the last update of an epoch weighs what "
            f"it holds more{anchor}."
        )
    base = prepare_parameters(policy, settings)
    counts = parameter_counts(policy)
    if settings.sharding == "full" and processes.size > 1:
        shard_fully(policy.module, autocast or torch.float32)
        autocast = None
    scattered = settings.method in ("step-dpo", "filtered-bc") or settings.window > 0  # single decisions or windows
    steps = data.load(reporter, settings.picture_cache_gb * 1e9, spec, scattered=scattered)
    metas = data.metas()
    every = not batches or settings.imitate == "chosen"
    anchored = [name for name, meta in zip(data.episodes, metas, strict=True) if every or meta.success is True]
    objective = Objective(settings, spec.action_dim, processes)
    logps = StepLogprobs(policy, steps, settings.micro_batch, settings.feature_cache_gb * 1e9, autocast)
    trainer = _Trainer(settings, data, policy, logps, objective, frozenset(anchored), even=bool(batches))
    last = trainer.run(reporter)
    if settings.result == "best":
        trainer.loop.take_best()
    facts = {
        **schedule_facts(settings, data, trainer.items, trainer.schedule, trainer.axis),
        **counts,
        "gradient": trainer.mode,
        "metrics": last,
        "alarm": trainer.loop.alarm,
        "parity": trainer.parity,
    }
    trained = _unsharded(policy, settings, processes)
    return run.finish(trained, base, metas, facts, start_policy_hash=spec.policy_hash)


def _open(settings: TrainSettings, device: str) -> TrainablePolicy:
    return open_for_training(settings.policy, settings, starting_options(settings), device)


def _unsharded(policy: TrainablePolicy, settings: TrainSettings, processes: ProcessGroup) -> TrainablePolicy:
    """The policy with whole parameters in the process that writes; all processes must call."""
    if not is_sharded(policy.module):
        return policy
    merged = _open(settings, "cpu") if processes.is_main else None
    copy_whole(policy.module, merged.module if merged is not None else None)
    return merged or policy


class _Trainer:
    """Everything an update needs, from settings and data."""

    def __init__(
        self,
        settings: TrainSettings,
        data: TrainingData,
        policy: TrainablePolicy,
        logps: StepLogprobs,
        objective: Objective,
        succeeded: Container[str],
        *,
        even: bool,
    ) -> None:
        training, held = split_samples(settings, data.samples)
        self.settings = settings
        self.data = data
        self.processes = objective.processes
        self.policy = policy
        self.logps = logps
        self.steps = logps.steps
        self.axis = axis = self.steps.axis
        spans = self.steps.step_spans
        self.items, self.schedule, per_side = plan_schedule(settings, training, spans, axis, succeeded, even=even)
        self.held_items = plan_schedule(settings, held, spans, axis, succeeded)[0] if held else ()
        self.loop = TrainLoop(settings, policy.module, self.schedule.updates, self.processes)
        self.objective = objective
        self.mode = gradient_mode(settings, per_side)
        self.reference_T: StepValues = np.zeros(0)
        self.parity: dict[str, Any] | None = None

    def run(self, reporter: Reporter) -> dict[str, float]:
        """Settle the reference, then run the updates."""
        self._settle_reference()
        return self.loop.run(
            self._gradient,
            reporter,
            f"train {self.settings.method}",
            name_nonfinite=self._name_nonfinite,
            describe=_note,
            alarm=partial(
                displacement_alarm,
                method=self.settings.method,
                chosen_floor=self.settings.chosen_floor,
                length_normalised=self.settings.length_normalised,
            ),
            evaluation=PeriodicEvaluation(
                self.settings.evaluate_every or self.schedule.per_epoch, self.measure if self.held_items else None
            ),
        )

    def _settle_reference(self) -> None:
        """Must come before the loop loads a checkpoint: the weights are still the starting policy's."""
        settings = self.settings
        if settings.method == "filtered-bc":
            return
        if settings.reference == "recomputed":
            path = settings.out / "reference.safetensors"
            self.reference_T = recomputed_reference(self.logps, settings.micro_batch, path, self.processes)
            return
        self.reference_T = recorded_reference(self.steps)
        self.parity = check_parity(
            self.logps,
            self.steps,
            settings.parity_steps,
            parity_alarm(settings.parity_threshold, self.policy.module),
            settings.seed,
            settings.micro_batch,
            settings.out / "parity.json",
            self.processes,
            self.data.own_spans(self.steps),
        )

    def measure(self) -> dict[str, float]:
        """Loss and metrics on the pairs held out, under names that begin with ``eval/``."""
        items, share = self._share(self.held_items)
        segments, comparisons = collate(items, self.reference_T, self.axis)
        batch = self.settings.micro_batch
        logp_F = frame_logps(self._frames(segments), len(segments), batch, self._rounds(len(segments)))
        metrics = self.objective.loss(share)(comparisons.sums(logp_F))[1]
        total = self.processes.add_metrics({name: share * value for name, value in metrics.items()})
        return {f"eval/{name}": value for name, value in self.objective.finish(total).items()}

    def _gradient(self, update: int) -> Gradient:
        batch = [self.items[number] for number in self.schedule.batch(update)]
        result, frames, items = self._compute(batch, self.schedule.weight(update))
        finite_P = result.sums.chosen_P.isfinite() & result.sums.rejected_P.isfinite()
        nonfinite = [item.name for item, finite in zip(items, finite_P.tolist(), strict=True) if not finite]
        metrics = self.objective.finish(self.processes.add_metrics(result.metrics))
        if update == 0 and self.parity is not None:
            metrics["parity/mean_abs"] = self.parity["mean_abs"]
        everyone = self.processes.gather((frames, nonfinite))
        nonfinite = [name for _, names in everyone for name in names]
        return Gradient(metrics, sum(count for count, _ in everyone), nonfinite, result.term_norms)

    def _compute(
        self, batch: Sequence[ComparisonItem], update_weight: float = 1.0
    ) -> tuple[GradientResult, int, list[ComparisonItem]]:
        """Gradient of an update, summed over the processes; metrics, frames and items are this process's part."""
        items, share = self._share(batch)
        segments, comparisons = collate(items, self.reference_T, self.axis)
        sharded = is_sharded(self.policy.module)
        # FSDP averages gradients over processes; what is wanted is their sum.
        weight = update_weight * share * (self.processes.size if sharded else 1)
        loss_of_part = self.objective.loss(share)

        def loss(sums: TrajectorySums) -> tuple[LossTerms, dict[str, float]]:
            terms, metrics = loss_of_part(sums)
            weighted = {name: term * weight for name, term in terms.items()}
            return weighted, {name: share * number for name, number in metrics.items()}

        frames: Callable[[Tensor], Tensor] = self._frames(segments)
        rounds = self._rounds(comparisons.frame_count)
        reduce: Callable[[], None] = partial(self.processes.add_gradients, self.loop.parameters)
        if sharded:  # FSDP itself adds up over the processes, in the last backward pass
            frames = once = ReducedOnce(frames, self.policy.module, rounds)
            reduce = once.check
        common = (frames, comparisons, loss, self.settings.micro_batch, self.loop.parameters)
        if self.mode == "one-pass":
            result = one_pass_gradient(*common, reduce=reduce)
        else:
            # Between its backward passes FSDP holds one gradient: of all terms together.
            apart = self.settings.is_anchored and not sharded
            result = two_pass_gradient(*common, rounds, apart=apart, reduce=reduce)
        return result, comparisons.frame_count if share else 0, items

    def _share(self, batch: Sequence[ComparisonItem]) -> tuple[list[ComparisonItem], float]:
        """This process's items of an update, and their share of all; one that weighs nothing if there are too few."""
        items = [batch[number] for number in self.processes.share([item.steps for item in batch])]
        return (items, len(items) / len(batch)) if items else ([batch[0]], 0.0)

    def _rounds(self, frames: int) -> int:
        """Micro-batches to go through at least: sharded parameters are gathered by all processes together."""
        if not is_sharded(self.policy.module):
            return 0
        return max(self.processes.gather(micro_batches(frames, self.settings.micro_batch)))

    def _frames(self, segments: Segments) -> Callable[[Tensor], Tensor]:
        """Log-probability of an update's frames by position; the sum over tokens is float32, the rest float64."""
        return lambda positions_B: self.logps.sums(segments[positions_B]).cpu()

    def _name_nonfinite(self, update: int) -> list[str]:
        """Items of an update whose own gradient is not finite."""
        names = []
        for number in self.schedule.batch(update):
            self._compute([self.items[number]])
            gradients = [local_part(p.grad) for p in self.loop.parameters if p.grad is not None]
            finite = all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
            if not all(self.processes.gather(finite)):
                names.append(self.items[number].name)
        return names


def _batches_of(out: Path) -> dict[str, str]:
    """How updates are cut, as the inputs of the run in ``out``, or of a new one; empty for a run of release 0.1."""
    inputs = recorded_inputs(out, "train")
    return {} if inputs is not None and "batches" not in inputs else {"batches": "even"}


def _note(metrics: dict[str, float]) -> str:
    if "rewards/accuracies" in metrics:
        return f"loss {metrics['loss']:.3f}  accuracy {metrics['rewards/accuracies']:.2f}"
    return f"loss {metrics['loss']:.3f}" if "chosen_share" in metrics else f"nll {metrics['loss/nll']:.3f}"
