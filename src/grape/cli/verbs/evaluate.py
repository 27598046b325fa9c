"""``grape evaluate``."""

from grape.cli.show import show_evaluation
from grape.cli.verb import Verb
from grape.evaluation import EvaluateSettings, run_evaluate

VERB = Verb(
    name="evaluate",
    settings=EvaluateSettings,
    run=run_evaluate,
    show=show_evaluation,
    examples=(
        "grape evaluate --suite metaworld --tasks 0,2 --episodes 50 --policy runs/sft/policy --out runs/evaluation",
        "grape evaluate --protocol libero-openvla-v1 --suite libero_spatial "
        "--policy openvla/openvla-7b-finetuned-libero-spatial",
        "grape evaluate --protocol simpler-widowx-24x3 --suite simpler_widowx --policy runs/sft/policy --dry-run",
        "grape evaluate --suite metaworld --policy expert --initial-states 10,11-20 --out runs/expert --json",
    ),
)
