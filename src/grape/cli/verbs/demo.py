"""``grape demo``: a loop with a recipe that runs on a laptop."""

from pathlib import Path

from grape.cli.show import LOOP_PATHS, Summary, show_loop
from grape.cli.verb import Verb
from grape.cli.verbs.loop import show_loop_plan
from grape.core.events import Reporter
from grape.loop import RECIPES, LoopSettings, out_of_seed, run_loop
from grape.loop.settings import DECIDED_BY_LOOP


def _settled(settings: LoopSettings) -> LoopSettings:
    return out_of_seed(settings, Path("runs/demo"))


def _run(settings: LoopSettings, reporter: Reporter) -> Summary:
    return run_loop(_settled(settings), reporter)


VERB = Verb(
    name="demo",
    settings=LoopSettings,
    run=_run,
    hidden=DECIDED_BY_LOOP,
    recipes=RECIPES,
    paths=LOOP_PATHS,
    folder=lambda settings: _settled(settings).out,
    show=show_loop,
    show_plan=show_loop_plan,
    defaults=RECIPES / "metaworld-nano.yaml",
    examples=(
        "grape demo                            (writes runs/demo)",
        "grape demo --seed 7                   (writes runs/demo-7)",
        "grape demo --seed 7 --out runs/another",
    ),
)
