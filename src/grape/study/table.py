"""A study's result as lines for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from grape.study.diagnosis_table import diagnosis_lines

__all__ = ["format_study"]


def format_study(summary: Mapping[str, Any]) -> list[str]:
    """The figure of merit, a line an arm, a sentence a comparison, diagnoses, and what a reader must know."""
    lines = [f"Figure of merit, fixed beforehand: {summary['merit']['measured']}.", ""]
    head = ("arm", "seeds", "success", "95 % interval", "steps", "collisions", "updates", "pairs")
    lines += _aligned([head, *(_row(arm) for arm in summary["arms"])])
    lines += ["", *(row["sentence"] for row in summary["comparisons"])]
    if summary["comparisons"]:
        lines.append(
            "Tests flip the sign of an initial state with all its seeds: they are about these policies. Whether further"
            " runs would show a difference is what the seeds tell."
        )
    if "diagnosis" in summary:
        lines += ["", "Diagnosis, changes in nats a token:", *_aligned(diagnosis_lines(summary["diagnosis"])), ""]
        lines += [row["sentence"] for row in summary["diagnosis"]]
    lines += [f"Warning: {warning}" for warning in summary["warnings"]]
    if missing := summary["cells"]["missing"]:
        count = f"{len(missing)} cell{'' if len(missing) == 1 else 's'}"
        lines.append(f"Missing: {count}, {', '.join(missing[:8])}{', …' if len(missing) > 8 else ''}.")
    if "page" in summary:
        lines.append(f"page: {summary['page']}")
    return lines


def _aligned(table: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]).rstrip() for first, *rest in table]


def _row(arm: Mapping[str, Any]) -> tuple[str, ...]:
    success, collisions = arm["success"], arm["collisions"]
    return (
        arm["arm"],
        str(len(arm["seeds"])),
        "" if success is None else f"{100 * success['rate']:.1f} %",
        "" if success is None else "{:.1f} - {:.1f}".format(*(100 * bound for bound in success["interval"])),
        "" if arm["steps"] is None else f"{arm['steps']:.1f}",
        "" if collisions is None else f"{100 * collisions['rate']:.1f} %",
        _spread(arm["updates"]),
        _spread(arm["pairs"]),
    )


def _spread(numbers: list[int]) -> str:
    """All numbers where they are equal, else the range."""
    if not numbers:
        return ""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}-{high}"
