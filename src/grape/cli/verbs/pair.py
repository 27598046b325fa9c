"""``grape pair``."""

from grape.cli.show import show_plain_values
from grape.cli.verb import Verb
from grape.preferences import PairSettings, run_pair

VERB = Verb(
    name="pair",
    settings=PairSettings,
    run=run_pair,
    show=show_plain_values,
    examples=(
        "grape pair --scores runs/scores --out runs/pairs",
        "grape pair --scores runs/scores --out runs/pairs-random --mode random",
    ),
)
