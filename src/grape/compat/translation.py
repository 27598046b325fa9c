"""What each flag of the first public implementation means for ``grape train``, and what to tell its user."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from grape.compat.finetune_flags import FinetuneFlags
from grape.core.errors import SettingsError
from grape.core.files import content_hash
from grape.exchange import ImportGrapeRldsSettings
from grape.exchange.tokens import STATISTICS_FILE
from grape.training.metrics_logger import check_trackers

__all__ = ["Translation", "translate"]

_LARGEST_ALPHA = 32
_WEIGHT_DECAY = 0.01  # AdamW's default in PyTorch, which the script left alone
_ALL_CHECKPOINTS = 1_000_000


@dataclass(frozen=True)
class Translation:
    """The equivalent of one call.

    Attributes:
        pairs: The import of the two RLDS data sets that comes first. Its folder is named after them and the policy, so
            that others are other pairs.
        arguments: What follows ``grape train``.
        environment: Variables to set for it.
        device: Where it will compute.
        notes: What differs from the script, a sentence or two each.
        warnings: What was asked for and will not be there.
    """

    pairs: ImportGrapeRldsSettings
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    device: str = "auto"
    notes: tuple[str, ...] = field(default=())
    warnings: tuple[str, ...] = field(default=())

    @property
    def import_arguments(self) -> tuple[str, ...]:
        """What follows ``grape import grape-rlds``."""
        pairs = self.pairs
        words = [str(pairs.chosen), str(pairs.rejected), "--policy", str(pairs.policy), "--out", str(pairs.out)]
        if pairs.unnorm_key:
            words += ["--unnorm-key", pairs.unnorm_key]
        if pairs.center_crop != "auto":
            words += ["--center-crop", pairs.center_crop]
        return tuple(words)


def translate(flags: FinetuneFlags, processes: int = 1, further: Sequence[str] = ()) -> Translation:
    """Translate a call.

    Flags that the script read are carried over with its defaults; flags that it accepted but never used take effect
    only where they were given, since their defaults describe nothing that was ever run.

    Args:
        flags: The flags.
        processes: How many processes torchrun started.
        further: Arguments of ``grape train`` to add; later ones win.

    Raises:
        SettingsError: Something is asked for that the trainer refuses to do, or ``further`` names a tracker whose
            package is missing.
    """
    if flags.lora_dropout:
        raise SettingsError(
            f"--lora_dropout {flags.lora_dropout} cannot be used: the exact gradient passes over a trajectory in "
            "pieces, and all of them must see the same network.",
            "Leave it out; the published value is 0.",
        )
    if flags.use_quantization and not flags.use_lora:
        raise SettingsError("--use_quantization needs adapters.", "Leave --use_lora out, or say --use_lora True.")
    chosen, rejected = (folder / flags.dataset_name for folder in (flags.chosen_traj_dir, flags.rejected_traj_dir))
    given = _common_flags(further)
    identity = [str(chosen), str(rejected), flags.vla_path, given.unnorm_key, given.center_crop]
    pairs = ImportGrapeRldsSettings(
        chosen,
        rejected,
        flags.run_root_dir / f"pairs-{content_hash(identity)[:8]}",
        policy=Path(flags.vla_path),
        unnorm_key=given.unnorm_key,
        center_crop=given.center_crop,
    )
    values: dict[str, str | int | float] = {
        "pairs": str(pairs.out / "pairs"),
        "policy": flags.vla_path,
        "norm-stats": str(pairs.out / STATISTICS_FILE),
        "unnorm-key": flags.dataset_name,
        "out": str(flags.run_root_dir / _run_name(flags)),
        "reference": "recomputed",
        "beta": 0.1,
        "anchor": 0,
        "lr": flags.learning_rate,
        "schedule": "constant",
        "weight-decay": _WEIGHT_DECAY,
        "max-grad-norm": 0,
        "epochs": flags.epoch,
        "pairs-per-update": flags.batch_size * flags.grad_accumulation_steps * processes,
    }
    switches = ["--length-normalised"]
    if flags.use_lora:
        values |= {
            "lora-rank": flags.lora_rank,
            "lora-alpha": min(flags.lora_rank, _LARGEST_ALPHA),
            "lora-targets": "all",
        }
    if flags.use_quantization:
        switches.append("--load-in-4bit")
    if "max_steps" in flags.given:
        values["max-updates"] = flags.max_steps
    if "save_steps" in flags.given:
        values["checkpoint-every"] = flags.save_steps
    if "save_latest_checkpoint_only" in flags.given:
        values["keep-checkpoints"] = 1 if flags.save_latest_checkpoint_only else _ALL_CHECKPOINTS
    environment: dict[str, str] = {}
    check_trackers(given.report_to)
    missing = _missing_tracker("wandb") if "wandb_project" in flags.given and not given.report_to else ""
    if "wandb_project" in flags.given and not missing:
        values["report-to"] = "wandb"
        environment["WANDB_PROJECT"] = flags.wandb_project
        if "wandb_entity" in flags.given:
            environment["WANDB_ENTITY"] = flags.wandb_entity
    words = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    return Translation(
        pairs=pairs,
        arguments=(*words, *switches, *further),
        environment=environment,
        device=given.device,
        notes=_notes(flags, processes),
        warnings=(missing,) if missing else (),
    )


def _common_flags(further: Sequence[str]) -> argparse.Namespace:
    """Those flags of ``grape train`` that must be known before the import."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--unnorm-key", "--unnorm_key", default="")
    parser.add_argument("--center-crop", "--center_crop", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--report-to", "--report_to", nargs="*", default=[])
    try:
        return parser.parse_known_args(list(further))[0]
    except argparse.ArgumentError as error:
        raise SettingsError(f"After the '--': {error}.", "grape train --help lists all flags.") from error


def _missing_tracker(name: str) -> str:
    """Why a tracker cannot be used here; empty where it can."""
    try:
        check_trackers([name])
    except SettingsError as error:
        return (
            f"Nothing is sent to {name}, whose package is not installed; the training goes on, and metrics.jsonl holds "
            f"its metrics. To send them: {error.hint.partition(', or')[0]}."
        )
    return ""


def _run_name(flags: FinetuneFlags) -> str:
    """Name of the run's folder, put together as the script did."""
    name = (
        f"{flags.vla_path.rstrip('/').split('/')[-1]}+{flags.dataset_name}"
        f"+b{flags.batch_size * flags.grad_accumulation_steps}+lr-{flags.learning_rate}"
    )
    if flags.use_lora:
        name += f"+lora-r{flags.lora_rank}+dropout-{flags.lora_dropout}"
    if flags.use_quantization:
        name += "+q-4bit"
    return f"{name}--{flags.run_id_note}" if flags.run_id_note else name


_ALWAYS = (
    "The loss compares whole trajectories, where the script compared windows of 8 steps across pairs; "
    "--length-normalised keeps the windows' scale of beta. A pair is one update now and was many, so try other "
    "learning rates. For windows, within each pair, add: -- --window 8 --no-length-normalised",
    "Actions become tokens by statistics of both sides together, which the policy keeps under the data set's name; a "
    "policy that holds that name uses its own. If this very policy made the trajectories, name the statistics it acted "
    "by, so that its own tokens are trained: -- --unnorm-key NAME",
    "Every step counts, where the script dropped the first and last one. 'grape lint' finds what else may be wrong "
    "with such data; data from SimplerEnv needs the import above with --pictures-after-action.",
)

_REMARKS: Mapping[str, str] = {
    "batch_size": "--batch_size had no effect (it was always 1). Here it counts: see --pairs-per-update.",
    "grad_accumulation_steps": (
        "--grad_accumulation_steps cleared the gradients it should have added, so all but one step were lost. Here "
        "gradients add up: an update averages batch_size times grad_accumulation_steps pairs of each process."
    ),
    "max_steps": (
        "--max_steps had no effect; --epoch (10) decided. Here it is the largest number of updates, within the epochs."
    ),
    "save_steps": (
        "--save_steps had no effect (a checkpoint came every 200 steps, and nothing could resume it). Here it is the "
        "interval; running the same command again resumes."
    ),
    "image_aug": (
        "--image_aug had no effect. It has none here either: the tokens of a trajectory are scored on the images "
        "that the policy saw. Augmentation belongs to 'grape sft --augment openvla'."
    ),
    "shuffle_buffer_size": (
        "--shuffle_buffer_size had no effect. It has none here: the order of all pairs is drawn anew every epoch."
    ),
    "adapter_tmp_dir": (
        "--adapter_tmp_dir is not needed: checkpoints stand in the run's folder, and the adapter in its policy/."
    ),
    "run_id_note": "--run_id_note is OpenVLA's flag. Here it ends the run's name, as there.",
    "save_latest_checkpoint_only": (
        "--save_latest_checkpoint_only is OpenVLA's flag. Here it is the number of checkpoints that stay."
    ),
}
"""What to tell about flags that the script did not use, or that mean something else here."""


def _notes(flags: FinetuneFlags, processes: int) -> tuple[str, ...]:
    notes = [remark for name, remark in _REMARKS.items() if name in flags.given]
    if "wandb_project" not in flags.given:
        notes.append("Without --wandb_project nothing is sent to Weights & Biases; metrics.jsonl holds the metrics.")
        if "wandb_entity" in flags.given:
            notes.append("--wandb_entity has no effect without --wandb_project.")
    if processes > 1:
        notes.append(f"{processes} processes share each update's pairs; --pairs-per-update counts all of them.")
    return (*_ALWAYS, *notes)
