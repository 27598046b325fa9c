"""``grape score``."""

from rich.console import Console

from grape.cli.show import Summary, show_fields
from grape.cli.verb import Verb
from grape.preferences import ScoreSettings, run_score


def _show(summary: Summary, console: Console) -> None:
    show_fields(summary, console, *(name for name in summary if not isinstance(summary[name], dict | list)))


VERB = Verb(
    name="score",
    settings=ScoreSettings,
    run=run_score,
    show=_show,
    examples=(
        "grape score --store runs/rollouts/store --out runs/scores",
        "grape score --store runs/rollouts/store --out runs/scores-safe --costs my-costs/",
    ),
)
