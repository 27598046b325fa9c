"""``grape costs``."""

from rich.console import Console

from grape.cli.show import Summary
from grape.cli.verb import Verb
from grape.costs import CostsSettings, run_costs


def _show(summary: Summary, console: Console) -> None:
    console.print(summary["text"], markup=False, highlight=False, soft_wrap=True)


VERB = Verb(
    name="costs",
    settings=CostsSettings,
    run=run_costs,
    show=_show,
    positionals=("action", "target"),
    examples=(
        "grape costs list",
        "grape costs show metaworld/drawer-open",
        "grape costs schema --strict",
        "grape costs check my-costs.yaml --store runs/rollouts/store",
    ),
)
