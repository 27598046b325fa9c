"""Hand-written against generated cost specifications, on recorded episodes: ``make bench-costs``.

Ten tasks of Meta-World and LIBERO. For each: the built-in specification, written by hand, and two that the generation's
own loop made from prepared answers (``benchmarks/cost_answers``). NO MODEL WAS ASKED: the answers were written by hand,
"good" in the manner of a careful model, "mediocre" in that of a hasty one, slips included, before any result
was seen. Who wrote them saw instruction, names and meanings; the built-in ones were tuned on recordings.

Episodes: scripted experts, clean, noisy and sloppy; Meta-World's are played here without images (two CPU-minutes,
kept under --work), LIBERO's are the recordings of ``tests/costs/libero``. Everything is deterministic. Run as a
module: ``python -m benchmarks.generated_costs``.
"""

import argparse
import json
from pathlib import Path

from benchmarks.cost_measures import compare
from benchmarks.cost_recordings import TASKS, episodes_of
from grape.core.files import write_json, write_text
from grape.costs import builtin_specification, parse_specification, specification_hash, suite_names_of
from grape.envs.registry import get_suite
from grape.generation.briefs import TaskBrief
from grape.generation.feedback import Sampling, generate, prompts_hash
from grape.vlm import ScriptedModel

ANSWERS = Path(__file__).parent / "cost_answers"
MANNERS = ("good", "mediocre")
ALL = ("by hand", *MANNERS)
RESULTS = Path("docs/results")


def brief_for(task) -> TaskBrief:
    names = suite_names_of(task.suite)
    hz = get_suite(task.suite).action_space.control_hz
    return TaskBrief(task.instruction, task.max_steps, names.keypoints, names.signals, task.suite, task.name, hz)


def generated(task, manner: str):
    """The specification that the loop ends with, as YAML, and what it took."""
    folder = ANSWERS / manner / f"{task.suite}-{task.name if task.suite == 'metaworld' else task.index}"
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.iterdir())]
    model = ScriptedModel(f"{manner} (written by hand)", texts)
    rounds = generate(model, brief_for(task), repairs=len(texts) - 1, sampling=Sampling())
    last = rounds[-1].verdict
    assert last.accepted, f"{folder}: {last.findings}"
    assert len(rounds) == len(texts), f"{folder}: an answer was not needed"
    findings = [finding for one in rounds for finding in one.verdict.findings]
    return last.text, {"rounds": len(rounds), "findings": findings}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/bench-costs"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--initial-states", type=int, default=12, help="of Meta-World, from 300 on")
    chosen = parser.parse_args()
    rows = []
    for suite, selection in TASKS:
        task = next(task for task in get_suite(suite).tasks if selection in (task.name, task.index))
        episodes = episodes_of(task, chosen.work, range(300, 300 + chosen.initial_states))
        by_hand = builtin_specification(task.suite, task.name)
        row = {
            "task": task.id if task.suite == "metaworld" else f"{task.suite}/{task.index}",
            "instruction": task.instruction,
            "episodes": len(episodes),
            "successes": sum(episode.meta.success for episode in episodes),
            "initial_states": len({episode.meta.initial_state for episode in episodes}),
            "specifications": {"by hand": specification_hash(by_hand)},
            "loop": {},
        }
        specifications, texts = {"by hand": by_hand}, {"by hand": ""}
        for manner in MANNERS:
            texts[manner], row["loop"][manner] = generated(task, manner)
            specifications[manner] = parse_specification(texts[manner], f"{manner} {task.id}")
            row["specifications"][manner] = specification_hash(specifications[manner])
        row["measures"] = compare(task, episodes, specifications, texts, chosen.work)
        rows.append(row)
        print(json.dumps({"task": row["task"], **row["measures"]}), flush=True)
    record = {
        "what": "Generated cost specifications against hand-written ones; answers written by hand, no model was asked.",
        "command": "make bench-costs",
        "prompts": prompts_hash(),
        "tasks": rows,
    }
    write_json(chosen.out / "generated-costs.json", record)
    write_text(chosen.work / "tables.md", tables(rows))
    print(tables(rows))


RANKING = (("auc_motion", ALL), ("auc_early", ALL), ("easier", ALL))
AGREEMENT = (("tau", MANNERS), ("pairs_changed", MANNERS), ("pairs_reversed", MANNERS))


def tables(rows) -> str:
    """The page's tables in Markdown."""
    lines = [*measures_table(rows, RANKING), "", *measures_table(rows, AGREEMENT)]
    lines += ["", "| task | by hand | good | mediocre |", "|---|---|---|---|"]
    lines += [f"| {row['task']} | " + " | ".join(card(row["measures"][name]) for name in ALL) + " |" for row in rows]
    lines += ["", "| task | mediocre: rounds | what was found on the way |", "|---|---|---|"]
    for row in rows:
        loop = row["loop"]["mediocre"]
        findings = "; ".join(f"`{finding[:90]}`" for finding in loop["findings"]) or "nothing"
        lines.append(f"| {row['task']} | {loop['rounds']} | {findings} |")
    return "\n".join(lines) + "\n"


def measures_table(rows, columns) -> list[str]:
    """A row a task, a column a measure and specification, and the mean over the tasks."""
    titles = [f"{measure}, {name}" for measure, names in columns for name in names]
    lines = ["| task | episodes (solved) | " + " | ".join(titles) + " |", "|---" * (len(titles) + 2) + "|"]
    cells = [[row["measures"][name][measure] for measure, names in columns for name in names] for row in rows]
    for row, values in zip(rows, cells, strict=True):
        lines.append(
            f"| {row['task']} | {row['episodes']} ({row['successes']}) | " + " | ".join(map(cell, values)) + " |"
        )
    for title, kept in (("mean", rows), ("mean of Meta-World", [row for row in rows if "metaworld" in row["task"]])):
        chosen = [values for row, values in zip(rows, cells, strict=True) if row in kept]
        known = [[value for value in column if value is not None] for column in zip(*chosen, strict=True)]
        lines.append(f"| {title} | | " + " | ".join(cell(sum(column) / len(column)) for column in known) + " |")
    return lines


def cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def card(measures) -> str:
    failed = ", ".join(measures["failed_checks"])
    return measures["verdict"] + (f": {failed}" if failed else "")


if __name__ == "__main__":
    main()
