"""``grape pair``."""

from typing import Any

from rich.console import Console

from grape.cli.show import Summary, show_fields
from grape.cli.verb import Verb
from grape.preferences import PairSettings, run_pair


def _show(summary: Summary, console: Console) -> None:
    shown: dict[str, Any] = {
        name: value for name, value in summary.items() if value is not None and not isinstance(value, bool | dict)
    }
    if "stores" in summary:
        shown["stores"] = ", ".join(summary["stores"])
    if summary.get("stage_wise"):
        shown["mode"] = f"{summary['mode']}, stage-wise"
        shown["mean_margin"] = f"{summary['mean_margin']:.4g} in units of cost"
    if "weight" in summary:
        shown["weight"] = f"by {summary['weight']}, 1 on average"
    if cut := summary.get("cut"):
        shown["cut"] = (
            f"{cut['pairs']} of {summary['pairs']} pairs; rejected sides from {cut['rejected_decisions']} to "
            f"{cut['rejected_decisions_kept']} control steps"
        )
    if judge := summary.get("judge"):
        shown["judge"] = f"{judge['label']}: {judge['answers']} answers, {judge['ties']} of them ties"
        shown["judge"] += f", {judge['unanswered']} couples without one" if judge["unanswered"] else ""
    show_fields(shown, console, *shown)


VERB = Verb(
    name="pair",
    settings=PairSettings,
    run=run_pair,
    show=_show,
    examples=(
        "grape pair --scores runs/scores --out runs/pairs",
        "grape pair --scores runs/scores --out runs/pairs-random --mode random",
        "grape pair --scores runs/scores --out runs/pairs-mine --judge 'python my_judge.py' --mode random",
    ),
)
