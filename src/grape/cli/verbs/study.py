"""``grape study``."""

from rich.console import Console

from grape.cli.show import Summary
from grape.cli.verb import Verb
from grape.study import StudySettings, run_study
from grape.study.plan import format_plan
from grape.study.settings import DECIDED_BY_STUDY
from grape.study.table import format_study


def show_study(summary: Summary, console: Console) -> None:
    """The table and its sentences."""
    for line in format_study(summary):
        console.print(line, soft_wrap=True, highlight=False)


def show_study_plan(summary: Summary, console: Console) -> None:
    """The plan of a study's dry run, a line a kind of work."""
    for line in format_plan(summary):
        console.print(line, soft_wrap=True, highlight=False)


VERB = Verb(
    name="study",
    settings=StudySettings,
    run=run_study,
    hidden=DECIDED_BY_STUDY,
    paths=("page",),
    show=show_study,
    show_plan=show_study_plan,
    examples=(
        "grape study --config examples/studies/toy.yaml --out runs/study",
        'grape study --config study.yaml --out runs/half --cells "tpo:0-2,filtered-bc:0-2"',
        "grape study --config study.yaml --out runs/whole --merge runs/half /mnt/other/half",
        "grape study --config study.yaml --out runs/study --dry-run --seconds-per-episode 2.5",
    ),
)
