"""``grape doctor``."""

from rich.console import Console

from grape.cli.show import Summary
from grape.cli.verb import Verb
from grape.doctor import DoctorSettings, run_doctor

_STYLES = {"ok": "green", "warn": "yellow", "error": "red"}


def _show(summary: Summary, console: Console) -> None:
    for finding in summary["findings"]:
        level = finding["level"]
        console.print(f"{level:<5} ", end="", style=_STYLES[level])
        console.print(f"{finding['name']}: {finding['found']}", soft_wrap=True)
        if finding.get("fix"):
            console.print(f"      -> {finding['fix']}", soft_wrap=True)


VERB = Verb(
    name="doctor",
    settings=DoctorSettings,
    run=run_doctor,
    show=_show,
    exit_code=lambda summary: 0 if summary["ok"] else 1,
    examples=("grape doctor", "grape doctor --json"),
    processes="each",
)
