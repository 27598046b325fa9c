"""The verb ``train``: trajectory-wise preference optimisation and its baselines.

Trajectory-wise preference optimisation (TPO, arXiv 2411.19309; not TRL's method of that abbreviation) compares whole
trajectories of one initial state. The gradient is exact and its memory does not grow with the trajectory
(:mod:`grape.training.gradients`); the reference costs no second model (:mod:`grape.training.reference`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from grape.core.errors import CompatibilityError, DataError
from grape.core.events import SILENT, Reporter
from grape.core.files import file_hash
from grape.core.preferences import PreferencePair
from grape.core.provenance import write_provenance
from grape.core.runs import open_run
from grape.policies.base import PolicySpec
from grape.preferences import read_pairs, recorded_store
from grape.store import EpisodeStore
from grape.training.adapters import adapter_home, add_adapters, open_for_training, parameter_counts, save_result
from grape.training.checkpoints import sweep
from grape.training.cost import FORWARD_BACKWARD, choose_gradient, choose_micro_batch, forward_flops, frames_of_epoch
from grape.training.gradients import GradientResult, one_pass_gradient, two_pass_gradient
from grape.training.losses import Loss, LossSettings, imitation_loss, preference_loss
from grape.training.reference import check_parity, recomputed_reference, recorded_reference
from grape.training.settings import TrainSettings, check_train
from grape.training.steps import StepTable, check_preprocessing, load_steps
from grape.training.units import Schedule, Unit, make_comparisons, make_units
from grape.training.updates import Gradient, Optimisation, UpdateLoop, deterministic, with_policy_path

if TYPE_CHECKING:
    from grape.policies.openvla import OpenVLAPolicy

__all__ = ["run_train"]


def run_train(settings: TrainSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Align a policy with preference pairs; the result is ``out/policy``.

    Returns:
        Summary: pairs, updates, frames, the last update's metrics, parity of the reference, hashes and paths. With
        ``dry_run``: the plan.

    Raises:
        SettingsError: A setting is out of range or names nothing.
        DataError: There are no pairs, or pairs or episodes are damaged or missing.
        CompatibilityError: The episodes were not recorded by this policy, or ``out`` belongs to another run.
        TrainingError: A loss, gradient or weight is not finite.
    """
    check_train(settings)
    pairs = read_pairs(settings.pairs)
    if not pairs:
        raise DataError(
            f"{settings.pairs} holds no pairs.",
            "Collect more samples from each initial state, or lower the margin of 'grape pair'.",
        )
    with deterministic(settings.threads):
        policy = open_for_training(settings.policy, settings.unnorm_key)
        store = EpisodeStore.open(recorded_store(settings.pairs))
        pairs = _usable(settings.method, pairs, store)
        spec = _check(settings, pairs, policy, store)
        asked, parameters = settings, parameter_counts(policy)["parameters"]
        settings = replace(asked, micro_batch=choose_micro_batch(asked.micro_batch, parameters))
        if settings.dry_run:
            return _plan(settings, pairs, policy, store)
        identity = {"policy_hash": spec.policy_hash, "pairs": file_hash(settings.pairs / "pairs.jsonl")}
        run = open_run(settings.out, "train", asked, identity)
        if run.done is not None:
            return with_policy_path(run.done, settings.out)
        sweep(settings.out)
        home = None
        if settings.lora_rank:
            home = adapter_home(policy, settings.policy, settings.out)
            add_adapters(policy, settings.lora_rank, settings.lora_alpha, settings.seed)
        steps = load_steps([store], [_episodes(settings.method, pairs)], reporter)
        trainer = _Trainer.prepare(settings, pairs, policy, steps)
        last = trainer.run(reporter)
        if not (settings.out / "policy").exists():
            save_result(policy, settings.out, home)
        write_provenance(settings.out / "policy", settings.policy, map(store.meta, _episodes(settings.method, pairs)))
        summary = {
            **_facts(settings, pairs, trainer.units, trainer.schedule),
            **parameter_counts(policy),
            "gradient": trainer.mode,
            "metrics": last,
            "parity": trainer.parity,
            "policy": "policy",
            "policy_hash": policy.spec.policy_hash,
            "start_policy_hash": spec.policy_hash,
        }
        run.finish(summary)
    return with_policy_path(summary, settings.out)


@dataclass
class _Trainer:
    """Everything an update needs."""

    settings: TrainSettings
    policy: "OpenVLAPolicy"
    steps: StepTable
    units: tuple[Unit, ...]
    schedule: Schedule
    loop: UpdateLoop
    loss: Loss
    mode: str
    reference_N: npt.NDArray[np.float64]
    parity: dict[str, Any] | None = None

    @classmethod
    def prepare(
        cls, settings: TrainSettings, pairs: Sequence[PreferencePair], policy: "OpenVLAPolicy", steps: StepTable
    ) -> "_Trainer":
        """Fill in what follows from settings and data."""
        units, schedule, per_side = _schedule(settings, pairs, steps.spans)
        optimisation = Optimisation(
            settings.lr, settings.schedule, settings.warmup, settings.weight_decay, settings.max_grad_norm
        )
        return cls(
            settings=settings,
            policy=policy,
            steps=steps,
            units=units,
            schedule=schedule,
            loop=UpdateLoop(
                settings.out,
                policy.model,
                optimisation,
                schedule.updates,
                settings.seed,
                settings.checkpoint_every,
                settings.keep_checkpoints,
            ),
            loss=_loss(settings, policy.norm.dim),
            mode=choose_gradient(settings.gradient, settings.lora_rank, settings.micro_batch, per_side),
            reference_N=np.zeros(len(steps)),
        )

    def run(self, reporter: Reporter) -> dict[str, float]:
        """Settle the reference, then run the updates."""
        self._settle_reference()
        return self.loop.run(
            self._gradient,
            reporter,
            f"train {self.settings.method}",
            blame=self._blame,
            describe=_note,
        )

    def _settle_reference(self) -> None:
        """Must come before the loop loads a checkpoint: the weights are still the starting policy's."""
        settings = self.settings
        if settings.method == "filtered-bc":
            return
        if settings.reference == "recomputed":
            path = settings.out / "reference.safetensors"
            self.reference_N = recomputed_reference(self.policy, self.steps, settings.micro_batch, path)
            return
        self.reference_N = recorded_reference(self.steps)
        self.parity = check_parity(
            self.policy,
            self.steps,
            settings.parity_steps,
            settings.parity_threshold,
            settings.seed,
            settings.micro_batch,
            settings.out / "parity.json",
        )

    def _gradient(self, update: int) -> Gradient:
        chosen = [self.units[item] for item in self.schedule.batch(update)]
        result, frames = self._compute(chosen)
        finite_P = result.sums.chosen_P.isfinite() & result.sums.rejected_P.isfinite()
        suspects = [unit.name for unit, finite in zip(chosen, finite_P.tolist(), strict=True) if not finite]
        return Gradient(result.metrics, frames, suspects)

    def _compute(self, units: Sequence[Unit]) -> tuple[GradientResult, int]:
        rows_F, comparisons = make_comparisons(units, self.reference_N)

        def logps(positions_B: Tensor) -> Tensor:
            return self.steps.logps(self.policy, rows_F[positions_B]).sum(dim=1)

        compute = one_pass_gradient if self.mode == "one-pass" else two_pass_gradient
        result = compute(logps, comparisons, self.loss, self.settings.micro_batch, self.loop.parameters)
        return result, comparisons.frame_count

    def _blame(self, update: int) -> list[str]:
        """Units of an update whose own gradient is not finite."""
        names = []
        for item in self.schedule.batch(update):
            self._compute([self.units[item]])
            gradients = [p.grad for p in self.loop.parameters if p.grad is not None]
            if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
                names.append(self.units[item].name)
        return names


def _check(
    settings: TrainSettings, pairs: Sequence[PreferencePair], policy: "OpenVLAPolicy", store: EpisodeStore
) -> PolicySpec:
    """Compare the pairs' episodes with the policy before any work; returns the policy's contract."""
    spec = policy.spec
    metas = [store.meta(episode_id) for episode_id in _episodes(settings.method, pairs)]
    check_preprocessing(policy, spec, metas, store.path)
    if settings.method == "filtered-bc" or settings.reference == "recomputed":
        return spec
    for meta in metas:
        if meta.policy_hash != spec.policy_hash:
            raise CompatibilityError(
                f"Episode {meta.episode_id} was recorded by another policy ({meta.policy_hash[:12]}) than "
                f"{settings.policy} ({spec.policy_hash[:12]}), so its log-probabilities are not the reference's.",
                "Give the policy that collected the episodes, or --reference recomputed to train another one on them.",
            )
    return spec


def _usable(method: str, pairs: tuple[PreferencePair, ...], store: EpisodeStore) -> tuple[PreferencePair, ...]:
    """All pairs; for cloning only those whose chosen side succeeded, since the better of two failures is a failure."""
    if method != "filtered-bc":
        return pairs
    kept = tuple(pair for pair in pairs if store.meta(pair.chosen).success)
    if not kept:
        raise DataError(
            "No chosen trajectory succeeded, so there is nothing to clone.",
            "Use --method tpo, which also learns from the better of two failures.",
        )
    return kept


def _episodes(method: str, pairs: Sequence[PreferencePair]) -> list[str]:
    rejected = set() if method == "filtered-bc" else {pair.rejected for pair in pairs}
    return sorted({pair.chosen for pair in pairs} | rejected)


def _loss(settings: TrainSettings, tokens_per_step: int) -> Loss:
    if settings.method == "filtered-bc":
        return lambda sums: imitation_loss(sums, tokens_per_step)
    chosen = LossSettings(
        loss_type=settings.loss_type,
        beta=settings.beta,
        length_normalised=settings.length_normalised,
        label_smoothing=settings.label_smoothing,
        nll_weight=settings.nll_weight,
        tokens_per_step=tokens_per_step,
    )
    return lambda sums: preference_loss(sums, chosen)


def _schedule(
    settings: TrainSettings, pairs: Sequence[PreferencePair], spans: Mapping[str, tuple[int, int]]
) -> tuple[tuple[Unit, ...], Schedule, float]:
    """Units, their order, and the mean number of steps of a side."""
    units, per_pair = make_units(settings.method, pairs, spans)
    per_update = max(1, round(settings.pairs_per_update * per_pair))
    schedule = Schedule.plan(len(units), per_update, settings.epochs, settings.max_updates, settings.seed, repeat=False)
    per_side = sum(unit.chosen[1] - unit.chosen[0] for unit in units) / len(units)
    return units, schedule, per_side


def _facts(
    settings: TrainSettings, pairs: Sequence[PreferencePair], units: Sequence[Unit], schedule: Schedule
) -> dict[str, Any]:
    frames = frames_of_epoch(schedule, units)
    return {
        "method": settings.method,
        "pairs": len(pairs),
        "episodes": len(_episodes(settings.method, pairs)),
        "frames_per_epoch": frames,
        "units_per_update": schedule.per_update,
        "updates": schedule.updates,
    }


def _plan(
    settings: TrainSettings, pairs: Sequence[PreferencePair], policy: "OpenVLAPolicy", store: EpisodeStore
) -> dict[str, Any]:
    """What a run would do, from the episodes' facts alone."""
    spans: dict[str, tuple[int, int]] = {}
    position = 0
    for episode_id in _episodes(settings.method, pairs):
        length = store.meta(episode_id).steps
        spans[episode_id] = (position, position + length)
        position += length
    units, schedule, per_side = _schedule(settings, pairs, spans)
    facts = _facts(settings, pairs, units, schedule)
    mode = choose_gradient(settings.gradient, settings.lora_rank, settings.micro_batch, per_side)
    forward = forward_flops(policy, store.meta(pairs[0].chosen).instruction)
    if settings.lora_rank:
        add_adapters(policy, settings.lora_rank, settings.lora_alpha, settings.seed)
    frames = facts["frames_per_epoch"] * schedule.updates / schedule.per_epoch
    passes = FORWARD_BACKWARD + (mode == "two-pass")
    return {
        "dry_run": True,
        **facts,
        **parameter_counts(policy),
        "steps": position,
        "gradient": mode,
        "tflop_forward_per_frame": forward / 1e12,
        "tflop": frames * forward * passes / 1e12,
        "out": str(settings.out),
    }


def _note(metrics: dict[str, float]) -> str:
    if "rewards/accuracies" not in metrics:
        return f"nll {metrics['loss/nll']:.3f}"
    return f"loss {metrics['loss']:.3f}  accuracy {metrics['rewards/accuracies']:.2f}"
