"""``grape loop``."""

from grape.cli.show import LOOP_PATHS, show_loop
from grape.cli.verb import Verb
from grape.loop import LoopSettings, run_loop

VERB = Verb(
    name="loop",
    settings=LoopSettings,
    run=run_loop,
    paths=LOOP_PATHS,
    show=show_loop,
    examples=(
        "grape loop --out runs/loop --tasks drawer-open,faucet-open --policy runs/sft/policy --iterations 2",
        "grape loop --config my-loop.yaml --out runs/loop --train.beta 0.05",
        "grape loop --out runs/loop --dry-run",
    ),
)
