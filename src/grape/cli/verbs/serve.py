"""``grape serve``."""

from rich.console import Console

from grape.cli.show import Summary, show_fields
from grape.cli.verb import Verb
from grape.serving import ServeSettings, run_serve


def _show(summary: Summary, console: Console) -> None:
    counts = ", ".join(f"{count} {outcome}" for outcome, count in summary["requests"].items())
    show_fields({**summary, "requests": counts}, console, "url", "requests", "observations", "seconds")


VERB = Verb(
    name="serve",
    settings=ServeSettings,
    run=run_serve,
    show=_show,
    examples=(
        "grape serve --policy runs/sft/policy",
        "grape serve --policy openvla/openvla-7b --unnorm-key bridge_orig --port 9000",
        "grape serve --policy runs/train/policy --host 0.0.0.0 --image-keys images/cam_high "
        "--state-keys observation/joint_position observation/gripper_position",
        "grape evaluate --suite toy --policy ws://127.0.0.1:8000",
    ),
)
