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

from grape.core.errors import DataError, SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.provenance import write_provenance
from grape.core.runs import open_run
from grape.core.seeds import derive_rng
from grape.core.trajectories import EpisodeMeta
from grape.policies.openvla import compute_norm_stats, create_nano
from grape.store import EpisodeStore
from grape.training.adapters import adapter_home, add_adapters, open_for_training, parameter_counts, save_result
from grape.training.augmentation import augment
from grape.training.checkpoints import sweep
from grape.training.cost import FORWARD_BACKWARD, choose_micro_batch, forward_flops
from grape.training.settings import SftSettings, check_sft
from grape.training.steps import StepTable, load_steps
from grape.training.units import Schedule
from grape.training.updates import Gradient, Optimisation, UpdateLoop, deterministic, with_policy_path

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
        DataError: A store is missing, empty or damaged, or its episodes do not fit the policy.
        CompatibilityError: ``out`` belongs to another run.
        TrainingError: A loss, gradient or weight is not finite.
    """
    check_sft(settings)
    if settings.lora_rank and settings.policy is None:
        raise SettingsError("--lora-rank needs --policy: a new policy has nothing to adapt.", "Leave --lora-rank out.")
    stores = [EpisodeStore.open(path) for path in settings.data]
    metas = [_selected(settings, store) for store in stores]
    if settings.dry_run:
        return _plan(settings, stores, metas)
    with deterministic(settings.threads):
        policy = None
        if settings.policy is not None:
            policy = open_for_training(settings.policy, settings.unnorm_key)
        identity = {
            "data": [store.digest() for store in stores],
            "policy_hash": policy.spec.policy_hash if policy else "",
        }
        run = open_run(settings.out, "sft", settings, identity)
        if run.done is not None:
            return with_policy_path(run.done, settings.out)
        sweep(settings.out)
        steps = load_steps(stores, [[meta.episode_id for meta in some] for some in metas], reporter)
        if policy is None:
            policy = _new_policy(settings, stores, steps)
        elif policy.norm.dim != steps.labels_ND.shape[1]:
            raise DataError(
                f"The demonstrations' actions have {steps.labels_ND.shape[1]} dimensions, the policy decides "
                f"{policy.norm.dim}.",
                "Use demonstrations of the same robot.",
            )
        home = None
        if settings.lora_rank and settings.policy is not None:
            home = adapter_home(policy, settings.policy, settings.out)
            add_adapters(policy, settings.lora_rank, settings.lora_alpha, settings.seed)
        count = parameter_counts(policy)
        chosen = replace(settings, micro_batch=choose_micro_batch(settings.micro_batch, count["parameters"]))
        trainer = _Trainer.prepare(chosen, policy, steps)
        last = trainer.run(reporter)
        if not (settings.out / "policy").exists():
            save_result(policy, settings.out, home)
        write_provenance(settings.out / "policy", settings.policy, [meta for some in metas for meta in some])
        summary = {
            "episodes": len(steps.spans),
            "steps": len(steps),
            "held_out_episodes": len(steps.spans) - trainer.episodes,
            "updates": trainer.schedule.updates,
            **count,
            "loss": last["loss"],
            "token_accuracy": last["token_accuracy"],
            "metrics": last,
            "holdout": trainer.measure(trainer.held_rows) if len(trainer.held_rows) else None,
            "policy": "policy",
            "policy_hash": policy.spec.policy_hash,
        }
        run.finish(summary)
    return with_policy_path(summary, settings.out)


@dataclass
class _Trainer:
    """Everything an update needs; ``targets_NDK`` spreads each label over the ``K`` action bins."""

    settings: SftSettings
    policy: "OpenVLAPolicy"
    steps: StepTable
    rows: npt.NDArray[np.int64]
    held_rows: npt.NDArray[np.int64]
    episodes: int
    schedule: Schedule
    loop: UpdateLoop
    tokens_ND: Tensor
    targets_NDK: Tensor
    bin_ids_K: Tensor

    @classmethod
    def prepare(cls, settings: SftSettings, policy: "OpenVLAPolicy", steps: StepTable) -> "_Trainer":
        """Fill in what follows from settings and data."""
        if not np.isfinite(steps.labels_ND).all():
            bad = int(np.flatnonzero(~np.isfinite(steps.labels_ND).all(axis=1))[0])
            raise DataError(f"Episode {steps.episode_of(bad)} has labels that are not finite.", "Leave it out.")
        names = sorted(steps.spans)
        held = min(round(settings.holdout * len(names)), len(names) - 1)
        order = derive_rng(settings.seed, "holdout").permutation(len(names))
        rows, held_rows = (
            np.array(sorted(row for i in part for row in range(*steps.spans[names[i]])), dtype=np.int64)
            for part in (order[held:], order[:held])
        )
        schedule = Schedule.plan(
            len(rows), settings.batch_size, settings.epochs, settings.max_updates, settings.seed, repeat=True
        )
        optimisation = Optimisation(
            settings.lr, settings.schedule, settings.warmup, settings.weight_decay, settings.max_grad_norm
        )
        targets_NDK = torch.from_numpy(policy.bin_targets(steps.labels_ND, settings.soft_bins))
        bin_ids_K = torch.from_numpy(np.array(policy.action_token_ids))
        return cls(
            settings=settings,
            policy=policy,
            steps=steps,
            rows=rows,
            held_rows=held_rows,
            episodes=len(names) - held,
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
            # What the network reads before the next token is what it should have said: the likeliest bin.
            tokens_ND=bin_ids_K[targets_NDK.argmax(dim=-1)],
            targets_NDK=targets_NDK,
            bin_ids_K=bin_ids_K,
        )

    def run(self, reporter: Reporter) -> dict[str, float]:
        """Run the updates."""
        return self.loop.run(self._gradient, reporter, "sft", describe=_note)

    def measure(self, rows: npt.NDArray[np.int64]) -> dict[str, float]:
        """Mean loss per token and share of most likely tokens that are right, without gradient or augmentation."""
        loss = right = 0.0
        with torch.no_grad():
            for start in range(0, len(rows), self.settings.micro_batch):
                part = rows[start : start + self.settings.micro_batch]
                loss_B, right_B = self._losses(part, self.steps.images_NHWC[part])
                loss += float(loss_B.double().sum())
                right += float(right_B.double().sum())
        return {"loss": loss / len(rows), "token_accuracy": right / len(rows)}

    def _gradient(self, update: int) -> Gradient:
        settings = self.settings
        metrics: dict[str, float] = {}
        if len(self.held_rows) and update % self.schedule.per_epoch == 0:
            metrics |= {f"holdout/{name}": value for name, value in self.measure(self.held_rows).items()}
        rows_B = self.rows[self.schedule.batch(update)]
        images = augment(
            self.steps.images_NHWC[rows_B],
            settings.augment,
            settings.augment_shift,
            settings.augment_brightness,
            derive_rng(settings.seed, "augment", update),
        )
        for parameter in self.loop.parameters:
            parameter.grad = None
        loss = right = 0.0
        suspects: set[str] = set()
        for start in range(0, len(rows_B), settings.micro_batch):
            part = slice(start, start + settings.micro_batch)
            loss_B, right_B = self._losses(rows_B[part], images[part])
            torch.autograd.backward(loss_B.sum() / len(rows_B))
            loss += float(loss_B.detach().double().sum())
            right += float(right_B.double().sum())
            bad = rows_B[part][~torch.isfinite(loss_B.detach()).numpy()]
            suspects |= {f"episode {self.steps.episode_of(int(row))}" for row in bad}
        metrics |= {"loss": loss / len(rows_B), "token_accuracy": right / len(rows_B)}
        return Gradient(metrics, len(rows_B), sorted(suspects))

    def _losses(self, rows_B: npt.NDArray[np.int64], images: npt.NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """Cross-entropy and share of right tokens of each step, both float32 ``(B,)``, means over the D tokens."""
        inputs = self.policy.encode(images, [self.steps.instructions[row] for row in rows_B])
        index = torch.from_numpy(rows_B)
        tokens_BD = self.tokens_ND[index]
        logits_BDV = self.policy.model.action_logits(inputs, tokens_BD).float()
        lse_BD1 = logits_BDV.logsumexp(dim=-1, keepdim=True)
        logp_BDK = logits_BDV[..., self.bin_ids_K] - lse_BD1
        loss_B = -(self.targets_NDK[index] * logp_BDK).sum(dim=-1).mean(dim=-1)
        right_B = (logits_BDV.detach().argmax(dim=-1) == tokens_BD).float().mean(dim=-1)
        return loss_B, right_B


def _selected(settings: SftSettings, store: EpisodeStore) -> list[EpisodeMeta]:
    """Facts of the episodes to learn from.

    Raises:
        DataError: There are none.
    """
    metas = store.metas()
    chosen = [meta for meta in metas if meta.success or not settings.successful_only]
    if not chosen:
        what = "no successful episode" if metas else "no episode"
        raise DataError(f"Store {store.path} holds {what}.", "Collect demonstrations with 'grape collect' first.")
    return chosen


def _new_policy(settings: SftSettings, stores: Sequence[EpisodeStore], steps: StepTable) -> "OpenVLAPolicy":
    """A policy with random weights that fits the demonstrations."""
    space = stores[0].contract.get("action_space") or {}
    dim = steps.labels_ND.shape[1]
    names = tuple(space.get("names") or (*(f"action_{i}" for i in range(dim - 1)), "gripper"))
    statistics = compute_norm_stats(steps.labels_ND, names, len(steps.spans))
    return create_nano(
        seed=settings.seed,
        norm_stats={stores[0].suite: statistics},
        gripper=settings.gripper or str(space.get("gripper", "")),
        instructions=tuple(sorted(set(steps.instructions))),
    )


def _plan(
    settings: SftSettings, stores: Sequence[EpisodeStore], metas: Sequence[Sequence[EpisodeMeta]]
) -> dict[str, Any]:
    """What a run would do, from the episodes' facts alone."""
    every = [meta for some in metas for meta in some]
    count = sum(meta.steps for meta in every)
    held = min(round(settings.holdout * len(every)), len(every) - 1)
    training = round(count * (1 - held / len(every)))
    schedule = Schedule.plan(
        training, settings.batch_size, settings.epochs, settings.max_updates, settings.seed, repeat=True
    )
    if settings.policy is not None:
        policy = open_for_training(settings.policy, settings.unnorm_key)
        if settings.lora_rank:
            add_adapters(policy, settings.lora_rank, settings.lora_alpha, settings.seed)
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
