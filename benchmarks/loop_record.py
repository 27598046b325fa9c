"""Record of a finished loop: ``python benchmarks/loop_record.py runs/libero-nano --out docs/results/libero-nano.json``.

Everything is read from the run's own files: each stage's summary, the gate's paired comparison, the evaluations on
validation and test states with their intervals, and the final comparison, also of filtered BC
where the loop had it. What the run cannot know is given by flags: the command, the machine in plain words, and how long
it took.
"""

import argparse
from pathlib import Path
from typing import Any

from measured_on import commit

from grape.core.files import read_json, write_json

# Of a stage's summary, what has a place in a record.
KEEP = {
    "collect": ("episodes", "successes", "success_rate", "mean_steps", "tasks"),
    "sft": ("episodes", "steps", "updates", "loss", "token_accuracy", "parameters"),
    "pair": ("pairs", "overall", "tasks", "chosen_success_rate", "rejected_success_rate"),
    "train": ("method", "pairs", "updates", "metrics", "parity"),
    "evaluate": ("episodes", "successes", "success_rate", "interval", "mean_steps", "tasks"),
    "compare": ("pairs", "difference", "interval", "p_value", "tasks", "headline"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--command", required=True)
    parser.add_argument("--machine", default="")
    parser.add_argument("--seconds", type=float, required=True, help="wall time from the command to its end")
    parser.add_argument("--commit", default=commit(), help="commit that the run was made with")
    options = parser.parse_args()
    run = options.run
    loop = read_json(run / "loop.json") if (run / "loop.json").exists() else {}
    record: dict[str, Any] = {
        "command": options.command,
        "commit": options.commit,
        "finished": bool(loop),
        "machine": options.machine,
        "wall_seconds": options.seconds,
        "settings": settings(run),
        "stages": stages(run),
        "tests": {folder.parent.name: kept(folder, "evaluate") for folder in sorted(run.glob("test/*/results.json"))},
    }
    names = ("suite", "tasks", "seed", "versions", "policies", "comparison", "arms")
    record |= {name: loop[name] for name in names if name in loop}
    write_json(options.out, _with_paths_in_the_run(record, f"{run.resolve()}/"))


def _with_paths_in_the_run(value: Any, root: str) -> Any:
    """The same with paths as seen from the run's folder: where it lay says nothing to a reader."""
    if isinstance(value, str):
        return value.removeprefix(root)
    if isinstance(value, list | tuple):
        return [_with_paths_in_the_run(item, root) for item in value]
    if isinstance(value, dict):
        return {name: _with_paths_in_the_run(item, root) for name, item in value.items()}
    return value


def settings(run: Path) -> dict[str, Any]:
    """The loop's settings, without the fields of its parts that the loop itself decides."""
    loop_settings = dict(read_json(run / "run.json")["settings"])
    record_decision = {"suite", "tasks", "policy"}
    for part, names in (("collect", record_decision | {"initial_states"}), ("demonstrations", record_decision)):
        loop_settings[part] = {name: value for name, value in loop_settings[part].items() if name not in names}
    return loop_settings


def stages(run: Path) -> dict[str, Any]:
    """Summaries of the stages that the run has, in their order."""
    summaries = {
        "demonstrations": kept(run / "demonstrations" / "done.json", "collect"),
        "sft": kept(run / "sft" / "done.json", "sft"),
        "validation of SFT": kept(run / "evaluate" / "sft" / "results.json", "evaluate"),
    }
    for folder in sorted(run.glob("iteration-*"), key=lambda path: int(path.name.rpartition("-")[2])):
        for stage in ("collect", "pair", "train"):
            summaries[f"{folder.name}: {stage}"] = kept(folder / stage / "done.json", stage)
        summaries[f"{folder.name}: validation"] = kept(folder / "evaluate" / "results.json", "evaluate")
        summaries[f"{folder.name}: gate"] = kept(folder / "compare" / "comparison.json", "compare")
    for stage, name in (("pair", "done.json"), ("train", "done.json"), ("evaluate", "results.json")):
        summaries[f"filtered BC: {stage}"] = kept(run / "cloning" / stage / name, stage)
    return {name: summary for name, summary in summaries.items() if summary}


def kept(path: Path, stage: str) -> dict[str, Any]:
    """What is to be kept of a summary; nothing where the run did not get there."""
    if not path.exists():
        return {}
    summary = read_json(path)
    return {name: summary[name] for name in KEEP[stage] if name in summary}


if __name__ == "__main__":
    main()
