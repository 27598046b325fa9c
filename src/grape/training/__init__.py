"""Training: supervised fine-tuning, and preference optimization over whole trajectories.

One update of ``grape train`` reads from :mod:`grape.training.tpo` (the verb; ``_Trainer._compute`` is the update)
through ``batches`` (its comparisons, collated) and ``logprobs`` to ``gradients`` (the exact gradient at constant
memory) and ``losses``; ``loop`` steps the optimizer, logs, saves and resumes. ``sft`` is the other verb. The settings
can be imported without PyTorch.
"""

from collections.abc import Mapping
from typing import Any

from grape.core.errors import SettingsError
from grape.core.events import SILENT, Reporter
from grape.training.process_group import needs_ranks, run_in_ranks
from grape.training.settings import SftSettings, TrainSettings, check_sft, check_train

__all__ = ["SftSettings", "TrainSettings", "run_sft", "run_train"]


def run_sft(settings: SftSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Fine-tune on demonstrations; see :func:`grape.training.sft.run_sft`. With ``gpus``, in a process group."""
    if needs_ranks(settings):
        check_sft(settings)
        return run_in_ranks("sft", settings, reporter)
    try:
        from grape.training.sft import run_sft as run
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    return run(settings, reporter)


def run_train(settings: TrainSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Train on preference pairs; see :func:`grape.training.tpo.run_train`. With ``gpus``, in a process group."""
    if needs_ranks(settings):
        check_train(settings)
        return run_in_ranks("train", settings, reporter)
    try:
        from grape.training.tpo import run_train as run
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    return run(settings, reporter)


def _missing(error: ModuleNotFoundError) -> Exception:
    """What to raise: advice for a package that is not installed; a module of our own that is not there is a bug."""
    if (error.name or "").split(".")[0] == "grape":
        return error
    return SettingsError(
        f"Training needs PyTorch and transformers, and {error.name or error} is missing.",
        "pip install 'grape-vla[train]'",
    )
