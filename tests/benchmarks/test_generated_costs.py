"""Generated against hand-written costs: the measures by hand, and the prepared answers through the loop."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cost_measures import auc, interval, state_wins
from benchmarks.cost_recordings import TASKS
from benchmarks.generated_costs import ANSWERS, MANNERS, generated, tables
from grape.envs.registry import get_suite

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def task_of(suite: str, selection: str | int):
    return next(task for task in get_suite(suite).tasks if selection in (task.name, task.index))


def test_auc_counts_pairs_of_one_state_and_ties_by_half() -> None:
    cost = np.array([1.0, 2.0, 3.0, 2.0, 0.5])
    solved = np.array([True, True, False, False, False])
    assert state_wins(cost, solved, [0, 1, 2, 3]) == (3.5, 4)
    assert state_wins(cost, solved, [2, 3, 4]) == (0.0, 0)
    assert state_wins(cost, solved, [0, 4]) == (0.0, 1)
    assert auc([(3.5, 4), (0.0, 0), (0.0, 1)]) == pytest.approx(0.7)
    assert auc([(0.0, 0)]) is None


def test_intervals_need_five_states_with_both_outcomes() -> None:
    task = task_of(*TASKS[0])
    assert interval([(1.0, 1)] * 4 + [(0.0, 0)] * 9, task) is None
    low, high = interval([(3.0, 4), (4.0, 4), (2.0, 4), (4.0, 4), (3.0, 4)], task)
    assert 0.5 <= low < 0.8 < high <= 1.0


@pytest.mark.parametrize("manner", MANNERS)
def test_the_loop_needs_every_answer_and_accepts_the_last(manner: str) -> None:
    assert len(list((ANSWERS / manner).iterdir())) == len(TASKS)
    mended = 0
    for suite, selection in TASKS:
        text, loop = generated(task_of(suite, selection), manner)
        assert text.startswith("version: 1\n")
        mended += loop["rounds"] > 1
    assert mended == (7 if manner == "mediocre" else 0)


def test_the_page_shows_what_was_recorded() -> None:
    record = json.loads((RESULTS / "generated-costs.json").read_text(encoding="utf-8"))
    page = (RESULTS / "generated-costs.md").read_text(encoding="utf-8")
    assert len(record["tasks"]) == len(TASKS)
    for line in tables(record["tasks"]).splitlines():
        assert line in page
