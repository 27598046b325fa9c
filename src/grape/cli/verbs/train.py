"""``grape train``."""

from rich.console import Console

from grape.cli.show import Summary, show_fields
from grape.cli.verb import Verb
from grape.training import run_train
from grape.training.settings import TrainSettings


def _show(summary: Summary, console: Console) -> None:
    show_fields(summary, console, *(name for name in summary if not isinstance(summary[name], dict | list)))


VERB = Verb(
    name="train",
    settings=TrainSettings,
    run=run_train,
    show=_show,
    examples=(
        "grape train --pairs runs/pairs --policy runs/sft/policy --out runs/tpo",
        "grape train --pairs runs/pairs --policy runs/sft/policy --out runs/tpo-lora --lora-rank 16 --lr 1e-3",
        "grape train --pairs runs/pairs --policy runs/sft/policy --out runs/filtered --method filtered-bc",
    ),
)
