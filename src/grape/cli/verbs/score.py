"""``grape score``."""

from rich.console import Console

from grape.cli.show import Summary, show_fields, show_plain_values
from grape.cli.verb import Verb
from grape.preferences import ScoreSettings, run_score


def _show(summary: Summary, console: Console) -> None:
    show_plain_values(summary, console)
    if "stores" in summary:
        show_fields({"stores": ", ".join(summary["stores"])}, console, "stores")
    rows = {}
    for label, part in summary.get("scorers", {}).items():
        mean = "none" if part["mean"] is None else f"{part['mean']:.4g}"
        missing = f", {len(part['missing'])} missing" if part["missing"] else ""
        rows[f"scorer {label}"] = f"{part['values']} values, mean {mean}{missing}"
    width = max(map(len, rows), default=0)
    for title, text in rows.items():  # labels as they were given
        console.print(f"{title:<{width}}  {text}", soft_wrap=True)


VERB = Verb(
    name="score",
    settings=ScoreSettings,
    run=run_score,
    paths=("store", "stores"),
    show=_show,
    examples=(
        "grape score --store runs/rollouts/store --out runs/scores",
        "grape score --store shards/1 shards/2 --out runs/scores",
        "grape score --store runs/rollouts/store --out runs/scores-mine --costs my-costs/",
        "grape score --store runs/rollouts/store --out runs/scores-safe --objectives safety:4,efficiency:0",
        "grape score --store runs/rollouts/store --out runs/scores-more --scorer success 'python progress.py'",
    ),
)
