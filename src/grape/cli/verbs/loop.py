"""``grape loop``."""

from rich.console import Console

from grape.cli.show import LOOP_PATHS, Summary, show_loop
from grape.cli.verb import Verb
from grape.loop import RECIPES, LoopSettings, run_loop
from grape.loop.plan import format_plan
from grape.loop.settings import DECIDED_BY_LOOP


def show_loop_plan(summary: Summary, console: Console) -> None:
    """The plan of a loop's dry run, a line a stage."""
    for line in format_plan(summary):
        console.print(line, soft_wrap=True)


VERB = Verb(
    name="loop",
    settings=LoopSettings,
    run=run_loop,
    hidden=DECIDED_BY_LOOP,
    recipes=RECIPES,
    paths=LOOP_PATHS,
    show=show_loop,
    show_plan=show_loop_plan,
    examples=(
        "grape loop --out runs/loop --tasks drawer-open,faucet-open --policy runs/sft/policy --iterations 2",
        "grape loop --recipe libero-nano --out runs/libero-nano",
        "grape loop --config my-loop.yaml --out runs/loop --train.beta 0.05",
        "grape loop --out runs/loop --gpus 4 --dry-run",
    ),
    processes="group",
)
