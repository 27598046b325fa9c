"""``grape sft``."""

from rich.console import Console

from grape.cli.show import Summary, show_fields
from grape.cli.verb import Verb
from grape.training import run_sft
from grape.training.settings import SftSettings


def _show(summary: Summary, console: Console) -> None:
    show_fields(summary, console, "episodes", "samples", "steps", "loss", "token_accuracy", "policy")


VERB = Verb(
    name="sft",
    settings=SftSettings,
    run=run_sft,
    show=_show,
    examples=("grape sft --data runs/demonstrations/store --out runs/sft",),
)
