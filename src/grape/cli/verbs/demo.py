"""``grape demo``: a loop with a recipe that is known to work on a laptop."""

from pathlib import Path

import grape.loop
from grape.cli.show import LOOP_PATHS, Summary, show_loop
from grape.cli.verb import Verb
from grape.core.events import Reporter
from grape.loop import LoopSettings, out_of_seed, run_loop


def _settled(settings: LoopSettings) -> LoopSettings:
    return out_of_seed(settings, Path("runs/demo"))


def _run(settings: LoopSettings, reporter: Reporter) -> Summary:
    return run_loop(_settled(settings), reporter)


VERB = Verb(
    name="demo",
    settings=LoopSettings,
    run=_run,
    paths=LOOP_PATHS,
    folder=lambda settings: _settled(settings).out,
    show=show_loop,
    defaults=Path(grape.loop.__file__).parent / "recipes" / "metaworld-nano.yaml",
    examples=(
        "grape demo                            (writes runs/demo)",
        "grape demo --seed 7                   (writes runs/demo-7)",
        "grape demo --seed 7 --out elsewhere",
    ),
)
