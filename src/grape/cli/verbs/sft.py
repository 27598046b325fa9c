"""``grape sft``."""

from grape.cli.show import show_training
from grape.cli.verb import Verb
from grape.training import run_sft
from grape.training.settings import SftSettings

VERB = Verb(
    name="sft",
    settings=SftSettings,
    run=run_sft,
    show=show_training,
    examples=(
        "grape sft --data runs/demonstrations/store --out runs/sft",
        "grape sft --data runs/demonstrations/store --chunk 8 --proprio --out runs/sft",
    ),
    processes="group",
)
