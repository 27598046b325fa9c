"""``grape pair``."""

from rich.console import Console

from grape.cli.show import Summary, show_fields
from grape.cli.verb import Verb
from grape.preferences import PairSettings, run_pair


def _show(summary: Summary, console: Console) -> None:
    show_fields(summary, console, *(name for name in summary if not isinstance(summary[name], dict | list)))


VERB = Verb(
    name="pair",
    settings=PairSettings,
    run=run_pair,
    show=_show,
    examples=(
        "grape pair --scores runs/scores --out runs/pairs",
        "grape pair --scores runs/scores --out runs/pairs-random --mode random",
    ),
)
