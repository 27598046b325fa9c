"""Comparing two evaluations: pairing, verdict, wording, gate, several seeds."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.evaluation import (
    CompareSettings,
    EpisodeOutcome,
    EvaluationResults,
    PairedOutcomes,
    compare_results,
    gate_decision,
    pair_results,
    read_results,
    run_compare,
    write_results,
)
from grape.evaluation.format import p_text, points
from grape.evaluation.statistics import mcnemar_exact
from tests.reporters import Hearing


def results(
    successes: Iterable[bool],
    tasks: Sequence[str] = ("push",),
    samples: int = 1,
    first: int = 100,
    **facts: Any,
) -> EvaluationResults:
    """Results whose outcomes run over tasks, then states, then samples."""
    flags = list(successes)
    states = len(flags) // (len(tasks) * samples)
    keys = [(t, first + i, k) for t in tasks for i in range(states) for k in range(samples)]
    values = {"suite": "toy", "policy": "p", "policy_hash": "", "temperature": 0.0, "seed": 0, "versions": {}} | facts
    return EvaluationResults.from_outcomes(
        [EpisodeOutcome(*key, flag, 5) for key, flag in zip(keys, flags, strict=True)],
        {t: f"do {t}" for t in tasks},
        **values,
    )


def split(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[bool], list[bool]]:
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


def test_better_says_by_how_much_and_how_sure() -> None:
    a, b = split(80, 12, 36, 72)
    comparison = compare_results(results(a), results(b))
    assert comparison["verdict"] == "better"
    assert comparison["difference"] == pytest.approx(0.12)
    assert comparison["p_value"] == mcnemar_exact(12, 36)
    low, high = comparison["interval"]
    assert 0.04 < low < 0.12 < high < 0.20
    assert comparison["headline"] == (
        f"B is better than A by +12.0 points (95 % interval {points(low)} to {points(high)}; p < 0.001, "
        "exact McNemar on 200 paired episodes)."
    )
    assert "one task is too few to resample" in comparison["sentence"]
    assert (comparison["only_a"], comparison["only_b"], comparison["pairs"], comparison["states"]) == (12, 36, 200, 200)
    assert comparison["a"]["success_rate"] == 0.46
    assert comparison["b"]["success_rate"] == 0.58


def test_worse_is_the_mirror_of_better() -> None:
    a, b = split(80, 12, 36, 72)
    there, back = compare_results(results(a), results(b)), compare_results(results(b), results(a))
    assert back["verdict"] == "worse"
    assert back["headline"].startswith("B is worse than A by 12.0 points (95 % interval -")
    assert back["p_value"] == there["p_value"]
    assert back["p_worse"] == there["p_better"]
    assert back["interval"] == pytest.approx([-there["interval"][1], -there["interval"][0]], abs=0.011)


def test_undecided_says_how_many_episodes_it_would_take() -> None:
    a, b = split(50, 10, 14, 26)
    comparison = compare_results(results(a), results(b))
    assert comparison["verdict"] == "not distinguishable"
    assert comparison["needed"]["origin"] == "observed"
    assert 1000 < comparison["needed"]["number"] < 1500
    assert 0.1 < comparison["needed"]["detectable"] < 0.2
    assert comparison["headline"].startswith("B is not distinguishable from A: the difference is +4.0 points (95 % ")
    assert f"about {comparison['needed']['number']} paired episodes are needed" in comparison["sentence"]
    assert "those at hand show differences from" in comparison["sentence"]


def test_a_stated_difference_is_planned_for() -> None:
    a, b = split(50, 10, 14, 26)
    comparison = compare_results(results(a), results(b), difference=0.10)
    assert comparison["needed"]["number"] < 300
    assert "To find a difference of 10.0 points with 80 % power" in comparison["sentence"]


def test_equal_outcomes_are_not_called_certain() -> None:
    comparison = compare_results(results([True] * 30), results([True] * 30))
    assert comparison["verdict"] == "not distinguishable"
    assert comparison["p_value"] == 1.0
    assert comparison["interval"][0] < -0.1 < 0.1 < comparison["interval"][1]
    assert comparison["needed"]["origin"] == "default"
    assert "the difference is +0.0 points" in comparison["sentence"]
    assert "score interval" in comparison["sentence"]


def test_a_single_pair_is_compared_without_trouble() -> None:
    comparison = compare_results(results([True]), results([False]))
    assert comparison["verdict"] == "not distinguishable"
    assert "exact McNemar on 1 paired episode)" in comparison["sentence"]
    assert "so few as these could not show any difference" in comparison["sentence"]


def test_tasks_are_compared_one_by_one_with_adjusted_p_values() -> None:
    rng = np.random.default_rng(0)
    names = [f"task-{i}" for i in range(6)]
    a, b = rng.random(120) < 0.4, rng.random(120) < 0.8
    comparison = compare_results(results(a.tolist(), names), results(b.tolist(), names))
    assert comparison["interval_method"] == "bootstrap over tasks"
    assert "(6 of them)" in comparison["sentence"]
    assert list(comparison["tasks"]) == names
    for i, name in enumerate(names):
        task, rows = comparison["tasks"][name], slice(20 * i, 20 * i + 20)
        only_a, only_b = int((a & ~b)[rows].sum()), int((b & ~a)[rows].sum())
        assert task["p_value"] == mcnemar_exact(only_a, only_b)
        assert task["p_value"] <= task["p_holm"] <= min(1.0, 6 * task["p_value"])


def test_tasks_that_disagree_are_pointed_out() -> None:
    """Five tasks gain nothing, one gains everything: clear on these tasks, unclear for others."""
    names = [f"task-{i}" for i in range(6)]
    a = [False] * 20 + ([True] * 10 + [False] * 10) * 5
    b = [True] * 20 + ([True] * 9 + [False] * 11) * 5
    comparison = compare_results(results(a, names), results(b, names))
    assert comparison["verdict"] == "better"
    assert comparison["interval"][0] < 0 < comparison["interval"][1]
    assert "includes 0 although the test is clear: the difference varies from task to task" in comparison["sentence"]


def test_several_rollouts_of_a_state_count_as_one_unit() -> None:
    """12 states, 8 identical rollouts each: the p-value is that of 12 pairs, not of 96."""
    a, b = split(2, 1, 7, 2)
    once = compare_results(results(a), results(b))
    eight = compare_results(
        results([x for x in a for _ in range(8)], samples=8), results([x for x in b for _ in range(8)], samples=8)
    )
    assert eight["p_value"] == pytest.approx(once["p_value"])
    assert eight["test"] == "exact sign-flip test over 12 initial states, 96 paired episodes"
    assert eight["interval"] == pytest.approx(once["interval"])
    assert eight["a"]["interval"] == pytest.approx(once["a"]["interval"])
    assert eight["needed"]["unit"] == "initial states"


def test_changed_states_are_listed() -> None:
    a, b = split(2, 2, 1, 1)
    comparison = compare_results(results(a), results(b))
    assert comparison["changed"] == {"only_a": {"push": "102-103"}, "only_b": {"push": "104"}}


def test_unmatched_states_are_left_out_and_reported() -> None:
    a, b = results([True] * 6), results([True, False] * 3, first=102)
    comparison = compare_results(a, b)
    assert comparison["pairs"] == 4
    assert comparison["unmatched_a"] == {"push": "100-101"}
    assert comparison["unmatched_b"] == {"push": "106-107"}
    assert "2 episodes of A had no partner and were left out: push 100-101." in comparison["sentence"]


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(DataError, match="nothing can be paired"):
        pair_results(results([True] * 4), results([True] * 4, first=500))


def test_different_suites_are_refused() -> None:
    with pytest.raises(CompatibilityError, match="'toy', B on 'libero'"):
        compare_results(results([True]), results([True], suite="libero"))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"temperature": 0.7}, "temperature is 0.0 for A, 0.7 for B"),
        ({"seed": 3}, "seed is 0 for A, 3 for B"),
        ({"versions": {"mujoco": "3.3.2"}}, "versions is {} for A, {'mujoco': '3.3.2'} for B"),
    ],
)
def test_different_protocols_are_warned_of(facts: dict[str, Any], message: str) -> None:
    comparison = compare_results(results([True, False]), results([True, False], **facts))
    assert message in comparison["sentence"]
    assert len(comparison["warnings"]) == 1


def limited(steps: Sequence[tuple[bool, int]], limit: int = 0, **facts: Any) -> EvaluationResults:
    """One task's episodes by success and decisions, under a limit that is recorded unless it is 0."""
    values = {"suite": "toy", "policy": "p", "policy_hash": "", "temperature": 0.0, "seed": 0, "versions": {}} | facts
    episodes = [EpisodeOutcome("push", number, 0, *row) for number, row in enumerate(steps)]
    return EvaluationResults.from_outcomes(episodes, {"push": "push"}, limits={"push": limit}, **values)


@pytest.mark.parametrize("recorded", [(8, 16), (0, 16), (8, 0), (0, 0)], ids=str)
def test_limits_that_episodes_came_up_against_are_refused(recorded: tuple[int, int]) -> None:
    """Also of older results, which do not record them: a failure tells its limit."""
    a, b = limited([(True, 4), (False, 8)], recorded[0]), limited([(True, 4), (False, 16)], recorded[1])
    message = "limits of push differ: A's episodes end after 8 control steps, B's after 16 control steps, and 2 of 4"
    with pytest.raises(CompatibilityError, match=message) as caught:
        compare_results(a, b)
    assert "--max-steps" in caught.value.hint


def test_a_longer_try_is_refused_where_the_other_limit_is_not_known() -> None:
    with pytest.raises(CompatibilityError, match="B's after a limit that is not recorded, and 1 of 4"):
        compare_results(limited([(True, 4), (False, 8)], 8), limited([(True, 4), (True, 12)]))


def test_episodes_that_run_to_their_end_are_refused_under_other_limits() -> None:
    a, b = ([(True, steps)] * 2 for steps in (8, 16))
    with pytest.raises(CompatibilityError, match="limits of push differ"):
        compare_results(limited(a, until="last-step"), limited(b, until="last-step"))


def test_limits_that_nobody_reached_are_no_hindrance() -> None:
    rows = [(True, 4), (True, 8)]
    assert not compare_results(limited(rows, 8), limited(rows, 16))["warnings"]
    assert not compare_results(limited(rows), limited([(True, 4), (False, 16)], 16))["warnings"]
    unpaired = limited([(True, 4), (True, 8), (False, 16)], 16)
    assert "1 episode of B had no partner" in compare_results(limited(rows, 8), unpaired)["warnings"][0]


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ({"operators": "clean"}, {"operators": "sloppy"}, "operators of the expert: clean for A, sloppy for B"),
        (
            {"computation": "cpu float32, sdpa"},
            {"computation": "cuda bfloat16, sdpa"},
            "device and number type: cpu float32, sdpa for A, cuda bfloat16, sdpa for B",
        ),
        ({"computation": "cpu float32, sdpa"}, {}, ""),
        ({"operators": "clean"}, {"computation": "cpu float32, sdpa"}, ""),
    ],
)
def test_operators_devices_and_number_types_are_warned_of(a: dict[str, Any], b: dict[str, Any], message: str) -> None:
    comparison = compare_results(results([True, False], **a), results([True, False], **b))
    assert [message in warning for warning in comparison["warnings"]] == ([True] if message else [])


def test_the_same_policy_twice_is_noticed() -> None:
    comparison = compare_results(results([True], policy_hash="x"), results([True], policy_hash="x"))
    assert "A and B are the same policy" in comparison["sentence"]


def test_the_verb_reads_and_writes_folders(tmp_path: Path) -> None:
    a, b = split(10, 2, 12, 6)
    write_results(tmp_path / "a", results(a))
    write_results(tmp_path / "b", results(b, seed=2))
    reporter = Hearing()
    settings = CompareSettings(a=tmp_path / "a", b=tmp_path / "b" / "results.json", out=tmp_path / "c")
    summary = run_compare(settings, reporter)
    assert json.loads((tmp_path / "c" / "comparison.json").read_text()) == json.loads(json.dumps(summary))
    assert (tmp_path / "c" / "done.json").exists()
    assert any("seed is 0 for A, 2 for B" in warning for warning in reporter.warnings)
    before = (tmp_path / "c" / "comparison.json").read_bytes()
    assert run_compare(settings) == summary
    assert (tmp_path / "c" / "comparison.json").read_bytes() == before
    write_results(tmp_path / "b", results(a))
    with pytest.raises(CompatibilityError, match=r"inputs\.b"):
        run_compare(settings)


def test_without_out_nothing_is_written(tmp_path: Path) -> None:
    write_results(tmp_path / "a", results([True, False]))
    run_compare(CompareSettings(a=tmp_path / "a", b=tmp_path / "a"))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("field", "value"), [("confidence", 1.0), ("confidence", 0.2), ("difference", 0.0), ("bootstrap_samples", 10)]
)
def test_senseless_settings_are_refused(tmp_path: Path, field: str, value: float) -> None:
    with pytest.raises(SettingsError, match=field.replace("_", "-")):
        run_compare(CompareSettings(a=tmp_path, b=tmp_path, **{field: value}))  # type: ignore[arg-type]


def outcomes(both: int, only_a: int, only_b: int, neither: int, task: str = "push") -> PairedOutcomes:
    a, b = split(both, only_a, only_b, neither)
    return PairedOutcomes(tuple((task, i, 0) for i in range(len(a))), tuple(a), tuple(b))


def test_gate_lets_equal_and_better_pass_and_stops_worse() -> None:
    assert gate_decision(outcomes(20, 5, 5, 20)).accepted
    assert gate_decision(outcomes(20, 2, 12, 16)).accepted
    worse = gate_decision(outcomes(20, 12, 2, 16))
    assert not worse.accepted
    assert worse.p_worse == mcnemar_exact(12, 2, "less") < 0.05
    assert worse.reason.startswith("rejected: significantly worse (-20.0 points on 50 pairs, one-sided p = 0.006")


def test_gate_with_a_margin_asks_for_proof() -> None:
    unclear = outcomes(20, 5, 5, 20)
    assert not gate_decision(unclear, margin=0.05).accepted
    assert gate_decision(unclear, margin=0.2).accepted
    assert gate_decision(outcomes(450, 20, 25, 5), margin=0.05).accepted


def test_gate_says_what_it_could_not_have_noticed() -> None:
    few, many = gate_decision(outcomes(5, 1, 1, 3)), gate_decision(outcomes(150, 20, 20, 110))
    assert few.detectable is not None
    assert many.detectable is not None
    assert many.detectable < 0.1 < 0.4 < few.detectable
    assert gate_decision(outcomes(1, 0, 0, 1)).detectable is None


def test_the_gate_of_release_01_wrongly_stops_at_most_alpha_of_equal_policies() -> None:
    """All outcomes of 12 differing pairs, weighted by their probability if the policies are equally good."""
    stopped = sum(
        stats.binom.pmf(k, 12, 0.5)
        for k in range(13)
        if not gate_decision(outcomes(20, 12 - k, k, 10), tolerate_losses=True).accepted
    )
    assert 0.01 < stopped <= 0.05


@pytest.mark.parametrize("arguments", [{"alpha": 0.0}, {"alpha": 0.7}, {"margin": 0.0}, {"margin": 1.5}])
def test_gate_refuses_senseless_numbers(arguments: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="gate's"):
        gate_decision(outcomes(1, 1, 1, 1), **arguments)  # type: ignore[arg-type]


def test_numbers_in_words() -> None:
    assert [points(x) for x in (0.12, -0.05123, 0.0, -0.0001)] == ["+12.0", "-5.1", "+0.0", "+0.0"]
    assert [p_text(p) for p in (1e-9, 0.0123, 0.0994, 0.1, 1.0)] == [
        "p < 0.001",
        "p = 0.012",
        "p = 0.099",
        "p = 0.10",
        "p = 1.00",
    ]


def test_chunks_that_were_executed_in_part_are_no_policy_alone(tmp_path: Path) -> None:
    part, whole = results([True, False], execute=2), results([True, True])
    warnings = " ".join(compare_results(part, whole)["warnings"])
    assert "executed actions a chunk is 2 for A, all for B" in warnings
    assert not compare_results(whole, whole)["warnings"]
    write_results(tmp_path, part)
    assert read_results(tmp_path) == part
    assert "execute" not in whole.to_json()
