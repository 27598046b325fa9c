"""``grape costs``: kinds of work on cost specifications, each with its own settings."""

from rich.console import Console

from grape.cli.show import Summary
from grape.cli.verb import Verb, VerbOfKinds
from grape.costs import (
    CostsCheckSettings,
    CostsListSettings,
    CostsSchemaSettings,
    CostsValidateSettings,
    run_costs_check,
    run_costs_list,
    run_costs_schema,
    run_costs_validate,
)
from grape.generation import GenerateCostsSettings, ImportCostsSettings, run_generate_costs, run_import_costs
from grape.report import CostsPageSettings, run_costs_page


def _show(summary: Summary, console: Console) -> None:
    console.print(summary["text"], soft_wrap=True)


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
    settings=CostsPageSettings,
    run=run_costs_page,
    show=_show,
    positionals=("target",),
    examples=(
        "grape costs show metaworld/drawer-open",
        "grape costs show libero_object/pick_up_the_milk_and_place_it_in_the_basket --as-yaml > my-costs.yaml",
        "grape costs show my-costs.yaml --store runs/clean runs/sloppy --out my-costs.html",
    ),
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

VALIDATE = Verb(
    name="costs validate",
    settings=CostsValidateSettings,
    run=run_costs_validate,
    show=_show,
    positionals=("target",),
    examples=(
        "grape costs validate my-costs.yaml --store runs/clean/store runs/noisy/store runs/sloppy/store",
        "grape costs validate metaworld/drawer-open --store runs/rollouts/store --json",
    ),
    exit_code=lambda summary: 0 if summary["verdict"] == "accept" else 1,
)


def _show_import(summary: Summary, console: Console) -> None:
    lines = [f"{summary['specification']}: {summary['stages']} stages from {len(summary['translated'])} functions."]
    lines += [f"  note: {note}" for note in summary["notes"]]
    if summary["left_out"]:
        lines.append(f"  {len(summary['left_out'])} parts were not translated; see the warnings above.")
    lines.append(f"Look at it: grape costs show {summary['specification']}")
    console.print("\n".join(lines), soft_wrap=True)


def _show_generate(summary: Summary, console: Console) -> None:
    state = "accepted" if summary["accepted"] else "not accepted"
    lines = [f"{state} after {summary['rounds']} rounds, {summary['tokens']} tokens"]
    lines += [f"  see {summary['specification']}"] if summary["specification"] else []
    lines += [f"  to fix: {finding}" for finding in summary["findings"]]
    lines += [f"  warning: {warning}" for warning in summary["warnings"]]
    console.print("\n".join(lines), soft_wrap=True)


GENERATE = Verb(
    name="costs generate",
    settings=GenerateCostsSettings,
    run=run_generate_costs,
    paths=("specification",),
    show=_show_generate,
    exit_code=lambda summary: 0 if summary["accepted"] else 1,
    examples=(
        "grape costs generate --suite metaworld --task drawer-open --model gpt-4o-mini --out runs/drawer-costs",
        "grape costs generate --suite toy --task push-block --client local --model org/vlm --out runs/a",
        "grape costs generate --instruction 'open it' --image first.png --names names.yaml --model m --out runs/b",
    ),
)

IMPORT = Verb(
    name="costs import",
    settings=ImportCostsSettings,
    run=run_import_costs,
    show=_show_import,
    positionals=("file",),
    examples=(
        "grape costs import constraints.py --out pour.yaml --keypoints handle,spout,body,cup",
        "grape costs import constraints.py --out push.yaml --suite metaworld --task push --keypoints object,goal",
    ),
)

VERB = VerbOfKinds(
    name="costs",
    summary="Cost specifications: the stages and constraints that price a trajectory.",
    kinds={
        "list": LIST,
        "show": SHOW,
        "check": CHECK,
        "validate": VALIDATE,
        "schema": SCHEMA,
        "generate": GENERATE,
        "import": IMPORT,
    },
    summaries={
        "list": "The built-in specifications",
        "show": "Stages and constraints of one",
        "check": "Mistakes in one, before anything is scored",
        "validate": "A trial of one on recorded episodes: accept or reject, with reasons",
        "schema": "The language as a JSON Schema, for editors and models",
        "generate": "Ask a vision-language model for one, check it and have it fixed",
        "import": "Translate constraint functions in Python into one; nothing is executed",
    },
)
