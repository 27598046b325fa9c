"""``grape score``."""

from grape.cli.show import show_plain_values
from grape.cli.verb import Verb
from grape.preferences import ScoreSettings, run_score

VERB = Verb(
    name="score",
    settings=ScoreSettings,
    run=run_score,
    paths=("store",),
    show=show_plain_values,
    examples=(
        "grape score --store runs/rollouts/store --out runs/scores",
        "grape score --store runs/rollouts/store --out runs/scores-mine --costs my-costs/",
        "grape score --store runs/rollouts/store --out runs/scores-safe --objectives safety:4,efficiency:0",
    ),
)
