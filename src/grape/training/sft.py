"""The verb ``sft``: supervised fine-tuning, next-action-token cross-entropy over demonstrations.

What is learnt is each step's *label*: the expert's clean action, also where noise was added to what was executed. A
label is spread over neighbouring bins (half a bin wide by default), because the next bin is nearly as right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from grape.core.errors import DataError
from grape.core.events import SILENT, Reporter
from grape.core.runs import write_provenance
from grape.core.seeds import derive_rng
from grape.core.trajectories import EpisodeMeta
from grape.policies.openvla import compute_norm_stats, create_nano
from grape.store import EpisodeSource
from grape.training.augmentation import augment
from grape.training.batches import BatchSampler
from grape.training.cost import FORWARD_BACKWARD, choose_micro_batch, forward_flops
from grape.training.dataset import StepDataset, load_steps
from grape.training.distributed import ProcessGroup, join_process_group
from grape.training.initial_policy import (
    check_norm_key,
    computing_type,
    fit_policy,
    new_policy,
    open_demonstrations,
    open_to_continue,
    read_to_continue,
)
from grape.training.loop import Gradient, TrainLoop, deterministic, with_policy_path
from grape.training.lora import adapter_home, add_adapters, parameter_counts, save_result
from grape.training.main_process import MainProcessRun
from grape.training.sampler import EpisodeShuffleSampler
from grape.training.settings import SftSettings, check_sft

if TYPE_CHECKING:
    from grape.policies.openvla import OpenVLAPolicy

__all__ = ["run_sft"]


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
    stores = [open_demonstrations(path) for path in settings.data]
    check_norm_key(settings, stores)
    metas = [_selected(settings, store) for store in stores]
    if settings.dry_run:
        return _plan(settings, stores, metas)
    processes = join_process_group(settings.device)
    with deterministic(settings.threads):
        summary = _train(settings, stores, metas, processes, reporter if processes.is_main else SILENT)
    return with_policy_path(summary, settings.out)


def _train(
    asked: SftSettings,
    stores: Sequence[EpisodeSource],
    metas: Sequence[Sequence[EpisodeMeta]],
    processes: ProcessGroup,
    reporter: Reporter,
) -> Mapping[str, Any]:
    policy, autocast = (None, None) if asked.policy is None else open_to_continue(asked, stores, processes.device)
    identity = {
        "data": [store.digest() for store in stores],
        "policy_hash": policy.spec.policy_hash if policy else "",
    }
    run = MainProcessRun("sft", asked, identity)
    done = processes.run_on_main(run.take)
    if done is not None:
        return done
    ids = [[meta.episode_id for meta in some] for some in metas]
    steps = load_steps(stores, ids, reporter, asked.picture_cache_gb * 1e9)
    home = None
    if policy is None:
        policy = new_policy(asked, stores, steps)
        policy.model.to(processes.device)
        autocast = computing_type(asked.dtype, processes.device)
    else:
        begun = policy
        policy = fit_policy(begun, asked, stores, steps, reporter)
    if asked.lora_rank and asked.policy is not None:
        start = asked.policy
        home = processes.run_on_main(lambda: adapter_home(begun, start, asked.out))
        add_adapters(policy, asked.lora_rank, asked.lora_alpha, asked.seed, asked.lora_targets)
    if asked.activation_checkpointing:
        policy.model.checkpoint_activations()
    count = parameter_counts(policy)
    settings = replace(asked, micro_batch=choose_micro_batch(asked.micro_batch, count["parameters"]))
    trainer = _Trainer.prepare(settings, policy, steps, processes, autocast)
    last = trainer.run(reporter)
    holdout = trainer.measure(trainer.held_rows) if len(trainer.held_rows) else None

    def finish() -> Mapping[str, Any]:
        if not (settings.out / "policy").exists():
            save_result(policy, settings.out, home)
        write_provenance(settings.out / "policy", settings.policy, [meta for some in metas for meta in some])
        return run.finish(
            {
                "episodes": len(steps.spans),
                "steps": len(steps),
                "held_out_episodes": len(steps.spans) - trainer.episodes,
                "updates": trainer.schedule.updates,
                **count,
                "loss": last["loss"],
                "token_accuracy": last["token_accuracy"],
                "metrics": last,
                "holdout": holdout,
                "norm_key": policy.unnorm_key,
                "policy": "policy",
                "policy_hash": policy.spec.policy_hash,
            }
        )

    return processes.run_on_main(finish)


@dataclass
class _Trainer:
    """Everything an update needs."""

    settings: SftSettings
    policy: "OpenVLAPolicy"
    steps: StepDataset
    processes: ProcessGroup
    autocast: torch.dtype | None
    held_rows: npt.NDArray[np.int64]
    episodes: int
    schedule: BatchSampler
    order: EpisodeShuffleSampler
    loop: TrainLoop
    bin_ids_K: Tensor

    @classmethod
    def prepare(
        cls,
        settings: SftSettings,
        policy: "OpenVLAPolicy",
        steps: StepDataset,
        processes: ProcessGroup,
        autocast: torch.dtype | None,
    ) -> "_Trainer":
        """Fill in what follows from settings and data."""
        if not np.isfinite(steps.labels_ND).all():
            bad = int(np.flatnonzero(~np.isfinite(steps.labels_ND).all(axis=1))[0])
            raise DataError(f"Episode {steps.episode_of(bad)} has labels that are not finite.", "Leave it out.")
        names = sorted(steps.spans)
        held = min(round(settings.holdout * len(names)), len(names) - 1)
        order = derive_rng(settings.seed, "holdout").permutation(len(names))
        used, kept_out = ([steps.spans[names[i]] for i in part] for part in (order[held:], order[:held]))
        schedule = BatchSampler.plan(
            sum(stop - start for start, stop in used),
            settings.batch_size,
            settings.epochs,
            settings.max_updates,
            settings.seed,
            repeat=True,
        )
        return cls(
            settings=settings,
            policy=policy,
            steps=steps,
            processes=processes,
            autocast=autocast,
            held_rows=np.array(sorted(row for span in kept_out for row in range(*span)), dtype=np.int64),
            episodes=len(used),
            schedule=schedule,
            order=EpisodeShuffleSampler(used, schedule, settings.shuffle_episodes),
            loop=TrainLoop(settings, policy.model, schedule.updates, processes=processes),
            bin_ids_K=torch.from_numpy(np.array(policy.action_token_ids)),
        )

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
        for parameter in self.loop.parameters:
            parameter.grad = None
        loss = right = 0.0
        nonfinite: set[str] = set()
        for start in range(0, len(rows_B), self.settings.micro_batch):
            part = slice(start, start + self.settings.micro_batch)
            loss_B, right_B = self._losses(rows_B[part], images[part], crop=self.settings.augment != "openvla")
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

    def _losses(
        self,
        rows_B: npt.NDArray[np.int64],
        images: npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]],
        *,
        crop: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy and share of right tokens of each step, both float32 ``(B,)``, means over the D tokens."""
        policy, device = self.policy, self.policy.model.device
        inputs = policy.encode(images, [self.steps.instructions[row] for row in rows_B], crop=crop)
        # Each label spread over the K action bins; what the network reads before the next token is what it should
        # have said: the likeliest bin.
        targets_BDK = torch.from_numpy(policy.bin_targets(self.steps.labels_ND[rows_B], self.settings.soft_bins))
        tokens_BD = self.bin_ids_K[targets_BDK.argmax(dim=-1)].to(device)
        with torch.autocast(device.type, dtype=self.autocast, enabled=self.autocast is not None):
            logits_BDV = policy.model.action_logits(inputs, tokens_BD).float()
        lse_BD1 = logits_BDV.logsumexp(dim=-1, keepdim=True)
        logp_BDK = logits_BDV[..., self.bin_ids_K.to(device)] - lse_BD1
        loss_B = -(targets_BDK.to(device) * logp_BDK).sum(dim=-1).mean(dim=-1)
        right_B = (logits_BDV.detach().argmax(dim=-1) == tokens_BD).float().mean(dim=-1)
        return loss_B, right_B


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


def _plan(
    settings: SftSettings, stores: Sequence[EpisodeSource], metas: Sequence[Sequence[EpisodeMeta]]
) -> dict[str, Any]:
    """What a run would do, from the episodes' facts alone."""
    every = [meta for some in metas for meta in some]
    count = sum(meta.steps for meta in every)
    held = min(round(settings.holdout * len(every)), len(every) - 1)
    training = round(count * (1 - held / len(every)))
    schedule = BatchSampler.plan(
        training, settings.batch_size, settings.epochs, settings.max_updates, settings.seed, repeat=True
    )
    if settings.policy is not None:
        policy = read_to_continue(settings, stores)
        if settings.lora_rank:
            add_adapters(policy, settings.lora_rank, settings.lora_alpha, settings.seed, settings.lora_targets)
    else:
        labels = stores[0].read(metas[0][0].episode_id, frames=False).labels
        dim = labels.shape[1]
        statistics = compute_norm_stats(labels, [f"action_{i}" for i in range(dim)])
        instructions = tuple(sorted({meta.instruction for meta in every}))
        policy = create_nano(seed=settings.seed, norm_stats=statistics, gripper="", instructions=instructions)
    forward = forward_flops(policy, every[0].instruction)
    frames = schedule.updates * settings.batch_size
    return {
        "dry_run": True,
        "episodes": len(every),
        "held_out_episodes": held,
        "steps": count,
        "updates": schedule.updates,
        **parameter_counts(policy),
        "tflop_forward_per_frame": forward / 1e12,
        "tflop": FORWARD_BACKWARD * frames * forward / 1e12,
        "out": str(settings.out),
    }


def _note(metrics: dict[str, float]) -> str:
    return f"loss {metrics['loss']:.3f}  accuracy {metrics['token_accuracy']:.2f}"
