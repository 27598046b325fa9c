"""``grape train``."""

from grape.cli.show import show_training
from grape.cli.verb import Verb
from grape.training import run_train
from grape.training.settings import TrainSettings

VERB = Verb(
    name="train",
    settings=TrainSettings,
    run=run_train,
    show=show_training,
    examples=(
        "grape train --pairs runs/pairs --policy runs/sft/policy --out runs/tpo",
        "grape train --pairs runs/pairs --policy runs/sft/policy --out runs/tpo-lora --lora-rank 16 --lr 1e-3",
        "grape train --pairs runs/pairs --policy runs/sft/policy --out runs/filtered --method filtered-bc",
        "grape train --scores runs/scores --policy runs/sft/policy --out runs/kto --method kto",
    ),
    processes="group",
)
