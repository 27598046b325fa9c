"""Tables of a run as CSV, with every figure at full precision; a value that nobody knows is an empty cell."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from grape.core.errors import printable
from grape.evaluation import EvaluationResults, TaskResults
from grape.report.contents import Evaluated, RunContents

__all__ = ["csv_text", "evaluations_of", "run_tables"]

Row = Mapping[str, Any]


def csv_text(rows: Sequence[Row]) -> str:
    """Rows as CSV (RFC 4180, but with line feeds), the columns in the order in which the rows first name them."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return printable(value) if isinstance(value, str) else value


def evaluations_of(contents: RunContents) -> list[tuple[str, str, Evaluated]]:
    """Every evaluated policy with what it was measured on: states that decided in the run, or the test states."""
    evaluated = [("iterations", arm.label, policy) for arm in contents.arms for policy in arm.policies]
    return evaluated + [("test", "", policy) for policy in (contents.before, contents.after) if policy is not None]


def run_tables(contents: RunContents) -> dict[str, list[Row]]:
    """The tables by name; those without a row are left out."""
    evaluated = [
        ({"states": states, "arm": arm, "policy": policy.label, "evaluation": policy.name}, policy, policy.results)
        for states, arm, policy in evaluations_of(contents)
        if policy.results is not None
    ]
    tables: dict[str, list[Row]] = {
        "success": [
            {**names, **_figures(results), "accepted": policy.accepted} for names, policy, results in evaluated
        ],
        "success-by-task": [
            {**names, "task": task, "instruction": figures.instruction, **_figures(figures)}
            for names, _, results in evaluated
            for task, figures in results.tasks.items()
        ],
        "scores": [
            {
                "round": item.round.label,
                "episode": score.episode_id,
                "task": score.task,
                "initial_state": score.initial_state,
                "success": score.success,
                "control_steps": score.steps,
                "r_self": score.r_self,
                "r_ext": score.r_ext,
                "cost": score.cost,
                **{f"term_{name}": value for name, value in score.terms.items()},
                "r_gcpg": score.gcpg,
            }
            for item in contents.rounds
            for score in item.scores.values()
        ],
        "pairs": [
            {
                "round": item.round.label,
                "pair": pair.pair_id,
                "task": pair.task,
                "initial_state": pair.initial_state,
                "chosen": pair.chosen,
                "rejected": pair.rejected,
                "margin": pair.margin,
                **{f"term_{name}": value for name, value in pair.terms.items()},
                "reason": pair.reason,
            }
            for item in contents.rounds
            for pair in item.pairs
        ],
    }
    trainings = [contents.sft] if contents.sft is not None else []
    trainings += [item.training for item in contents.rounds if item.training is not None]
    tables["training"] = [
        {"training": training.label, **_scalars(row.items())} for training in trainings for row in training.rows
    ]
    return {name: rows for name, rows in tables.items() if rows}


def _figures(figures: EvaluationResults | TaskResults) -> Row:
    low, high = figures.interval
    return {
        "episodes": figures.episodes,
        "successes": figures.successes,
        "success_rate": figures.success_rate,
        "interval_low": low,
        "interval_high": high,
        "mean_control_steps": figures.mean_steps,
    }


def _scalars(items: Iterable[tuple[str, Any]]) -> Row:
    return {name: value for name, value in items if value is None or isinstance(value, str | int | float)}
