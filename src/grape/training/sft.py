"""The verb ``sft``: supervised fine-tuning, next-action-token cross-entropy over demonstrations.

What is learned is each step's *label*: the expert's clean action, also where noise was added to what was executed. For
a new policy a label is spread over neighboring bins (half a bin wide by default), because the next bin is nearly as
right. A checkpoint learns the one token that its own action tokenizer gives, which for +1 is the last bin's.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from grape.core.errors import DataError
from grape.core.events import SILENT, Reporter
from grape.core.files import read_json_mapping
from grape.core.seeds import derive_rng
from grape.core.trajectories import EpisodeMeta
from grape.store import EpisodeSource
from grape.store.rlds.demonstrations import open_demonstrations
from grape.training.augmentation import augment
from grape.training.batches import BatchSampler, EpisodeShuffleSampler
from grape.training.dataset import StepDataset, check_single_actions, load_steps
from grape.training.distributed import ProcessGroup, join_process_group
from grape.training.image_cache import episodes_that_fit
from grape.training.initial_policy import (
    check_norm_key,
    check_proprio,
    fit_policy,
    key_to_open_with,
    new_policy,
)
from grape.training.loop import Gradient, TrainingRun, TrainLoop, deterministic
from grape.training.lora import computing_type, open_for_training, parameter_counts, prepare_parameters
from grape.training.plan import choose_micro_batch, plan_sft
from grape.training.settings import SftSettings, check_sft

if TYPE_CHECKING:
    from grape.policies.openvla import OpenVLAPolicy

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
    check_single_actions(stores)
    check_norm_key(settings, stores)
    reads_proprio = check_proprio(settings, stores)
    metas = [_selected(settings, store) for store in stores]
    settings = replace(settings, shuffle_episodes=_shuffled_together(settings, stores, metas, reporter))
    if settings.dry_run:
        return plan_sft(settings, stores, metas)
    processes = join_process_group(settings.device)
    shown = reporter if processes.is_main else SILENT
    with deterministic(settings.threads):
        summary = _train(settings, stores, metas, processes, shown, reads_proprio=reads_proprio)
    return {**summary, "policy": str(settings.out / "policy")}  # done.json names it as seen from its folder


def _train(
    requested: SftSettings,
    stores: Sequence[EpisodeSource],
    metas: Sequence[Sequence[EpisodeMeta]],
    processes: ProcessGroup,
    reporter: Reporter,
    *,
    reads_proprio: bool,
) -> Mapping[str, Any]:
    start = None
    if requested.policy is not None:
        key = key_to_open_with(requested.policy, requested, stores)
        start = open_for_training(requested.policy, requested, key, processes.device)
    identity = {
        "data": [store.digest() for store in stores],
        "policy_hash": start.spec.policy_hash if start else "",
    }
    run = TrainingRun("sft", requested, identity, processes)
    if run.done is not None:
        return run.done
    ids = [[meta.episode_id for meta in some] for some in metas]
    cache_bytes = requested.picture_cache_gb * 1e9
    scattered = not requested.shuffle_episodes
    steps = load_steps(stores, ids, reporter, cache_bytes, scattered=scattered, proprio=reads_proprio)
    if start is None:
        policy = new_policy(requested, stores, steps)
        policy.model.to(processes.device)
    else:
        policy = fit_policy(start, requested, stores, steps, reporter)
    base = prepare_parameters(policy, requested)
    count = parameter_counts(policy)
    settings = replace(requested, micro_batch=choose_micro_batch(requested.micro_batch, count["parameters"]))
    trainer = _Trainer(settings, policy, steps, processes)
    last = trainer.run(reporter)
    facts = {
        "episodes": len(steps.spans),
        "steps": len(steps),
        "held_out_episodes": len(steps.spans) - trainer.episodes,
        "updates": trainer.schedule.updates,
        **count,
        "loss": last["loss"],
        "token_accuracy": last["token_accuracy"],
        "metrics": last,
        "holdout": trainer.measure(trainer.held_rows) if len(trainer.held_rows) else None,
        "norm_key": policy.unnorm_key,
    }
    return run.finish(policy, base, [meta for some in metas for meta in some], facts)


class _Trainer:
    """Everything an update needs, from settings and data."""

    def __init__(
        self,
        settings: SftSettings,
        policy: "OpenVLAPolicy",
        steps: StepDataset,
        processes: ProcessGroup,
    ) -> None:
        if not np.isfinite(steps.labels_ND).all():
            bad = int(np.flatnonzero(~np.isfinite(steps.labels_ND).all(axis=1))[0])
            raise DataError(f"Episode {steps.episode_of(bad)} has labels that are not finite.", "Leave it out.")
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
        self.loop = TrainLoop(settings, policy.model, self.schedule.updates, processes)
        self.label_width = settings.soft_bins or 0.0
        self.bin_ids_K = torch.from_numpy(np.array(policy.action_token_ids))

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
                loss_B, right_B = self._losses(part, self.steps.images_NHWC[part])
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
        images = self._augmented(update, rows_B, first, len(every_B))
        noise_BP = self._proprio_noise(update, len(every_B), slice(first, stop))
        for parameter in self.loop.parameters:
            parameter.grad = None
        loss = right = 0.0
        nonfinite: set[str] = set()
        for start in range(0, len(rows_B), self.settings.micro_batch):
            part = slice(start, start + self.settings.micro_batch)
            loss_B, right_B = self._losses(
                rows_B[part],
                images[part],
                noise_BP=None if noise_BP is None else noise_BP[part],
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

    def _augmented(
        self, update: int, rows_B: npt.NDArray[np.int64], first: int, batch: int
    ) -> npt.NDArray[np.uint8] | list[npt.NDArray[np.uint8]]:
        """Images of this process's rows, changed at random at the size that the network reads."""
        settings = self.settings
        if not len(rows_B):
            return []
        images = self.steps.images_NHWC[rows_B]
        if settings.augment == "openvla":
            images = np.stack([self.policy.processor.resize(image) for image in images])
        rng = derive_rng(settings.seed, "augment", update)
        return augment(
            images, settings.augment, settings.augment_shift, settings.augment_brightness, rng, (first, batch)
        )

    def _proprio_noise(self, update: int, batch: int, own: slice) -> Tensor | None:
        """Noise of this process's robot states, in units of their deviations; None where none is added."""
        norm, share = self.policy.norm_proprio, self.settings.proprio_noise
        if norm is None or not share:
            return None
        noise_BP = derive_rng(self.settings.seed, "proprio noise", update).normal(0.0, share, (batch, norm.dim))
        return torch.from_numpy((noise_BP * norm.moves)[own].astype(np.float32))

    def _losses(
        self,
        rows_B: npt.NDArray[np.int64],
        images: npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]],
        *,
        noise_BP: Tensor | None = None,
        crop: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy and share of right tokens of each step, both float32 ``(B,)``, means over the D tokens."""
        policy, device = self.policy, self.policy.model.device
        instructions = [self.steps.instructions[row] for row in rows_B]
        inputs = policy.encode(images, instructions, self.steps.proprio_of(rows_B), crop=crop)
        if noise_BP is not None and inputs.proprio_BP is not None:
            inputs = replace(inputs, proprio_BP=inputs.proprio_BP + noise_BP)
        # Each label spread over the K action bins; what the network reads before the next token is what it should
        # have said: the likeliest bin.
        targets_BDK = torch.from_numpy(policy.bin_targets(self.steps.labels_ND[rows_B], self.label_width))
        tokens_BD = self.bin_ids_K[targets_BDK.argmax(dim=-1)].to(device)
        with torch.autocast(device.type, dtype=self.autocast, enabled=self.autocast is not None):
            logits_BDV = policy.model.action_logits(inputs, tokens_BD).float()
        lse_BD1 = logits_BDV.logsumexp(dim=-1, keepdim=True)
        logp_BDK = logits_BDV[..., self.bin_ids_K.to(device)] - lse_BD1
        loss_B = -(targets_BDK.to(device) * logp_BDK).sum(dim=-1).mean(dim=-1)
        right_B = (logits_BDV.detach().argmax(dim=-1) == tokens_BD).float().mean(dim=-1)
        return loss_B, right_B


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
) -> int:
    """How many episodes' steps are shuffled together where it was not given; a folder goes on as it began."""
    if settings.shuffle_episodes is not None:
        return settings.shuffle_episodes
    recorded = _recorded_setting(settings, "shuffle_episodes")
    if type(recorded) is int:
        return recorded
    shape = stores[0].decisions(metas[0][0].episode_id).image_shape
    lengths = [meta.steps for some in metas for meta in some]
    together = episodes_that_fit(lengths, shape, settings.picture_cache_gb * 1e9)
    if together:
        size = sum(lengths) * math.prod(shape) / 1e9
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
