"""Flags of the training script of the first public implementation (``TPO-Train/finetune.py`` of aiming-lab/GRAPE).

Names and defaults are that script's. ``run_id_note`` and ``save_latest_checkpoint_only`` come from the script it was
made from (OpenVLA's ``vla-scripts/finetune.py``); users of the one often carry flags of the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grape.compat.flag_parser import read_flags

__all__ = ["FinetuneFlags", "parse_flags"]


@dataclass(frozen=True)
class FinetuneFlags:
    """Values of the flags, with the published defaults.

    Attributes:
        vla_path: Checkpoint to train, a folder or a name on the hub.
        chosen_traj_dir: Folder with the RLDS data set of chosen trajectories.
        rejected_traj_dir: The same of rejected ones.
        dataset_name: Name of both data sets.
        run_root_dir: Where runs are put.
        adapter_tmp_dir: Where adapters were put.
        batch_size: Pairs a process looks at in one step.
        max_steps: Number of updates.
        save_steps: Updates between checkpoints.
        learning_rate: Learning rate of AdamW, constant.
        grad_accumulation_steps: Steps whose gradients one update averages.
        image_aug: Change images at random.
        shuffle_buffer_size: Frames that are shuffled together.
        epoch: How often all data is used.
        use_lora: Train adapters instead of all parameters.
        lora_rank: Rank of the adapters.
        lora_dropout: Dropout within the adapters.
        use_quantization: Hold the frozen weights in 4 bits.
        wandb_project: Project on Weights & Biases.
        wandb_entity: Its owner.
        run_id_note: Added to the run's name.
        save_latest_checkpoint_only: Keep one checkpoint.
        given: Names of the flags that stood on the command line.
    """

    vla_path: str = "path/to/sft_model"
    chosen_traj_dir: Path = Path("path/to/chosen/traj")
    rejected_traj_dir: Path = Path("path/to/rejected/traj")
    dataset_name: str = "bridge_orig"
    run_root_dir: Path = Path("runs")
    adapter_tmp_dir: Path = Path("adapter-tmp")
    batch_size: int = 1
    max_steps: int = 20000
    save_steps: int = 5000
    learning_rate: float = 2e-5
    grad_accumulation_steps: int = 1
    image_aug: bool = True
    shuffle_buffer_size: int = 100000
    epoch: int = 10
    use_lora: bool = True
    lora_rank: int = 32
    lora_dropout: float = 0.0
    use_quantization: bool = False
    wandb_project: str = "your project"
    wandb_entity: str = "your entity"
    run_id_note: str = ""
    save_latest_checkpoint_only: bool = True
    given: frozenset[str] = frozenset()


def parse_flags(words: Sequence[str]) -> FinetuneFlags:
    """Read the command line; booleans are words, as ``--image_aug False``.

    Raises:
        SettingsError: A flag is unknown, has no value, or one of the wrong kind.
    """
    return read_flags(
        FinetuneFlags,
        words,
        prog="python -m grape.compat.finetune",
        description="Trains as 'grape train' does, from the flags of the method's first public implementation.",
        epilog="Flags after a '--' go to 'grape train' as they are and win, for example: -- --unnorm-key libero_goal",
    )
