"""Settings of ``grape predict`` and ``grape export`` of checkpoints. Torch is not imported, so ``--help`` is fast."""

from dataclasses import dataclass
from pathlib import Path

from grape.core.settings import Range, setting
from grape.policies.opening import ConventionSettings, PolicySettings, PrecisionSettings

__all__ = ["ExportAdapterSettings", "ExportMergedSettings", "PredictSettings", "ProbeSettings"]

_CHUNKS = "Policies that decide in chunks (OpenVLA-OFT)"


@dataclass(frozen=True)
class PredictSettings(PolicySettings):
    """Ask a policy for one decision: the first thing to try on a checkpoint.

    Decoding is greedy. Nothing is written; --json prints the action (of OpenVLA-OFT: the chunk of actions), its tokens
    and their log-probabilities.

    Attributes:
        policy: Checkpoint folder, a name on the Hugging Face hub, e.g. openvla/openvla-7b, or a policy on a server, as
            ws://host:port.
        image: Image the robot sees, as PNG, JPEG, WebP, BMP, TIFF, GIF or PPM. It is resized to the network's size as
            OpenVLA's processor does; a camera's rotation or JPEG round trip is not imitated.
        instruction: What the robot shall do, e.g. "put the carrot on the plate".
        wrist: Images of further cameras, in the checkpoint's order.
        proprio: State of the robot, un-normalized, for policies that read it.
    """

    policy: str = setting(common=True)
    image: Path = setting(common=True)
    instruction: str = setting(common=True)
    wrist: tuple[Path, ...] = setting((), common=True, group=_CHUNKS)
    proprio: tuple[float, ...] = setting((), common=True, group=_CHUNKS)


@dataclass(frozen=True)
class ProbeSettings(PrecisionSettings):
    """Measure with which conventions a checkpoint of OpenVLA-OFT was trained, from demonstrations alone.

    Under each preset the demonstrated actions get a likelihood; that of the right one is higher. Then single
    conventions are varied around the best, which says what each costs, and what fits best is named. An untrained head
    is told as such. No simulator is needed. See docs/openvla-oft.md.

    Attributes:
        policy: Checkpoint folder, or a name on the Hugging Face hub.
        data: Demonstrations of what the checkpoint was trained for, at its control rate: an episode store, the folder
            of a LeRobotDataset, or an RLDS data set as rlds:/path/name.
        out: Folder to write probe.json and the score of each decision to, and to resume from; without it nothing is
            written.
        samples: Decisions to score, spread over tasks and episodes.
        seed: Seed of the sample and of the bootstrap.
        confidence: Level of the intervals.
        batch: Decisions that go through the network at once.
        unnorm_key: Normalization statistics to use, for checkpoints that hold several; empty picks the only one.
        chunk: Actions a decision, where the checkpoint does not say: 25 for 14 dimensions, else 8.
        cameras: Number of cameras, where the checkpoint does not say; by default 1.
        dry_run: Print what would be scored and touch nothing; no weights are read.
    """

    policy: str = setting(identity=False, common=True, kw_only=True)
    data: Path = setting(identity=False, common=True, kw_only=True)
    out: Path | None = setting(None, identity=False, common=True)
    samples: int = setting(256, range=Range(2, 100_000), common=True)
    seed: int = setting(0, common=True)
    confidence: float = setting(0.95, range=Range(0.5, 1, open_high=True))
    batch: int = setting(8, range=Range(1, 4096))
    unnorm_key: str = setting("", group=_CHUNKS, common=True)
    chunk: int | None = setting(None, group=_CHUNKS, common=True)
    cameras: int | None = setting(None, group=_CHUNKS, common=True)
    dry_run: bool = setting(False, identity=False, common=True)


@dataclass(frozen=True)
class ExportMergedSettings(ConventionSettings):
    """Write a policy as a whole checkpoint that OpenVLA's, SimplerEnv's and LIBERO's own scripts load.

    An adapter is merged into its base. Weights are stored in the type that config.json names (bfloat16 for published
    checkpoints), config.json stays as it was but for norm_stats, tokenizer and preprocessing files are copied. Of
    OpenVLA-OFT the separate parts are copied, too, and grape.json states how it is run.

    Attributes:
        policy: Checkpoint or adapter folder, or a name on the Hugging Face hub.
        out: Folder to write; it appears when it is complete. What another program put there is never replaced.
        shard_gb: Size from which on the weights are divided into several files, GB (1e9 bytes).
        cameras: Number of cameras of OpenVLA-OFT, where the checkpoint does not say; by default 1.
        unnorm_key: Statistics in use, for checkpoints of OpenVLA-OFT that hold several.
    """

    policy: str = setting()
    out: Path = setting()
    shard_gb: float = setting(5.0)
    cameras: int | None = setting(None, group=_CHUNKS)
    unnorm_key: str = setting("", group=_CHUNKS)


@dataclass(frozen=True)
class ExportAdapterSettings:
    """Write a LoRA adapter in PEFT's layout, so that PEFT loads it onto its base.

    Attributes:
        policy: Adapter folder: policy/ of a training with --lora-rank.
        out: Folder to write; it appears when it is complete. What another program put there is never replaced.
        base: What others call the base policy: a name on the hub or a path. Empty takes what the adapter says, a path
            made absolute.
    """

    policy: str
    out: Path
    base: str = ""
