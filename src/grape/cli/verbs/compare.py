"""``grape compare``."""

from grape.cli.show import show_comparison
from grape.cli.verb import Verb
from grape.evaluation import CompareSettings, run_compare

VERB = Verb(
    name="compare",
    settings=CompareSettings,
    run=run_compare,
    show=show_comparison,
    positionals=("a", "b"),
    examples=("grape compare runs/evaluation-sft runs/evaluation-tpo --out runs/comparison",),
)
