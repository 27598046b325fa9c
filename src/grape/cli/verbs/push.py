"""``grape push``."""

from rich.console import Console

from grape.cli.show import Summary, show_fields
from grape.cli.verb import Verb
from grape.hub import PushSettings, run_push


def _show(summary: Summary, console: Console) -> None:
    facts = {**summary, "files": f"{summary['files']} ({summary['bytes'] / 1e6:,.1f} MB)"}
    facts["pushed"] = f"yes, {summary['url']} at {summary['commit'][:12]}" if summary["pushed"] else "no"
    show_fields(facts, console, "what", "to", "folder", "files", "pushed", "open")


VERB = Verb(
    name="push",
    settings=PushSettings,
    run=run_push,
    show=_show,
    positionals=("run",),
    examples=(
        "grape push runs/tpo --to my-lab/carrot-7b --license apache-2.0",
        "grape push runs/pairs --to my-lab/carrot-pairs --license cc-by-4.0 --private",
        "grape push runs/loop --what report --to my-lab/carrot-report --offline",
    ),
)
