"""Tables of docs/results/laboratory.md from the committed results of its studies: ``python benchmarks/laboratory.py``.

Every study is a file in examples/studies/laboratory; its cells lie in docs/results/laboratory under the same name. The
page holds, between two markers a study, what this makes: success of every arm after every iteration, the
comparisons after the last one, and the diagnosis where there is one. Nothing is run; ``--check`` says whether the page
still tells what the cells do.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from grape.core.errors import DataError
from grape.core.files import write_text
from grape.core.settings import load_settings
from grape.evaluation.format import p_text, points
from grape.study import StudySettings, run_study
from grape.study.cells import Cell, read_cell
from grape.study.diagnosis_table import diagnosis_lines

ROOT = Path(__file__).resolve().parents[1]
STUDIES = ROOT / "examples" / "studies" / "laboratory"
CELLS = ROOT / "docs" / "results" / "laboratory"
PAGE = ROOT / "docs" / "results" / "laboratory.md"

_DIAGNOSIS = (
    "Why: changes in nats a token, on fresh rollouts of the starting policy (successes, failures, and what of these is "
    "beyond a success's length) and on the sides that training saw; the preference term's share of the gradient's "
    "norms; the share of saturated comparisons; the distance to the policy that collected."
)
_HEADS = {"steps": "control steps of successes", "collisions": "episodes with a collision"}
_LEFT_OUT = ("first", "last", "margin", "weight", "clipped")

_BLOCK = re.compile(r"(<!-- study: (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where page and cells differ")
    options = parser.parse_args()
    before = PAGE.read_text(encoding="utf-8")
    after = with_tables(before)
    if not options.check:
        write_text(PAGE, after)
    elif before != after:
        sys.exit(f"{PAGE.name} does not tell what the cells do. Run: python benchmarks/laboratory.py")


def with_tables(page: str) -> str:
    """The page with the tables of today's cells."""
    return _BLOCK.sub(lambda block: f"{block[1]}{tables(block[2])}\n{block[4]}", page)


def tables(name: str) -> str:
    """The tables of a study, as Markdown.

    Raises:
        DataError: There are no cells.
        CompatibilityError: Cells were made with other settings than the study's file has.
    """
    cells = [read_cell(path) for path in sorted((CELLS / name).glob("*.json"))]
    if not cells:
        raise DataError(f"{CELLS / name} holds no cells.", "Run the study and copy its cells/ there.")
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(StudySettings, STUDIES / f"{name}.yaml", StudySettings(out=Path(folder)))
        settings = replace(settings, out=Path(folder), merge=(CELLS / name,), report=False)
        summary = run_study(settings)
    arms = [arm["arm"] for arm in summary["arms"] if arm["seeds"]]
    lines = [f"{summary['merit']['measured'].capitalize()}.", "", *_by_iteration(arms, cells, settings.merit)]
    if summary["comparisons"]:
        lines += ["", *_comparisons(summary["comparisons"], settings.merit)]
    if "diagnosis" in summary:
        lines += ["", _DIAGNOSIS, "", *_diagnosis(summary["diagnosis"])]
    if missing := summary["cells"]["missing"]:
        lines += ["", f"Not run (yet): {', '.join(missing)}."]
    return "\n".join(lines)


def _by_iteration(arms: Sequence[str], cells: Sequence[Cell], merit: str) -> list[str]:
    """Success, mean over seeds and each seed's, a row an arm and a column an iteration; at the end another merit."""
    last = max(item.iteration for cell in cells for item in cell.rounds)
    heads = [f"after {number}" for number in range(1, last + 1)] if last else ["success"]
    heads += [_HEADS[merit]] if merit in _HEADS else []
    lines = [f"| arm | {' | '.join(heads)} | rollouts that succeeded | CPU-s |", "|---" * (len(heads) + 3) + "|"]
    for arm in arms:
        own = sorted((cell for cell in cells if cell.arm == arm), key=lambda cell: cell.seed)
        columns = [_success([cell.round(number) for cell in own]) for number in range(1, last + 1)]
        columns += [_merit([cell.round(last) for cell in own], merit)] if merit in _HEADS else []
        collected = [
            item.collected_success for cell in own for item in cell.rounds if item.collected_success is not None
        ]
        share = f"{100 * float(np.mean(collected)):.0f} %" if collected else ""
        seconds = float(np.mean([cell.cpu_seconds for cell in own]))
        lines.append(f"| `{arm}` | {' | '.join(columns)} | {share} | {seconds:.0f} |")
    return lines


def _success(rounds: Sequence[Any]) -> str:
    rates = [sum(one.success for one in item.outcomes) / len(item.outcomes) for item in rounds if item is not None]
    seeds = ", ".join(f"{100 * rate:.0f}" for rate in rates)
    return f"**{100 * float(np.mean(rates)):.1f} %** ({seeds})" if rates else ""


def _merit(rounds: Sequence[Any], merit: str) -> str:
    """Mean over seeds, and each seed's: control steps of successes, or the share of episodes with a collision."""
    outcomes = [item.outcomes for item in rounds if item is not None]
    if merit == "steps":
        seeds = [float(np.mean([one.steps for one in some if one.success])) for some in outcomes]
        return f"**{np.mean(seeds):.1f}** ({', '.join(f'{value:.1f}' for value in seeds)})"
    seeds = [100 * float(np.mean([one.collisions > 0 for one in some])) for some in outcomes]
    return f"**{np.mean(seeds):.1f} %** ({', '.join(f'{value:.0f}' for value in seeds)})"


def _comparisons(rows: Sequence[Mapping[str, Any]], merit: str) -> list[str]:
    """Differences in points or steps, a row a comparison; that of success beside them where the merit is another."""
    number = "{:+.1f}".format if merit == "steps" else points
    heads = ["comparison", "difference", "interval over states", "over seeds", "p, Holm", "p over seeds", "verdict"]
    heads += ["success"] if merit in _HEADS else []
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        columns = [
            f"`{row['arm']}` against `{row['baseline']}`",
            number(row["difference"]),
            *(_range(row[name], number) for name in ("interval", "interval_seeds")),
            p_text(row["p_holm"]),
            "" if row["p_seeds"] is None else p_text(row["p_seeds"]),
            row["verdict"],
            *([points(row["success_difference"])] if merit in _HEADS else []),
        ]
        lines.append(f"| {' | '.join(columns)} |")
    return lines


def _diagnosis(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What training did to the policy, a row an arm and iteration."""
    heads, *lines = diagnosis_lines([row for row in rows if row["iteration"]])
    kept = [place for place, head in enumerate(heads) if head not in _LEFT_OUT]
    table = [[line[place] for place in kept] for line in (heads, *lines)]
    text = [f"| {' | '.join(line)} |" for line in table]
    return [text[0], "|---" * len(kept) + "|", *text[1:]]


def _range(interval: Sequence[float] | None, number: Callable[[float], str]) -> str:
    return "" if interval is None else f"{number(interval[0])} to {number(interval[1])}"


if __name__ == "__main__":
    main()
