"""``grape demo``: a loop with a recipe that is known to work on a laptop."""

from pathlib import Path

import grape.loop
from grape.cli.show import show_loop
from grape.cli.verb import Verb
from grape.loop import LoopSettings, run_loop

VERB = Verb(
    name="demo",
    settings=LoopSettings,
    run=run_loop,
    show=show_loop,
    defaults=Path(grape.loop.__file__).parent / "recipes" / "metaworld-nano.yaml",
    examples=("grape demo", "grape demo --seed 7 --out runs/demo-7"),
)
