"""The measures of a trial equal those over the matrix of all pairs, which is not made."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from grape.costs import concordance
from grape.costs.trial_measures import _wins, area_under_curve
from grape.costs.validation import _flipped, _same_start

COSTS = st.lists(st.integers(0, 4).map(float), min_size=1, max_size=9)


@given(COSTS, COSTS)
def test_wins_are_the_sums_of_the_matrix(successes: list[float], failures: list[float]) -> None:
    one, other = np.array(successes)[:, None], np.array(failures)[None, :]
    matrix = (one < other) + 0.5 * (one == other)
    of_successes, of_failures = _wins(np.array(successes), np.array(failures))
    assert of_successes.tolist() == matrix.sum(axis=1).tolist()
    assert of_failures.tolist() == matrix.sum(axis=0).tolist()
    solved = [True] * len(successes) + [False] * len(failures)
    area = area_under_curve(successes + failures, solved, range(len(solved)))
    assert area is not None
    assert area.value == float(matrix.mean())
    assert concordance(successes + failures, solved, [0] * len(solved)) == (float(matrix.mean()), matrix.size)


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.integers(0, 3)), min_size=2, max_size=12), st.data())
def test_flips_are_those_of_the_matrix(rows: list[tuple[int, bool, int]], data: st.DataObject) -> None:
    starts, solved, costs = [("t", state) for state, _, _ in rows], [row[1] for row in rows], [row[2] for row in rows]
    clean = np.array(costs, dtype=np.float64)
    size = 2 * len(rows)
    draws = data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    displaced = np.array(draws, dtype=np.float64).reshape(-1, 2)
    codes = np.array([state for _, state in starts])
    same = codes[:, None] == codes[None, :]
    before = np.sign(clean[:, None] - clean[None, :])
    after = np.sign(displaced[:, None, :] - displaced[None, :, :])
    ranked = same & (before != 0)
    expected = float((after == -before[:, :, None])[ranked].mean()) if ranked.any() else None
    groups = _same_start(starts)
    assert _flipped(clean, displaced, [(group, group) for group in groups]) == expected
    won = np.array(solved)
    decisive = ranked & (won[:, None] != won[None, :])
    expected = float((after == -before[:, :, None])[decisive].mean()) if decisive.any() else None
    assert _flipped(clean, displaced, [(group[won[group]], group[~won[group]]) for group in groups]) == expected
