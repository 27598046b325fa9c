"""``grape export``: a kind of data or checkpoint, each with settings of its own."""

from rich.console import Console

from grape.checkpoints import ExportAdapterSettings, ExportMergedSettings, run_export_adapter, run_export_merged
from grape.cli.show import Summary, show_fields
from grape.cli.verb import Verb, VerbOfKinds


def _show(summary: Summary, console: Console) -> None:
    size = sum(summary["files"].values())
    facts = {**summary, "files": f"{len(summary['files'])} ({size / 1e6:,.1f} MB)"}
    show_fields(facts, console, "policy", "base", "files", "out")


MERGED = Verb(
    name="export merged",
    settings=ExportMergedSettings,
    run=run_export_merged,
    show=_show,
    examples=(
        "grape export merged --policy runs/tpo/policy --out exports/carrot-7b",
        "grape export merged --policy runs/tpo/policy --out exports/carrot-7b --shard-gb 2",
    ),
)

ADAPTER = Verb(
    name="export adapter",
    settings=ExportAdapterSettings,
    run=run_export_adapter,
    show=_show,
    examples=("grape export adapter --policy runs/tpo/policy --out exports/carrot-lora --base openvla/openvla-7b",),
)

VERB = VerbOfKinds(
    name="export",
    summary="Write data and checkpoints for other programs.",
    kinds={"merged": MERGED, "adapter": ADAPTER},
    summaries={
        "merged": "A whole checkpoint, adapter merged: OpenVLA's, SimplerEnv's and LIBERO's own scripts load it",
        "adapter": "A LoRA adapter in PEFT's layout, to be put onto its base",
    },
)
