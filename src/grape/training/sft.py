"""The verb ``sft``: supervised fine-tuning, action-token cross-entropy over demonstrations.

What is learned is the *label* of each control step: the expert's clean action, also where noise was added to what was
executed. A policy that decides in chunks learns the labels from a decision's first control step on; those behind the
episode's end do not count. For a new policy a label is spread over neighboring bins (half a bin wide by default),
because the next bin is nearly as right. A checkpoint learns the one token that its own action tokenizer gives, which
for +1 is the last bin's.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from grape.core.errors import DataError
from grape.core.events import SILENT, Reporter
from grape.core.files import read_json_mapping
from grape.core.seeds import derive_rng
from grape.core.trajectories import EpisodeMeta, Observation
from grape.policies.base import ImitationPolicy
from grape.store import EpisodeSource
from grape.store.demonstrations import open_demonstrations
from grape.training.augmentation import augment, augment_observations
from grape.training.batches import BatchSampler, EpisodeShuffleSampler
from grape.training.dataset import StepDataset, load_steps
from grape.training.distributed import ProcessGroup, join_process_group
from grape.training.image_cache import episodes_that_fit
from grape.training.initial_policy import (
    check_inputs,
    check_norm_key,
    fit_policy,
    new_policy,
    norm_name,
    open_start,
    preview_policy,
    read_start,
)
from grape.training.loop import Gradient, TrainingRun, TrainLoop, deterministic
from grape.training.lora import computing_type, parameter_counts, prepare_parameters
from grape.training.plan import choose_micro_batch, plan_sft
from grape.training.settings import SftSettings, check_sft

__all__ = ["run_sft"]

_NEW_POLICY_WIDTH = 0.5
"""Standard deviation of a label of a new policy, in bins."""


def run_sft(settings: SftSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Train a policy on demonstrations; the result is ``out/policy``.

    Returns:
        Summary: episodes, steps, updates, the last update's metrics, the loss on held-out episodes, hashes and paths.
        With ``dry_run``: the plan.

    Raises:
        SettingsError: A setting is out of range or names nothing.
        DataError: A store or RLDS data set is missing, empty or damaged, or its episodes do not fit the policy.
        CompatibilityError: ``out`` belongs to another run, or the gripper's convention is not the policy's.
        TrainingError: A loss, gradient or weight is not finite.
    """
    check_sft(settings)
    settings = replace(settings, soft_bins=_label_width(settings, reporter))
    stores = [open_demonstrations(path) for path in settings.data]
    check_norm_key(settings, stores)
    unread = read_start(settings, stores)
    cameras = 1
    if settings.policy is None or unread is not None:
        cameras = len(check_inputs(settings, stores, None if unread is None else unread.spec).cameras)
    metas = [_selected(settings, store) for store in stores]
    if settings.policy is None and settings.convention:
        preview_policy(settings, stores, metas)  # refuses what is unknown
    settings = replace(settings, shuffle_episodes=_shuffled_together(settings, stores, metas, reporter, cameras))
    if settings.dry_run:
        return plan_sft(settings, stores, metas, unread)
    processes = join_process_group(settings.device)
    shown = reporter if processes.is_main else SILENT
    with deterministic(settings.threads):
        summary = _train(settings, stores, metas, processes, shown)
    return {**summary, "policy": str(settings.out / "policy")}  # done.json names it as seen from its folder


def _train(
    requested: SftSettings,
    stores: Sequence[EpisodeSource],
    metas: Sequence[Sequence[EpisodeMeta]],
    processes: ProcessGroup,
    reporter: Reporter,
) -> Mapping[str, Any]:
    start = open_start(requested, stores, processes.device)
    spec = None if start is None else start.spec
    inputs = check_inputs(requested, stores, spec)
    identity = {
        "data": [store.digest() for store in stores],
        "policy_hash": spec.policy_hash if spec else "",
    }
    run = TrainingRun("sft", requested, identity, processes)
    if run.done is not None:
        return run.done
    steps = load_steps(
        stores,
        [[meta.episode_id for meta in some] for some in metas],
        reporter,
        requested.picture_cache_gb * 1e9,
        scattered=not requested.shuffle_episodes,
        proprio=inputs.proprio,
        cameras=inputs.cameras[1:],
        chunk=inputs.chunk,
    )
    if start is None or spec is None:
        policy = new_policy(requested, stores, steps)
        policy.module.to(processes.device)
    else:
        policy = fit_policy(start, spec, requested, stores, steps, reporter)
    base = prepare_parameters(policy, requested)
    count = parameter_counts(policy)
    settings = replace(requested, micro_batch=choose_micro_batch(requested.micro_batch, count["parameters"]))
    trainer = _Trainer(settings, policy, steps, processes)
    last = trainer.run(reporter)
    control_steps = steps.axis.steps
    facts = {
        "episodes": len(steps.spans),
        "steps": control_steps,
        **({} if len(steps) == control_steps else {"decisions": len(steps)}),
        "held_out_episodes": len(steps.spans) - trainer.episodes,
        "updates": trainer.schedule.updates,
        **count,
        "loss": last["loss"],
        "token_accuracy": last["token_accuracy"],
        "metrics": last,
        "holdout": trainer.measure(trainer.held_rows) if len(trainer.held_rows) else None,
        "norm_key": norm_name(requested, stores, spec),
    }
    return run.finish(policy, base, [meta for some in metas for meta in some], facts)


class _Trainer:
    """Everything an update needs, from settings and data."""

    def __init__(
        self,
        settings: SftSettings,
        policy: ImitationPolicy,
        steps: StepDataset,
        processes: ProcessGroup,
    ) -> None:
        if steps.unlabeled:
            name = steps.episode_id(steps.unlabeled[0])
            raise DataError(f"Episode {name} has labels that are not finite.", "Leave it out.")
        names = sorted(steps.spans)
        held = min(round(settings.holdout * len(names)), len(names) - 1)
        order = derive_rng(settings.seed, "holdout").permutation(len(names))
        used, kept_out = ([steps.spans[names[i]] for i in part] for part in (order[held:], order[:held]))
        count = sum(stop - start for start, stop in used)
        self.settings = settings
        self.policy = policy
        self.steps = steps
        self.processes = processes
        self.autocast = computing_type(settings, processes.device)
        self.held_rows = np.array(sorted(row for span in kept_out for row in range(*span)), dtype=np.int64)
        self.episodes = len(used)
        self.schedule = BatchSampler.plan(
            count, settings.batch_size, settings.epochs, settings.max_updates, settings.seed, repeat=True
        )
        self.order = EpisodeShuffleSampler(used, self.schedule, settings.shuffle_episodes or 0)
        self.loop = TrainLoop(settings, policy.module, self.schedule.updates, processes)
        self.label_width = settings.soft_bins or 0.0
        self.proprio_std = None
        if settings.proprio_noise and steps.proprio_NP is not None:
            self.proprio_std = steps.proprio_NP[:].std(axis=0, dtype=np.float64)

    def run(self, reporter: Reporter) -> dict[str, float]:
        """Run the updates."""
        return self.loop.run(self._gradient, reporter, "sft", describe=_note)

    def measure(self, rows: npt.NDArray[np.int64]) -> dict[str, float]:
        """Mean loss per token and share of most likely tokens that are right, without gradient or augmentation.

        All processes must call.
        """
        loss = right = 0.0
        first, stop = self.processes.span(len(rows))
        with torch.no_grad():
            for start in range(first, stop, self.settings.micro_batch):
                part = rows[start : min(start + self.settings.micro_batch, stop)]
                loss_B, right_B = self._losses(part, self.steps.observations(part))
                loss += float(loss_B.double().sum())
                right += float(right_B.double().sum())
        return self.processes.add_metrics({"loss": loss / len(rows), "token_accuracy": right / len(rows)})

    def _gradient(self, update: int) -> Gradient:
        metrics: dict[str, float] = {}
        if len(self.held_rows) and update % self.schedule.per_epoch == 0:
            metrics |= {f"holdout/{name}": value for name, value in self.measure(self.held_rows).items()}
        every_B = self.order.batch(update)
        first, stop = self.processes.span(len(every_B))
        rows_B = every_B[first:stop]
        observations = self._augmented(update, rows_B, first, len(every_B))
        for parameter in self.loop.parameters:
            parameter.grad = None
        loss = right = 0.0
        nonfinite: set[str] = set()
        for start in range(0, len(rows_B), self.settings.micro_batch):
            part = slice(start, start + self.settings.micro_batch)
            loss_B, right_B = self._losses(
                rows_B[part],
                observations[part],
                crop=self.settings.augment != "openvla",
            )
            torch.autograd.backward(loss_B.sum() / len(every_B))
            loss += float(loss_B.detach().double().sum())
            right += float(right_B.double().sum())
            bad = rows_B[part][~torch.isfinite(loss_B.detach()).cpu().numpy()]
            nonfinite |= {f"episode {self.steps.episode_of(int(row))}" for row in bad}
        self.processes.add_gradients(self.loop.parameters)
        own = {"loss": loss / len(every_B), "token_accuracy": right / len(every_B)}
        metrics |= self.processes.add_metrics(own)
        everyone = self.processes.gather(sorted(nonfinite))
        return Gradient(metrics, len(every_B), sorted({name for names in everyone for name in names}))

    def _augmented(self, update: int, rows_B: npt.NDArray[np.int64], first: int, batch: int) -> list[Observation]:
        """Observations of this process's rows, changed at random: images, and noise on the robot's state.

        Args:
            update: Number of the update, which the random numbers depend on.
            rows_B: Which rows.
            first: Place of the first of them in the whole batch.
            batch: Size of the whole batch.
        """
        settings, observations = self.settings, self.steps.observations(rows_B)

        def change(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
            if settings.augment == "openvla":
                images = np.stack([self.policy.resized(image) for image in images])
            rng, part = derive_rng(settings.seed, "augment", update), (first, batch)
            return augment(images, settings.augment, settings.augment_shift, settings.augment_brightness, rng, part)

        if observations and (settings.augment != "none" or settings.augment_shift or settings.augment_brightness):
            observations = augment_observations(observations, change)
        if self.proprio_std is not None:
            noise_rng = derive_rng(settings.seed, "proprio noise", update)
            noise_BP = noise_rng.normal(0.0, settings.proprio_noise, (batch, len(self.proprio_std))) * self.proprio_std
            observations = [
                replace(observation, proprio=(observation.proprio + noise).astype(np.float32))
                for observation, noise in zip(observations, noise_BP[first:], strict=False)
            ]
        return observations

    def _losses(
        self, rows_B: npt.NDArray[np.int64], observations: Sequence[Observation], *, crop: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy and share of right tokens of each decision, both float32 ``(B,)``, means over its tokens."""
        policy, device = self.policy, next(self.policy.module.parameters()).device
        inputs = policy.encode(observations) if crop else policy.encode(observations, crop=False)
        labels_BKD, inside_BK = self.steps.chunk_labels(rows_B)
        with torch.autocast(device.type, dtype=self.autocast, enabled=self.autocast is not None):
            return policy.imitation_losses(inputs, labels_BKD, inside_BK, self.label_width)


def _label_width(settings: SftSettings, reporter: Reporter) -> float:
    """Width of a label in bins where none was given; an older folder goes on with the width it began with."""
    if settings.soft_bins is not None or settings.policy is None:
        return _NEW_POLICY_WIDTH if settings.soft_bins is None else settings.soft_bins
    if _recorded_setting(settings, "soft_bins") == _NEW_POLICY_WIDTH:  # release 0.1's default for checkpoints, too
        reporter.info(f"{settings.out} goes on with labels spread over {_NEW_POLICY_WIDTH} bins, as it began.")
        return _NEW_POLICY_WIDTH
    return 0.0


def _shuffled_together(
    settings: SftSettings,
    stores: Sequence[EpisodeSource],
    metas: Sequence[Sequence[EpisodeMeta]],
    reporter: Reporter,
    cameras: int,
) -> int:
    """How many episodes' steps are shuffled together where it was not given; a folder goes on as it began."""
    if settings.shuffle_episodes is not None:
        return settings.shuffle_episodes
    recorded = _recorded_setting(settings, "shuffle_episodes")
    if type(recorded) is int:
        return recorded
    shape = stores[0].decisions(metas[0][0].episode_id).image_shape
    lengths = [meta.steps for some in metas for meta in some]  # images, or more than there are
    together = episodes_that_fit(lengths, shape, settings.picture_cache_gb * 1e9 / cameras)
    if together:
        size = cameras * sum(lengths) * math.prod(shape) / 1e9
        reporter.info(
            f"Decoded, the images take {size:.3g} GB, more than --picture-cache-gb {settings.picture_cache_gb:g}: "
            f"steps are shuffled within groups of {together} episodes."
        )
    return together


def _recorded_setting(settings: SftSettings, name: str) -> Any:
    """What the run in the output folder was begun with; None where there is none."""
    marker = settings.out / "run.json"
    if not marker.exists():
        return None
    recorded = read_json_mapping(marker, hint="Choose another --out.", within=settings.out).get("settings")
    return recorded.get(name) if isinstance(recorded, dict) else None


def _selected(settings: SftSettings, store: EpisodeSource) -> list[EpisodeMeta]:
    """Facts of the episodes to learn from.

    Raises:
        DataError: There are none.
    """
    metas = store.metas()
    chosen = [meta for meta in metas if meta.success or not settings.successful_only]
    if not chosen:
        what = "no episode that is known to have succeeded" if metas else "no episode"
        hint = "Collect demonstrations with 'grape collect' first."
        if any(meta.success is None for meta in metas):
            hint = "Nobody knows whether its episodes succeeded: leave out --successful-only to learn from them."
        raise DataError(f"{store.path} holds {what}.", hint)
    return chosen


def _note(metrics: dict[str, float]) -> str:
    return f"loss {metrics['loss']:.3f}  accuracy {metrics['token_accuracy']:.2f}"
