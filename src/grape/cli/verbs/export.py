"""``grape export``: kinds of data and checkpoints, each with its own settings."""

from rich.console import Console

from grape.checkpoints import ExportAdapterSettings, ExportMergedSettings, run_export_adapter, run_export_merged
from grape.cli.show import Summary, show_fields
from grape.cli.verb import Verb, VerbOfKinds
from grape.exchange import (
    LeRobotExportSettings,
    RerunExportSettings,
    RldsExportSettings,
    run_export_lerobot,
    run_export_rerun,
    run_export_rlds,
)


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


def _show_rlds(summary: Summary, console: Console) -> None:
    show_fields(summary, console, "kind", "pairs", "episodes", "gripper")
    for split, facts in summary["splits"].items():
        counted = facts.get("pairs", facts.get("episodes"))
        console.print(f"{split}: {counted} in {len(facts['shard_lengths'])} files")


RLDS = Verb(
    name="export rlds",
    settings=RldsExportSettings,
    run=run_export_rlds,
    show=_show_rlds,
    examples=(
        "grape export rlds --pairs runs/pairs --out exports/pairs-rlds",
        "grape export rlds --collection runs/demos --only-successes --out exports/demos-rlds",
    ),
)


def _show_lerobot(summary: Summary, console: Console) -> None:
    show_fields(summary, console, "kind", "pairs", "episodes", "steps", "tasks", "fps")
    loss = summary["picture_loss_db"]
    texts = {name: "nothing" if value is None else f"{value} dB" for name, value in loss.items()}
    console.print(f"signal to noise of the video: {texts['mean']}, worst image {texts['worst']}")
    console.print("not in this format:")
    for line in summary["lost"]:
        console.print(f"- {line}")


LEROBOT = Verb(
    name="export lerobot",
    settings=LeRobotExportSettings,
    run=run_export_lerobot,
    show=_show_lerobot,
    examples=(
        "grape export lerobot --collection runs/demos --only-successes --out exports/demos-lerobot",
        "grape export lerobot --pairs runs/pairs --out exports/pairs-lerobot --crf 12",
    ),
)


def _show_rerun(summary: Summary, console: Console) -> None:
    facts = {**summary, "bytes": f"{summary['bytes'] / 1e6:,.1f} MB"}
    show_fields(facts, console, "kind", "episodes", "scored", "images", "curves", "bytes", "hz")


RERUN = Verb(
    name="export rerun",
    settings=RerunExportSettings,
    run=run_export_rerun,
    show=_show_rerun,
    examples=(
        "grape export rerun --store runs/rollouts --scores runs/scores --limit 20 --out exports/rollouts-rerun",
        "grape export rerun --pairs runs/pairs --scores runs/scores --out exports/pairs-rerun",
        "grape export rerun --store runs/rollouts --episodes drawer-open-i000003-k00 --out episode.rrd",
    ),
)

VERB = VerbOfKinds(
    name="export",
    summary="Write data and checkpoints for other programs.",
    kinds={"rlds": RLDS, "lerobot": LEROBOT, "rerun": RERUN, "merged": MERGED, "adapter": ADAPTER},
    summaries={
        "rlds": "Preference pairs or a collection as RLDS data sets that tensorflow_datasets and public loaders read",
        "lerobot": "Preference pairs or a collection as LeRobotDatasets v3.0: Parquet, MP4 (lossy), JSON",
        "rerun": "Episodes as recordings of the Rerun viewer: images, keypoints, stages, costs over time (.rrd)",
        "merged": "A whole checkpoint, adapter merged: OpenVLA's, SimplerEnv's and LIBERO's own scripts load it",
        "adapter": "A LoRA adapter in PEFT's layout, to be put onto its base",
    },
)
