"""What ``grape sft`` and ``grape train`` can be told. No PyTorch here: ``--help`` must not need it."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from grape.core.errors import SettingsError
from grape.training.trackers import TrackerName, check_trackers

__all__ = ["SftSettings", "TrainSettings", "check_sft", "check_train"]


@dataclass(frozen=True)
class TrainSettings:
    """Align a policy with preference pairs by trajectory-wise preference optimisation (arXiv 2411.19309).

    Attributes:
        pairs: Folder made by grape pair.
        policy: Checkpoint folder of the policy that collected the pairs' episodes; training starts from it.
        out: Folder to write; policy/ inside is the result, running again with the same settings resumes.
        method: tpo compares whole trajectories; step-dpo compares single steps of the two sides by their index (the
            paper's step-wise baseline); filtered-bc only imitates chosen sides that succeeded
            (cloning baseline).
        loss_type: sigmoid (the published loss), hinge (SLiC) or ipo.
        beta: Strength of the pull to the reference policy, per nat of log-ratio; smaller moves further.
        window: Compare windows of this many steps instead of whole trajectories, as the first public implementation
            did (8); 0 compares whole trajectories. For method tpo only.
        stride: Steps between the beginnings of windows.
        length_normalised: Replace beta by beta * 8 / T of each side, so that long trajectories do not saturate the
            loss; the scale is that of windows of 8 steps.
        label_smoothing: Assumed share of pairs labelled the wrong way round, in [0, 0.5); sigmoid only.
        nll_weight: Weight of the anchor: the chosen side's negative log-likelihood, mean per token. 0 is the published
            loss, which lowers the likelihood of both sides on small models.
        lr: Peak learning rate of AdamW.
        schedule: Learning rate after the warm-up: constant, linear or cosine to 0.
        warmup: Share of all updates over which the learning rate rises from 0, in [0, 1].
        weight_decay: Decoupled weight decay.
        max_grad_norm: Gradients of a larger norm are scaled down to it; 0 switches clipping off.
        epochs: How often every pair is used.
        max_updates: Stop after this many updates; 0 means all that the epochs hold.
        pairs_per_update: Pairs whose loss one update averages. step-dpo and filtered-bc use as many steps as these
            pairs hold on average.
        micro_batch: Frames that go through the network at once: the knob for memory. 0 chooses by the network's size:
            256 for nano, 8 for 7 B.
        lora_rank: Rank of low-rank adapters; 0 trains all parameters.
        lora_alpha: Scale of the adapters is lora_alpha / lora_rank; 0 means twice the rank.
        lora_targets: Which linear layers get adapters: those of the language model's blocks, those and the projector,
            or all including the vision towers' (whose features then change and cannot be kept).
        gradient: one-pass keeps two extra buffers of the trainable parameters' size and computes every frame once;
            two-pass sums log-probabilities first and mixes frames of several pairs in one micro-batch; auto picks
            one-pass for adapters whose micro-batches lie within one trajectory. Both are exact.
        reference: recorded takes the reference's log-probabilities from the episodes (the policy that collected them
            is the reference) and checks a sample of them; recomputed evaluates the starting policy on all frames.
        parity_steps: Steps whose recorded log-probabilities are checked before the first update.
        parity_threshold: Mean absolute difference per token, in nats, above which the check fails.
        holdout: Share of the initial states whose pairs are kept out of training to measure the loss on, in [0, 1).
        evaluate_every: Updates between two looks at how training goes (the loss on the pairs held out, or the mean
            loss of the updates since the last look); the state with the lowest is kept as checkpoints/best. 0 means
            once an epoch.
        result: Which state becomes policy/: the last one or the best.
        checkpoint_every: Updates between checkpoints; 0 keeps only the last state.
        keep_checkpoints: How many of the latest checkpoints stay.
        device: Where to compute: auto takes a GPU if there is one, else cpu; or cuda, cuda:1. With several processes
            (accelerate launch, torchrun) each takes its own GPU.
        dtype: What frozen weights are held and computed in: auto is bfloat16 on a GPU and float32 on a CPU. Adapters
            are float32 always; without adapters all weights are float32, and bfloat16 is used for computing only.
        attention: Attention of the language model: sdpa, flash-attention-2 (needs flash-attn and a GPU) or eager.
        load_in_4bit: Hold the frozen language model in 4 bits (QLoRA, arXiv 2305.14314); needs bitsandbytes and a GPU.
        activation_checkpointing: Keep one hidden state a block and compute the rest again in the backward pass: about
            a third more time, several times less memory a frame.
        sharding: none holds all parameters in every process; full spreads parameters, gradients and optimiser state
            over the processes (FSDP), for training all parameters of a large model.
        picture_cache_gb: Memory for decoded pictures, GB.
        feature_cache_gb: Memory for features of frozen vision towers, GB; 0 computes them anew in every epoch.
        report_to: Experiment trackers that get the metrics as well; metrics.jsonl is always written.
        threads: Threads of PyTorch. Part of the result's identity, because sums depend on it.
        unnorm_key: Normalisation statistics to use, for checkpoints that hold several; empty picks the only one.
        norm_stats: JSON file of statistics by data set (dataset_statistics.json), for pairs whose actions were put
            into tokens by them. Those that --unnorm-key names, or the only ones, are added to the checkpoint and used;
            a checkpoint that holds that name keeps and uses its own.
        center_crop: Crop 90 % of the picture's area from the middle before the policy sees it, as it was at collection:
            yes, no, or auto for what the checkpoint says (nothing means no).
        seed: Seed of the order of pairs and of the adapters' first values.
        memory_gb: With --dry-run: memory of the device, GB, for which to find the largest micro-batch.
        dry_run: Print the plan and touch nothing.
    """

    pairs: Path = field(metadata={"identity": False})
    policy: Path = field(metadata={"identity": False})
    out: Path = field(metadata={"identity": False})
    method: Literal["tpo", "step-dpo", "filtered-bc"] = "tpo"
    loss_type: Literal["sigmoid", "hinge", "ipo"] = "sigmoid"
    beta: float = 0.1
    window: int = 0
    stride: int = 1
    length_normalised: bool = False
    label_smoothing: float = 0.0
    nll_weight: float = 10.0
    lr: float = 3e-4
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: float = 0.0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    epochs: int = 2
    max_updates: int = 0
    pairs_per_update: int = 8
    micro_batch: int = 0
    lora_rank: int = 0
    lora_alpha: float = 0.0
    lora_targets: Literal["language", "language+projector", "all"] = "language+projector"
    gradient: Literal["auto", "one-pass", "two-pass"] = "auto"
    reference: Literal["recorded", "recomputed"] = "recorded"
    parity_steps: int = 64
    parity_threshold: float = 0.05
    holdout: float = 0.0
    evaluate_every: int = 0
    result: Literal["last", "best"] = "last"
    checkpoint_every: int = field(default=25, metadata={"identity": False})
    keep_checkpoints: int = field(default=2, metadata={"identity": False})
    device: str = field(default="auto", metadata={"identity": False})
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    attention: Literal["sdpa", "flash-attention-2", "eager"] = "sdpa"
    load_in_4bit: bool = False
    activation_checkpointing: bool = field(default=False, metadata={"identity": False})
    sharding: Literal["none", "full"] = field(default="none", metadata={"identity": False})
    picture_cache_gb: float = field(default=4.0, metadata={"identity": False})
    feature_cache_gb: float = field(default=4.0, metadata={"identity": False})
    report_to: tuple[TrackerName, ...] = field(default=(), metadata={"identity": False})
    threads: int = 1
    unnorm_key: str = ""
    norm_stats: Path | None = field(default=None, metadata={"identity": False})
    center_crop: Literal["auto", "yes", "no"] = "auto"
    seed: int = 0
    memory_gb: float = field(default=0.0, metadata={"identity": False})
    dry_run: bool = field(default=False, metadata={"identity": False})


@dataclass(frozen=True)
class SftSettings:
    """Fine-tune a policy on demonstrations by next-action-token cross-entropy, or train a nano policy from nothing.

    Attributes:
        data: Episode stores, folders made by grape collect, or RLDS data sets as rlds:/path/name (split train; with a
            rule of your choice as rlds+RULE:/path/name). Episodes of all operators are used.
        out: Folder to write; policy/ inside is the result, running again with the same settings resumes.
        policy: Checkpoint folder to continue; without it a new policy is made from the preset.
        preset: Shape of a new policy.
        successful_only: Use only episodes that ended with success.
        epochs: How often every step is used.
        max_updates: Stop after this many updates, repeating epochs if needed; 0 means what the epochs hold.
        batch_size: Steps an update averages.
        micro_batch: Steps that go through the network at once: the knob for memory. 0 chooses by the network's size:
            256 for nano, 8 for 7 B.
        lr: Peak learning rate of AdamW.
        schedule: Learning rate after the warm-up: constant, linear or cosine to 0.
        warmup: Share of all updates over which the learning rate rises from 0, in [0, 1].
        weight_decay: Decoupled weight decay.
        max_grad_norm: Gradients of a larger norm are scaled down to it; 0 switches clipping off.
        soft_bins: Width of the Gaussian that spreads a label over neighbouring bins, in bins; 0 means one-hot labels.
        augment: Recipe that changes pictures at random. openvla is OpenVLA's: a crop of 90 % of the area, brightness,
            contrast, saturation, hue; the policy is then evaluated with the crop in the middle. none leaves pictures
            to the two settings that follow, which suit small pictures.
        augment_shift: Pictures are moved by up to this many pixels each way, edges repeated; 0 switches it off.
        augment_brightness: Pictures are brightened or darkened by up to this share; 0 switches it off.
        shuffle_episodes: How many episodes' steps are shuffled together; 0 shuffles all steps. For data whose decoded
            pictures exceed picture_cache_gb: as many as fit, or else every update reads files again.
        holdout: Share of episodes kept out of training to measure the loss on, in [0, 1).
        gripper: What the last action dimension means, for a new policy; empty takes it from the store.
        lora_rank: Rank of low-rank adapters; 0 trains all parameters.
        lora_alpha: Scale of the adapters is lora_alpha / lora_rank; 0 means twice the rank.
        lora_targets: Which linear layers get adapters: those of the language model's blocks, those and the projector,
            or all including the vision towers'.
        checkpoint_every: Updates between checkpoints; 0 keeps only the last state.
        keep_checkpoints: How many of the latest checkpoints stay.
        device: Where to compute: auto takes a GPU if there is one, else cpu; or cuda, cuda:1. With several processes
            (accelerate launch, torchrun) each takes its own GPU and its share of every batch.
        dtype: What frozen weights are held and computed in: auto is bfloat16 on a GPU and float32 on a CPU. Adapters
            are float32 always; without adapters all weights are float32, and bfloat16 is used for computing only.
        attention: Attention of the language model: sdpa, flash-attention-2 (needs flash-attn and a GPU) or eager.
        load_in_4bit: Hold the frozen language model in 4 bits (QLoRA, arXiv 2305.14314); needs bitsandbytes and a GPU.
        activation_checkpointing: Keep one hidden state a block and compute the rest again in the backward pass: about
            a third more time, several times less memory a step.
        picture_cache_gb: Memory for decoded pictures, GB.
        report_to: Experiment trackers that get the metrics as well; metrics.jsonl is always written.
        threads: Threads of PyTorch. Part of the result's identity, because sums depend on it.
        norm_key: Name for the normalisation statistics of the demonstrations; empty takes the name of their suite or
            RLDS data set. A checkpoint that holds statistics of that name keeps and uses them; otherwise the
            demonstrations' own are computed, added and used from then on.
        unnorm_key: Use these statistics of the checkpoint instead, whatever the demonstrations are called.
        seed: Seed of first weights, order, augmentation and the choice of held-out episodes.
        dry_run: Print the plan and touch nothing.
    """

    data: tuple[Path, ...] = field(metadata={"identity": False})
    out: Path = field(metadata={"identity": False})
    policy: Path | None = field(default=None, metadata={"identity": False})
    preset: Literal["nano"] = "nano"
    successful_only: bool = False
    epochs: int = 20
    max_updates: int = 0
    batch_size: int = 64
    micro_batch: int = 0
    lr: float = 1e-3
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup: float = 0.05
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    soft_bins: float = 0.5
    augment: Literal["none", "openvla"] = "none"
    augment_shift: int = 0
    augment_brightness: float = 0.0
    shuffle_episodes: int = 0
    holdout: float = 0.0
    gripper: str = ""
    lora_rank: int = 0
    lora_alpha: float = 0.0
    lora_targets: Literal["language", "language+projector", "all"] = "language+projector"
    checkpoint_every: int = field(default=200, metadata={"identity": False})
    keep_checkpoints: int = field(default=2, metadata={"identity": False})
    device: str = field(default="auto", metadata={"identity": False})
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    attention: Literal["sdpa", "flash-attention-2", "eager"] = "sdpa"
    load_in_4bit: bool = False
    activation_checkpointing: bool = field(default=False, metadata={"identity": False})
    picture_cache_gb: float = field(default=4.0, metadata={"identity": False})
    report_to: tuple[TrackerName, ...] = field(default=(), metadata={"identity": False})
    threads: int = 1
    norm_key: str = ""
    unnorm_key: str = ""
    seed: int = 0
    dry_run: bool = field(default=False, metadata={"identity": False})


# Field -> lowest and highest accepted value; None where there is no bound.
_BOUNDS: dict[str, tuple[float, float | None]] = {
    "beta": (0, None),
    "window": (0, None),
    "stride": (1, None),
    "evaluate_every": (0, None),
    "picture_cache_gb": (0, None),
    "feature_cache_gb": (0, None),
    "memory_gb": (0, None),
    "label_smoothing": (0, 0.5),
    "nll_weight": (0, None),
    "lr": (0, 1),
    "warmup": (0, 1),
    "weight_decay": (0, None),
    "max_grad_norm": (0, None),
    "epochs": (1, None),
    "max_updates": (0, None),
    "pairs_per_update": (1, None),
    "batch_size": (1, None),
    "micro_batch": (0, None),
    "lora_rank": (0, None),
    "lora_alpha": (0, None),
    "parity_steps": (1, None),
    "parity_threshold": (0, None),
    "checkpoint_every": (0, None),
    "keep_checkpoints": (1, None),
    "threads": (1, None),
    "soft_bins": (0, None),
    "shuffle_episodes": (0, None),
    "augment_shift": (0, None),
    "augment_brightness": (0, 1),
    "holdout": (0, 1),
}


def check_train(settings: TrainSettings) -> None:
    """Refuse values that make no sense, before anything is read.

    Raises:
        SettingsError: A number is out of range, a tracker's package is missing, or two settings contradict each other.
    """
    _check_bounds(settings)
    check_trackers(settings.report_to)
    if settings.label_smoothing and settings.loss_type != "sigmoid":
        raise SettingsError(
            f"--label-smoothing has no meaning for --loss-type {settings.loss_type}.", "Leave it out, or use sigmoid."
        )
    if settings.beta == 0 and settings.method != "filtered-bc":
        raise SettingsError("--beta is 0: the preference loss would be constant.", "Give a positive value, e.g. 0.1.")
    if settings.window and settings.method != "tpo":
        raise SettingsError(f"--window has no meaning for --method {settings.method}.", "Leave it out.")
    if settings.holdout == 1:
        raise SettingsError("--holdout 1 leaves nothing to train on.", "Give a share below 1.")
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


def check_sft(settings: SftSettings) -> None:
    """Refuse values that make no sense, before anything is read.

    Raises:
        SettingsError: A number is out of range, no data is given, a tracker's package is missing, or two settings
            contradict each other.
    """
    _check_bounds(settings)
    check_trackers(settings.report_to)
    if settings.augment != "none" and (settings.augment_shift or settings.augment_brightness):
        raise SettingsError(
            f"--augment {settings.augment} moves and brightens pictures itself.",
            "Leave --augment-shift and --augment-brightness out, or use --augment none.",
        )
    if not settings.data:
        raise SettingsError("--data names no store.", "Give one or more folders made by 'grape collect'.")
    if settings.holdout == 1:
        raise SettingsError("--holdout 1 leaves nothing to train on.", "Give a share below 1.")
    if settings.lora_rank and settings.policy is None:
        raise SettingsError("--lora-rank needs --policy: a new policy has nothing to adapt.", "Leave --lora-rank out.")
    if settings.load_in_4bit and not settings.lora_rank:
        raise SettingsError("A model held in 4 bits cannot be trained as a whole.", "Give --lora-rank, e.g. 32.")


def _check_bounds(settings: Any) -> None:
    for item in dataclasses.fields(settings):
        if item.name not in _BOUNDS:
            continue
        low, high = _BOUNDS[item.name]
        value = getattr(settings, item.name)
        if not (value >= low and (high is None or value <= high)):  # also refuses NaN
            flag = "--" + item.name.replace("_", "-")
            limits = f"at least {low}" if high is None else f"between {low} and {high}"
            raise SettingsError(f"{flag} is {value}.", f"It must be {limits}.")
