"""Numbers of episodes against published values and simulation."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.power_tables import interval_table, planning_table, unpaired_episodes_needed
from grape.evaluation.power import (
    detectable_difference,
    detectable_state_difference,
    mcnemar_power,
    paired_episodes_needed,
    paired_states_needed,
)
from grape.evaluation.statistics import mcnemar_exact


def _brute_power(pairs: int, difference: float, discordance: float, alpha: float) -> float:
    """Sum over all trinomial outcomes that the test rejects."""
    p_b, p_a = (discordance + difference) / 2, (discordance - difference) / 2
    total = 0.0
    for only_a, only_b in itertools.product(range(pairs + 1), repeat=2):
        same = pairs - only_a - only_b
        if same >= 0 and mcnemar_exact(only_a, only_b) <= alpha:
            ways = math.factorial(pairs) / math.factorial(only_a) / math.factorial(only_b) / math.factorial(same)
            total += ways * p_a**only_a * p_b**only_b * (1 - discordance) ** same
    return total


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 24), st.floats(0, 1), st.floats(0.05, 1), st.sampled_from([0.01, 0.05, 0.2]))
def test_power_equals_brute_force(pairs: int, share: float, discordance: float, alpha: float) -> None:
    difference = share * discordance
    power = mcnemar_power(pairs, difference, discordance, alpha)
    assert power == pytest.approx(_brute_power(pairs, difference, discordance, alpha), abs=1e-9)
    assert power == mcnemar_power(pairs, -difference, discordance, alpha)


def test_power_of_large_samples_joins_the_approximation() -> None:
    exact, approximate = mcnemar_power(20_000, 0.01, 0.3), mcnemar_power(20_001, 0.01, 0.3)
    assert exact == pytest.approx(approximate, abs=0.01)


def test_needed_pairs_have_the_power_they_promise() -> None:
    pairs = paired_episodes_needed(0.15, 0.3)
    rng = np.random.default_rng(0)
    outcomes = rng.multinomial(pairs, (0.075, 0.225, 0.7), size=3000)
    power = np.mean([mcnemar_exact(int(a), int(b)) < 0.05 for a, b, _ in outcomes])
    assert power == pytest.approx(0.8, abs=0.03)
    assert mcnemar_power(pairs, 0.15, 0.3) >= 0.8
    assert mcnemar_power(int(0.9 * pairs), 0.15, 0.3) < 0.8


def test_needed_pairs_do_not_undercut_connor() -> None:
    """The exact test needs a little more than the asymptotic number of Connor 1987, 233 here."""
    z_alpha, z_beta = 1.959964, 0.841621
    connor = (z_alpha * math.sqrt(0.3) + z_beta * math.sqrt(0.3 - 0.01)) ** 2 / 0.01
    assert connor <= paired_episodes_needed(0.1, 0.3) <= 1.15 * connor


def test_unpaired_number_equals_published_value() -> None:
    """R's documentation of power.prop.test: 50 % against 75 % with power 0.9 needs 76.7 in each group."""
    assert unpaired_episodes_needed(0.5, 0.75, power=0.9) == 77


def test_states_with_several_rollouts() -> None:
    """A paired t test's normal approximation: ((1.96 + 0.8416) * 0.5 / 0.1)**2 = 196.2."""
    assert paired_states_needed(0.1, 0.5) == 197
    assert detectable_state_difference(197, 0.5) == pytest.approx(0.1, abs=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.integers(10, 400), st.floats(0.05, 0.6))
def test_detectable_difference_is_the_inverse_of_power(pairs: int, discordance: float) -> None:
    difference = detectable_difference(pairs, discordance)
    assert difference is not None
    assert mcnemar_power(pairs, difference, max(discordance, difference)) >= 0.8
    smaller = difference - 0.002
    assert mcnemar_power(pairs, smaller, max(discordance, smaller)) < 0.81


def test_five_pairs_detect_nothing() -> None:
    assert detectable_difference(5, 0.5) is None
    assert mcnemar_power(5, 1.0, 1.0) == 0.0


@pytest.mark.parametrize("arguments", [(0.0, 0.3), (0.4, 0.3), (0.1, 1.2)])
def test_impossible_plans_are_refused(arguments: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="difference"):
        paired_episodes_needed(*arguments)


@pytest.mark.parametrize("table", [planning_table, interval_table])
def test_tables_in_the_documentation_are_the_computed_ones(table: Callable[[], str]) -> None:
    page = Path(__file__).parents[2] / "docs" / "statistics.md"
    assert table() in page.read_text(encoding="utf-8")
