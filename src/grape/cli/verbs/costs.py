"""``grape costs``: what can be asked of cost specifications, each with settings of its own."""

from rich.console import Console

from grape.cli.show import Summary
from grape.cli.verb import Verb, VerbOfKinds
from grape.costs import (
    CostsCheckSettings,
    CostsListSettings,
    CostsSchemaSettings,
    CostsShowSettings,
    run_costs_check,
    run_costs_list,
    run_costs_schema,
    run_costs_show,
)


def _show(summary: Summary, console: Console) -> None:
    console.print(summary["text"], markup=False, highlight=False, soft_wrap=True)


LIST = Verb(
    name="costs list",
    settings=CostsListSettings,
    run=run_costs_list,
    show=_show,
    positionals=("suite",),
    examples=("grape costs list", "grape costs list metaworld"),
)

SHOW = Verb(
    name="costs show",
    settings=CostsShowSettings,
    run=run_costs_show,
    show=_show,
    positionals=("target",),
    examples=("grape costs show metaworld/drawer-open", "grape costs show my-costs.yaml"),
)

CHECK = Verb(
    name="costs check",
    settings=CostsCheckSettings,
    run=run_costs_check,
    show=_show,
    positionals=("target",),
    examples=(
        "grape costs check my-costs.yaml --store runs/rollouts/store",
        "grape costs check my-costs.yaml --suite metaworld",
    ),
)

SCHEMA = Verb(
    name="costs schema",
    settings=CostsSchemaSettings,
    run=run_costs_schema,
    show=_show,
    examples=("grape costs schema", "grape costs schema --strict --suite metaworld"),
)

VERB = VerbOfKinds(
    name="costs",
    summary="Cost specifications: the stages and constraints that price a trajectory.",
    kinds={"list": LIST, "show": SHOW, "check": CHECK, "schema": SCHEMA},
    summaries={
        "list": "The built-in specifications",
        "show": "Stages and constraints of one",
        "check": "Mistakes in one, before anything is scored",
        "schema": "The language as a JSON Schema, for editors and models",
    },
)
