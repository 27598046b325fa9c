"""Settings of ``grape sft`` and ``grape train``. No PyTorch here: ``--help`` must not need it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from grape.core.errors import SettingsError
from grape.core.settings import Range, check_ranges, setting, with_default
from grape.policies.opening import PolicySettings, PrecisionSettings
from grape.policies.registry import check_weights_here
from grape.training.methods import UNPAIRED, check_method
from grape.training.metrics_logger import TrackerName, check_trackers

__all__ = [
    "AdapterSettings",
    "LoggingSettings",
    "OptimizerSettings",
    "SftSettings",
    "TrainSettings",
    "TrainerSettings",
    "check_sft",
    "check_train",
]

_DATA, _LOSS, _OPTIMIZER = "Data", "Loss", "Optimizer"
_ADAPTERS, _LOGGING, _MEMORY = "Adapters", "Checkpoints and logging", "Memory and processes"
_SEVERAL = 2
_COUNT, _POSITIVE, _SHARE = Range(0), Range(1), Range(0, 1)


@dataclass(frozen=True)
class OptimizerSettings:
    """How parameters are updated.

    Attributes:
        epochs: How often everything is used.
        max_updates: Stop after this many optimizer steps; 0 means all that the epochs hold.
        lr: Peak learning rate of AdamW.
        schedule: Learning rate after the warm-up: constant, linear or cosine to 0.
        warmup: Share of all optimizer steps over which the learning rate rises from 0, in [0, 1].
        weight_decay: Decoupled weight decay of matrices; vectors (norms, biases) are not decayed.
        max_grad_norm: Gradients of a larger norm are scaled down to it; 0 switches clipping off.
        holdout: Share kept out of training to measure the loss on, in [0, 1).
        seed: Seed of the run.
        threads: Threads of PyTorch. Part of the result's identity, because sums depend on it.
    """

    epochs: int = setting(1, group=_OPTIMIZER, range=_POSITIVE, common=True)
    max_updates: int = setting(0, group=_OPTIMIZER, range=_COUNT, common=True)
    lr: float = setting(1e-3, group=_OPTIMIZER, range=Range(0, 1), common=True)
    schedule: Literal["constant", "linear", "cosine"] = setting("constant", group=_OPTIMIZER)
    warmup: float = setting(0.0, group=_OPTIMIZER, range=_SHARE)
    weight_decay: float = setting(0.0, group=_OPTIMIZER, range=_COUNT)
    max_grad_norm: float = setting(1.0, group=_OPTIMIZER, range=_COUNT)
    holdout: float = setting(0.0, group=_DATA, range=Range(0, 1, open_high=True))
    seed: int = setting(0, group=_OPTIMIZER, common=True)
    threads: int = setting(1, group=_MEMORY, range=_POSITIVE)


@dataclass(frozen=True)
class AdapterSettings:
    """Low-rank adapters (LoRA, arXiv 2106.09685).

    Attributes:
        lora_rank: Rank of low-rank adapters; 0 trains all parameters.
        lora_alpha: Scale of the adapters is lora_alpha / lora_rank; 0 means twice the rank.
        lora_targets: Which linear layers get adapters: those of the language model's blocks, those and the projector,
            or all including the vision towers' (whose features then change and cannot be kept).
    """

    lora_rank: int = setting(0, group=_ADAPTERS, range=_COUNT, common=True)
    lora_alpha: float = setting(0.0, group=_ADAPTERS, range=_COUNT)
    lora_targets: Literal["language", "language+projector", "all"] = setting("language+projector", group=_ADAPTERS)


@dataclass(frozen=True)
class LoggingSettings:
    """What a run writes while it goes on.

    Attributes:
        out: Folder to write; policy/ inside is the result, running again with the same settings resumes.
        checkpoint_every: Optimizer steps between checkpoints; 0 keeps only the last state.
        keep_checkpoints: How many of the latest checkpoints stay.
        report_to: Experiment trackers that get the metrics as well; metrics.jsonl is always written.
        dry_run: Print the plan and touch nothing.
    """

    out: Path = setting(identity=False, kw_only=True, common=True)
    checkpoint_every: int = setting(25, group=_LOGGING, range=_COUNT, identity=False)
    keep_checkpoints: int = setting(2, group=_LOGGING, range=_POSITIVE, identity=False)
    report_to: tuple[TrackerName, ...] = setting((), group=_LOGGING, identity=False)
    dry_run: bool = setting(False, identity=False, common=True)


@dataclass(frozen=True)
class TrainerSettings(OptimizerSettings, AdapterSettings, LoggingSettings, PrecisionSettings):
    """What both trainers share.

    Attributes:
        micro_batch: Decisions that go through the network at once: the knob for memory. 0 chooses by the network's
            size: 256 for nano, 8 for 7 B.
        activation_checkpointing: Keep one hidden state a block and compute the rest again in the backward pass: about
            a third more time, several times less memory a decision.
        picture_cache_gb: Memory for decoded images, GB.
        gpus: GPUs of this machine that train together, a process on each; with --device cpu as many without GPUs.
        device: Where to compute: auto takes a GPU if there is one, else cpu; or cuda, cuda:1.
        dtype: What frozen weights are held and computed in: auto is bfloat16 on a GPU and float32 on a CPU. Adapters
            are float32 always; without adapters all weights are float32, and bfloat16 is used for computing only.
        load_in_4bit: Hold the frozen language model in 4 bits (QLoRA, arXiv 2305.14314); needs bitsandbytes and a GPU.
    """

    micro_batch: int = setting(0, group=_MEMORY, range=_COUNT, common=True)
    activation_checkpointing: bool = setting(False, group=_MEMORY, identity=False)
    picture_cache_gb: float = setting(4.0, group=_MEMORY, range=_COUNT, identity=False)
    gpus: int = setting(1, group=_MEMORY, range=_POSITIVE, identity=False, common=True)


@dataclass(frozen=True)
class TrainSettings(TrainerSettings, PolicySettings):
    """Align a policy with preferences, of pairs by trajectory-wise preference optimization (TPO, arXiv 2411.19309).

    Attributes:
        pairs: Folder made by grape pair, or hf://NAMESPACE/NAME; for all methods but kto and rloo.
        scores: Folder made by grape score, in place of --pairs; for kto and rloo, which need no pairs.
        replay: More folders of that kind, of episodes that earlier policies collected: they train as well, each against
            the recorded log-probabilities of the policy that collected it.
        policy: Checkpoint folder of the policy that collected the episodes; training starts from it.
        method: tpo compares whole trajectories; step-dpo compares single steps of the two sides by their index (the
            paper's step-wise baseline); filtered-bc (filtered behavior cloning, a baseline) only imitates chosen sides
            that succeeded. kto takes single episodes, desirable or not (arXiv 2402.01306); rloo weighs every
            episode of an initial state by its reward minus the mean of the others (arXiv 2402.14740).
        reward: For kto and rloo: gcpg is R_GCPG, by which failures differ, too; success is the outcome alone. auto is
            success for kto and gcpg for rloo. With gcpg, kto calls desirable what lies above the mean of the others.
        desirable_weight: For kto: total weight of the desirable episodes, that of the undesirable ones being 1,
            however many there are of each.
        clip_range: For rloo: an episode falls silent once its tokens have become this much likelier or less likely
            (share, geometric mean) in the direction it pulls, in (0, 1). It bounds no single update, whose size is
            that of --lr.
        loss_type: sigmoid (the published loss), hinge (SLiC) or ipo.
        beta: Strength of the pull to the reference policy, per nat of log-ratio; smaller moves further.
        window: Compare windows of this many steps instead of whole trajectories, as the first public implementation
            did (8); 0 compares whole trajectories. For method tpo only.
        stride: Steps between the starts of windows.
        length_normalised: Replace beta by beta * 8 / T of each side, so that long trajectories do not saturate the
            loss; the scale is that of windows of 8 steps.
        label_smoothing: Assumed share of pairs labeled the wrong way round, in [0, 0.5); sigmoid only.
        preference_weight: Factor on the preference term; 0 leaves the anchor alone, for controlled comparison.
        anchor: Strength of the anchor, which imitates chosen sides that succeeded: at the start it pulls so many times
            as hard on the chosen side as the preference does, whatever beta and the length are. 0 is the published
            loss, which lowers the likelihood of both sides on small models.
        imitate: Which chosen sides the anchor and filtered-bc imitate: those that succeeded, or all, the better of two
            failures, too. Where almost nothing succeeds, the best failures by their costs are all there is to imitate.
        nll_weight: Weight of the anchor in the form of release 0.1, instead of --anchor: the chosen side's negative
            log-likelihood, mean per token.
        chosen_floor: Penalty for chosen sides that become less likely than under the reference (DPOP's lambda, arXiv
            2402.13228), against both sides' likelihood falling; 0 switches it off.
        lr: Peak learning rate of AdamW. For rloo start lower, e.g. 1e-4, with a policy whose actions are still
            uncertain: one update can go far beyond --clip-range, and little pulls back what overshot.
        epochs: How often every pair or episode is used.
        pairs_per_update: Pairs whose loss one update averages. step-dpo and filtered-bc use as many steps as these
            pairs hold on average, kto and rloo twice as many episodes.
        gradient: one-pass keeps three extra buffers of the trainable parameters' size and computes every frame once;
            two-pass sums log-probabilities first and mixes frames of several pairs in one micro-batch; auto picks
            one-pass for adapters whose micro-batches lie within one trajectory. Both are exact.
        reference: recorded takes the reference's log-probabilities from the episodes (the policy that collected them
            is the reference) and checks a sample of them; recomputed evaluates the starting policy on all frames.
        parity_steps: Steps whose recorded log-probabilities are checked before the first update.
        parity_threshold: Mean absolute difference per token, in nats, above which the check fails. Not given:
            0.002 in float32 on a CPU, else 0.05.
        holdout: Share of the initial states whose pairs or episodes are kept out of training to measure the loss on,
            in [0, 1).
        evaluate_every: Updates between two evaluations (the loss on the pairs held out, or the mean loss of the
            updates since the last one); the state with the lowest is kept as checkpoints/best. 0 means
            once an epoch.
        result: Which state becomes policy/: the last one or the best.
        sharding: none holds all parameters in every process; full spreads parameters, gradients and optimizer state
            over the processes (FSDP), for training all parameters of a large model.
        feature_cache_gb: Memory for features of frozen vision towers, GB; 0 computes them anew in every epoch.
        norm_stats: JSON file of statistics by data set (dataset_statistics.json), for pairs whose actions were put
            into tokens by them. Those that --unnorm-key names, or the only ones, are added to the checkpoint and used;
            a checkpoint that holds that name keeps and uses its own.
        memory_gb: With --dry-run: memory of the device, GB, for which to find the largest micro-batch.
        center_crop: Crop 90 % of the image's area from the middle before the policy sees it, as it was at collection:
            yes, no, or auto for what the checkpoint says (nothing means no).
    """

    policy: Path = setting(group=_DATA, identity=False, common=True, kw_only=True)
    pairs: Path | None = setting(None, group=_DATA, identity=False, common=True)
    scores: Path | None = setting(None, group=_DATA, identity=False, common=True)
    replay: tuple[Path, ...] = setting((), group=_DATA, identity=False)
    method: Literal["tpo", "step-dpo", "filtered-bc", "kto", "rloo"] = setting("tpo", group=_LOSS, common=True)
    reward: Literal["auto", "gcpg", "success"] = setting("auto", group=_LOSS, identity="unless default")
    desirable_weight: float = setting(1.0, group=_LOSS, range=Range(0, open_low=True), identity="unless default")
    clip_range: float = setting(
        0.2, group=_LOSS, range=Range(0, 1, open_low=True, open_high=True), identity="unless default"
    )
    loss_type: Literal["sigmoid", "hinge", "ipo"] = setting("sigmoid", group=_LOSS)
    beta: float = setting(0.1, group=_LOSS, range=_COUNT, common=True)
    window: int = setting(0, group=_LOSS, range=_COUNT)
    stride: int = setting(1, group=_LOSS, range=_POSITIVE)
    length_normalised: bool = setting(False, group=_LOSS)
    label_smoothing: float = setting(0.0, group=_LOSS, range=Range(0, 0.5))
    preference_weight: float = setting(1.0, group=_LOSS, range=_COUNT, identity="unless default")
    anchor: float = setting(5.0, group=_LOSS, range=_COUNT, common=True, identity="unless default")
    imitate: Literal["successes", "chosen"] = setting("successes", group=_LOSS, identity="unless default")
    nll_weight: float | None = setting(None, group=_LOSS, range=_COUNT)
    chosen_floor: float = setting(0.0, group=_LOSS, range=_COUNT, common=True, identity="unless default")
    lr: float = with_default(OptimizerSettings, "lr", 3e-4)
    epochs: int = with_default(OptimizerSettings, "epochs", 2)
    pairs_per_update: int = setting(8, group=_OPTIMIZER, range=_POSITIVE, common=True)
    gradient: Literal["auto", "one-pass", "two-pass"] = setting("auto", group=_MEMORY)
    reference: Literal["recorded", "recomputed"] = setting("recorded", group=_LOSS)
    parity_steps: int = setting(64, group=_LOSS, range=_POSITIVE)
    parity_threshold: float | None = setting(None, group=_LOSS, range=_COUNT, default_identity=0.05)
    evaluate_every: int = setting(0, group=_LOGGING, range=_COUNT)
    result: Literal["last", "best"] = setting("last", group=_LOGGING)
    sharding: Literal["none", "full"] = setting("none", group=_MEMORY, identity=False)
    feature_cache_gb: float = setting(4.0, group=_MEMORY, range=_COUNT, identity=False)
    norm_stats: Path | None = setting(None, group=_DATA, identity=False)
    memory_gb: float = setting(0.0, group=_MEMORY, range=_COUNT, identity=False)

    @property
    def is_anchored(self) -> bool:
        """Whether the loss has an anchor beside its preference term."""
        without = self.method in ("filtered-bc", "rloo")
        return not without and bool(self.anchor if self.nll_weight is None else self.nll_weight)

    @property
    def unpaired(self) -> bool:
        """Whether the method learns from single episodes."""
        return self.method in UNPAIRED

    @property
    def data(self) -> tuple[Path, ...]:
        """Folders of pairs, or of scores where the method is unpaired: the policy's own first, then those replayed."""
        own = self.scores if self.unpaired else self.pairs
        return (*(() if own is None else (own,)), *self.replay)


@dataclass(frozen=True)
class SftSettings(TrainerSettings):
    """Fine-tune a policy on demonstrations by action-token cross-entropy, or train a nano policy from nothing.

    A policy that decides in chunks learns all tokens of a chunk that lie within the episode (K * D; no stop token),
    from any control step that has an image.

    Attributes:
        data: Episode stores, folders made by grape collect, folders of LeRobotDatasets (with options as
            lerobot+cameras=front,success=yes:FOLDER), or RLDS data sets as rlds:/path/name (split train; with a rule
            of your choice as rlds+RULE:/path/name). Episodes of all operators are used.
        policy: Checkpoint folder to continue; without it a new nano policy is made.
        preset: Train --policy as OpenVLA-OFT, under these conventions: openvla-oft, simplevla-rl or rlinf. Not given:
            as the checkpoint says.
        chunk: Actions a decision. Of a new policy: 1 makes the nano policy, more OpenVLA-OFT's kind of it. Of a
            checkpoint: what it does not say itself; 0 takes what it says.
        cameras: Names of the cameras that the policy reads, main camera first, e.g. agentview,wrist. Several make a
            new policy of OpenVLA-OFT's kind. Not given: the main camera, or what the checkpoint says.
        convention: Single conventions that differ from the preset's or a new policy's, e.g. attention=causal.
        proprio: Let a new policy read the robot's state (proprioception) as one token behind the images, normalized by
            the demonstrations' statistics. A checkpoint goes on as it was made.
        proprio_noise: Noise on that state in training, as a share of its standard deviation in the demonstrations; 0
            switches it off.
        successful_only: Use only episodes that ended with success.
        epochs: How often every step is used.
        max_updates: Stop after this many updates, repeating epochs if needed; 0 means what the epochs hold.
        batch_size: Decisions an update averages.
        soft_bins: Width of the Gaussian that spreads a label over neighboring bins, in bins; 0 means one-hot labels.
            Not given: 0.5 for a new policy, one-hot for a checkpoint, whose tokens are those it was trained with.
        augment: Recipe that changes images at random. openvla is OpenVLA's: a crop of 90 % of the area, brightness,
            contrast, saturation, hue; the policy is then evaluated with the crop in the middle. none leaves images
            to the two settings that follow, which suit small images.
        augment_shift: Images are moved by up to this many pixels each way, edges repeated; 0 switches it off.
        augment_brightness: Images are brightened or darkened by up to this share; 0 switches it off.
        shuffle_episodes: How many episodes' steps are shuffled together; 0 shuffles all steps. Not given: 0 where the
            decoded images fit into --picture-cache-gb, otherwise as many episodes as do, so that each is decoded once
            an epoch.
        holdout: Share of episodes kept out of training to measure the loss on, in [0, 1).
        gripper: What the last action dimension means, for a new policy; empty takes it from the store.
        norm_key: Name for the normalization statistics of the demonstrations; empty takes the name of their suite or
            RLDS data set. A checkpoint that holds statistics of that name keeps and uses them; otherwise the
            demonstrations' own are computed, added and used from then on.
        unnorm_key: Use these statistics of the checkpoint instead, whatever the demonstrations are called.
    """

    data: tuple[Path, ...] = setting(group=_DATA, identity=False, common=True)
    policy: Path | None = setting(None, group=_DATA, identity=False, common=True)
    preset: str | None = setting(None, group=_DATA, common=True, default_identity="nano")
    chunk: int = setting(0, group=_DATA, range=_COUNT, common=True, identity="unless default")
    cameras: str = setting("", group=_DATA, identity="unless default")
    convention: tuple[str, ...] = setting((), group=_DATA, identity="unless default")
    proprio: bool = setting(False, group=_DATA, common=True, identity="unless default")
    proprio_noise: float = setting(0.05, group=_DATA, range=_COUNT, identity="unless default")
    successful_only: bool = setting(False, group=_DATA)
    epochs: int = with_default(OptimizerSettings, "epochs", 20)
    batch_size: int = setting(64, group=_OPTIMIZER, range=_POSITIVE, common=True)
    schedule: Literal["constant", "linear", "cosine"] = with_default(OptimizerSettings, "schedule", "cosine")
    warmup: float = with_default(OptimizerSettings, "warmup", 0.05)
    weight_decay: float = with_default(OptimizerSettings, "weight_decay", 0.01)
    soft_bins: float | None = setting(None, group=_LOSS, range=_COUNT, default_identity=0.5)
    augment: Literal["none", "openvla"] = setting("none", group=_DATA, common=True)
    augment_shift: int = setting(0, group=_DATA, range=_COUNT)
    augment_brightness: float = setting(0.0, group=_DATA, range=_SHARE)
    shuffle_episodes: int | None = setting(None, group=_DATA, range=_COUNT, default_identity=0)
    gripper: str = setting("", group=_DATA)
    checkpoint_every: int = with_default(LoggingSettings, "checkpoint_every", 200)
    norm_key: str = setting("", group=_DATA)
    unnorm_key: str = setting("", group=_DATA)

    @property
    def camera_names(self) -> tuple[str, ...]:
        """The cameras asked for; empty where none are."""
        return tuple(name.strip() for name in self.cameras.split(",")) if self.cameras.strip() else ()


def check_train(settings: TrainSettings) -> None:
    """Refuse values that make no sense, before anything is read.

    Raises:
        SettingsError: A number is out of range, a tracker's package is missing, the policy is on a server, or two
            settings contradict each other.
    """
    check_weights_here(settings.policy)
    check_ranges(settings)
    check_trackers(settings.report_to)
    if settings.label_smoothing and settings.loss_type != "sigmoid":
        raise SettingsError(
            f"--label-smoothing has no meaning for --loss-type {settings.loss_type}.", "Leave it out, or use sigmoid."
        )
    check_method(settings)
    if settings.beta == 0:
        raise SettingsError("--beta is 0: the preference loss would be constant.", "Give a positive value, e.g. 0.1.")
    if settings.nll_weight is not None and settings.anchor != TrainSettings.anchor:
        raise SettingsError(
            "--anchor and --nll-weight are two forms of the same term.",
            "Give --anchor; --nll-weight is for going on with runs of release 0.1.",
        )
    if settings.load_in_4bit and not settings.lora_rank:
        raise SettingsError("A model held in 4 bits cannot be trained as a whole.", "Give --lora-rank, e.g. 32.")
    if settings.attention == "flash-attention-2" and not settings.lora_rank:
        raise SettingsError(
            "Flash attention computes in bfloat16 only, and weights that train are float32.",
            "Give --lora-rank, or use --attention sdpa, which is fast on a GPU, too.",
        )
    if settings.sharding == "full" and settings.gradient == "one-pass":
        raise SettingsError(
            "--sharding full needs the two-pass gradient: all processes must call the network equally often.",
            "Leave --gradient out.",
        )
    if settings.sharding == "full" and settings.lora_rank:
        raise SettingsError(
            "--sharding full is for training all parameters; adapters are small enough for every process.",
            "Leave out --lora-rank or --sharding.",
        )
    if settings.stride != 1 and not settings.window:
        raise SettingsError(
            "--stride has no meaning without --window: whole trajectories are compared.", "Give --window, e.g. 8."
        )


def check_sft(settings: SftSettings) -> None:
    """Refuse values that make no sense, before anything is read.

    Raises:
        SettingsError: A number is out of range, no data is given, a tracker's package is missing, the policy is on a
            server, or two settings contradict each other.
    """
    if settings.policy is not None:
        check_weights_here(settings.policy)
    check_ranges(settings)
    check_trackers(settings.report_to)
    if settings.augment != "none" and (settings.augment_shift or settings.augment_brightness):
        raise SettingsError(
            f"--augment {settings.augment} moves and brightens images itself.",
            "Leave --augment-shift and --augment-brightness out, or use --augment none.",
        )
    if not settings.data:
        raise SettingsError("--data names no store.", "Give one or more folders made by 'grape collect'.")
    names = settings.camera_names
    if len(set(names)) != len(names) or not all(names):
        raise SettingsError(f"--cameras {settings.cameras}: each camera needs a name of its own.", "agentview,wrist")
    if settings.preset not in (None, "nano") and settings.policy is None:
        raise SettingsError(
            f"--preset {settings.preset} is for --policy: a new policy has conventions of its own.",
            "Leave --preset out; --chunk 8 alone makes a new policy that decides in chunks.",
        )
    if settings.convention and settings.policy is None and settings.chunk < _SEVERAL and len(names) < _SEVERAL:
        raise SettingsError("--convention is for policies that decide in chunks.", "Give --chunk, e.g. 8.")
    if settings.lora_rank and settings.policy is None:
        raise SettingsError("--lora-rank needs --policy: a new policy has nothing to adapt.", "Leave --lora-rank out.")
    if settings.load_in_4bit and not settings.lora_rank:
        raise SettingsError("A model held in 4 bits cannot be trained as a whole.", "Give --lora-rank, e.g. 32.")
