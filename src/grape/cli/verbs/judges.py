"""``grape judges``: kinds of work on scorers and judges, each with its own settings."""

from rich.console import Console

from grape.cli.show import Summary
from grape.cli.verb import Verb, VerbOfKinds
from grape.judges.verb import (
    JudgesListSettings,
    JudgesValidateSettings,
    run_judges_list,
    run_judges_validate,
)


def _show(summary: Summary, console: Console) -> None:
    console.print(summary["text"], soft_wrap=True)


LIST = Verb(
    name="judges list",
    settings=JudgesListSettings,
    run=run_judges_list,
    show=_show,
    examples=("grape judges list",),
)

VALIDATE = Verb(
    name="judges validate",
    settings=JudgesValidateSettings,
    run=run_judges_validate,
    show=_show,
    positionals=("judge",),
    examples=(
        "grape judges validate scorer:costs --store runs/clean/store runs/noisy/store runs/sloppy/store",
        "grape judges validate 'python my_judge.py' --store runs/rollouts/store --couples 40",
    ),
    exit_code=lambda summary: 0 if summary["verdict"] == "accept" else 1,
)

VERB = VerbOfKinds(
    name="judges",
    summary="Scorers and judges: who says what an episode is worth, and which of two is better.",
    kinds={"list": LIST, "validate": VALIDATE},
    summaries={
        "list": "Those of GRAPE and of installed packages",
        "validate": "A trial of one on couples of known order: accept or reject, with reasons",
    },
)
