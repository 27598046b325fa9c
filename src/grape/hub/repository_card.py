"""The card of a pushed repository: ``README.md`` with the front matter that the hub documents."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import grape
from grape.core.repositories import HubName
from grape.hub.evidence import Evidence, Figure, Measured
from grape.hub.parcel import Parcel
from grape.hub.settings import PushSettings

__all__ = ["CARD", "card_text", "opening_command"]

CARD = "README.md"

_WHAT = {
    "policy": "A vision-language-action policy",
    "adapter": "A LoRA adapter of a vision-language-action policy",
    "store": "Recorded robot episodes with images, actions, log-probabilities and keypoints",
    "pairs": "Preference pairs between recorded robot episodes, with the episodes",
    "report": "The report of a run",
}
_FILES_LISTED = 40


def opening_command(what: str, name: HubName, evidence: Evidence) -> str:
    """The one command that opens what was pushed.

    Args:
        what: What it is.
        name: Where it is.
        evidence: Says the suite.
    """
    suite = evidence.suite or "SUITE"
    return {
        "store": f"grape score --store {name.address} --out runs/scores",
        "pairs": f"grape train --pairs {name.address} --policy POLICY --out runs/aligned",
        "report": f"hf download {name.repository} --repo-type dataset --local-dir report",
    }.get(what, f"grape evaluate --policy {name.address} --suite {suite}")


def card_text(
    settings: PushSettings, parcel: Parcel, evidence: Evidence, name: HubName, hashes: Mapping[str, str]
) -> str:
    """The card; equal content gives equal text, and no time of day is in it.

    Args:
        settings: License and data sets.
        parcel: What is pushed.
        evidence: What was measured of it.
        name: Where it is pushed to.
        hashes: SHA-256 of every file, by name.
    """
    front = yaml.safe_dump(_front_matter(settings, parcel, evidence, name), sort_keys=False, allow_unicode=True)
    made = f" It was made by `grape {parcel.verb}`." if parcel.verb else ""
    base = f" It was trained from [{parcel.base_model}](https://huggingface.co/{parcel.base_model})." * bool(
        parcel.base_model
    )
    parts = [
        f"---\n{front}---",
        f"# {name.repository.rpartition('/')[2]}",
        f"{_WHAT[parcel.what]}, in the formats of GRAPE {grape.__version__}{_commit()}.{made}{base}",
        "## Opening it",
        f"```\npip install 'grape-vla[hub]'\n{opening_command(parcel.what, name, evidence)}\n```",
        "Nothing in this repository is run when GRAPE opens it: weights are safetensors, episodes are Parquet.",
        "## What was measured",
        *_measurements(evidence),
        *(["## How it was made", *_making(parcel)] if parcel.verb else []),
        "## Limits",
        "Everything was measured in simulation, and intervals speak of fresh initial states of the same tasks alone. "
        "A policy moves a real machine: try it in simulation first."
        + ("" if settings.license else " No license was stated by who pushed this."),
        "## Files",
        _files(hashes),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(settings: PushSettings, parcel: Parcel, evidence: Evidence, name: HubName) -> dict[str, Any]:
    """The header, with the keys of the hub's documentation of model and data set cards."""
    datasets = list(dict.fromkeys([*settings.datasets, *parcel.datasets]))
    front: dict[str, Any] = {"license": settings.license} if settings.license else {}
    tags = ["grape", "robotics", "preference-optimization", *([evidence.suite] if evidence.suite else [])]
    if parcel.kind == "dataset":
        front |= {"pretty_name": name.repository.rpartition("/")[2], "task_categories": ["robotics"]}
        front |= {"tags": [*tags, parcel.what]}
        return front | ({"source_datasets": datasets} if datasets else {})
    front |= {"library_name": "grape-vla", "pipeline_tag": "robotics", "tags": [*tags, "vla"]}
    if parcel.base_model:
        front |= {"base_model": parcel.base_model}
        front |= {"base_model_relation": "adapter" if parcel.what == "adapter" else "finetune"}
    front |= {"datasets": datasets} if datasets else {}
    results = [_model_index_entry(item) for item in evidence.measured]
    title = name.repository.rpartition("/")[2]
    return front | ({"model-index": [{"name": title, "results": results}]} if results else {})


def _model_index_entry(item: Measured) -> dict[str, Any]:
    metrics = [_metric("success_rate", item.own[0], "success rate")]
    if item.control:
        metrics.append(_metric("success_rate_of_control", item.control[0], "success rate of the starting policy"))
    return {
        "task": {"type": "robotics", "name": "Robotics"},
        "dataset": {"type": item.suite, "name": f"{item.suite}: {', '.join(item.tasks)} ({item.condition})"},
        "metrics": metrics,
    }


def _metric(kind: str, figure: Figure, title: str) -> dict[str, Any]:
    bounds = f"95 % interval {figure.low:.4f} to {figure.high:.4f}, {figure.episodes} episodes"
    return {"type": kind, "value": round(figure.rate, 4), "name": f"{title} ({bounds})"}


def _measurements(evidence: Evidence) -> list[str]:
    parts = []
    for item in evidence.measured:
        rows = [("this policy", figure) for figure in item.own] + [
            ("starting policy (control)", figure) for figure in item.control
        ]
        parts.append(f"On suite `{item.suite}`, {item.condition}:")
        parts.append(_table(rows))
        parts += [text for text in (item.sentence, item.caution) if text]
        if not item.control:
            parts.append("The policy that training started from was not measured on these states: there is no control.")
    if evidence.counts:
        parts.append(", ".join(f"{value:,} {label}" for label, value in evidence.counts.items()) + ".")
    if evidence.figures:
        parts.append(_table([("success", figure) for figure in evidence.figures]))
    return [*parts, *evidence.notes]


def _table(rows: Sequence[tuple[str, Figure]]) -> str:
    lines = ["| | of | success | 95 % interval | episodes |", "|---|---|---|---|---|"]
    lines += [
        f"| {_cell(who)} | {_cell(figure.label)} | {100 * figure.rate:.1f} % "
        f"| {100 * figure.low:.1f} to {100 * figure.high:.1f} % | {figure.episodes} |"
        for who, figure in rows
    ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _making(parcel: Parcel) -> list[str]:
    parts = []
    if parcel.settings:
        text = yaml.safe_dump(dict(parcel.settings), sort_keys=True, allow_unicode=True)
        parts.append(f"Settings of `grape {parcel.verb}`, without paths:\n\n```yaml\n{text}```")
    hashes = {key: value for key, value in parcel.inputs.items() if isinstance(value, str) and value}
    if hashes:
        parts.append("Made from:\n\n" + "\n".join(f"- {key}: `{value}`" for key, value in sorted(hashes.items())))
    own = parcel.summary.get("policy_hash")
    return [*parts, *([f"Hash of the policy: `{own}`."] if own else [])]


def _files(hashes: Mapping[str, str]) -> str:
    rows = [f"| `{name}` | `{digest}` |" for name, digest in sorted(hashes.items())]
    more = len(rows) - _FILES_LISTED
    table = "\n".join(["| file | SHA-256 |", "|---|---|", *rows[:_FILES_LISTED]])
    return table + (f"\n\nand {more} more, in `grape_push.json`." if more > 0 else "")


def _commit() -> str:
    """The commit of the sources that run, where they lie in their own checkout; else empty."""
    folder = Path(grape.__file__).resolve().parent
    try:
        reply = subprocess.run(
            ["git", "rev-parse", "--show-toplevel", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = reply.stdout.split()
    return f" (commit {lines[1][:12]})" if len(lines) == 2 and Path(lines[0]) / "src" / "grape" == folder else ""
