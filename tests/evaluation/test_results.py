"""results.json: computed from episodes, read back strictly."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grape.core.errors import DataError
from grape.core.files import write_json
from grape.core.trajectories import EpisodeMeta
from grape.evaluation.results import (
    EpisodeOutcome,
    EvaluationResults,
    read_results,
    write_results,
)
from grape.evaluation.statistics import wilson_interval


def meta(task: str, state: int, success: bool, steps: int = 5, **facts: Any) -> EpisodeMeta:
    values = {
        "episode_id": f"{task}-{state}-{facts.get('sample', 0)}",
        "suite": "toy",
        "task": task,
        "task_index": 0,
        "instruction": f"do {task}",
        "initial_state": state,
        "sample": 0,
        "seed": 1,
        "success": success,
        "steps": steps,
        "actor": "policy",
        "policy_hash": "abc",
        "versions": {"engine": "1"},
    }
    return EpisodeMeta(**(values | facts))


def some_results() -> EvaluationResults:
    metas = [meta("push", 3, True, 4), meta("push", 1, False, 16), meta("open", 1, True, 6)]
    return EvaluationResults.from_episodes(metas, policy="runs/p", temperature=0.0, seed=7)


def test_figures_are_computed_from_the_episodes() -> None:
    results = some_results()
    assert (results.episodes, results.successes, results.success_rate) == (3, 2, 2 / 3)
    assert results.mean_steps == pytest.approx(26 / 3)
    assert results.interval == wilson_interval(2, 3)
    assert list(results.tasks) == ["open", "push"]
    assert results.tasks["push"].interval == wilson_interval(1, 2)
    assert results.tasks["push"].instruction == "do push"
    assert [outcome.key for outcome in results.per_episode] == [("open", 1, 0), ("push", 1, 0), ("push", 3, 0)]


def test_file_holds_what_the_interface_promises(tmp_path: Path) -> None:
    data = json.loads(write_results(tmp_path, some_results()).read_text())
    assert set(data) == {
        *("format", "suite", "policy", "policy_hash", "temperature", "seed", "success_rate", "interval", "episodes"),
        *("successes", "mean_steps", "tasks", "per_episode", "versions", "measures", "protocol", "until"),
        *("operators", "computation"),
    }
    assert set(data["tasks"]["open"]) == {
        *("success_rate", "interval", "episodes", "successes", "mean_steps", "measures", "instruction", "max_steps"),
    }
    expected = {"task": "push", "initial_state": 1, "sample": 0, "success": False, "steps": 16, "measures": {}}
    assert data["per_episode"][1] == expected
    assert read_results(tmp_path) == read_results(tmp_path / "results.json") == some_results()


def test_files_from_before_protocols_are_still_read(tmp_path: Path) -> None:
    file = write_results(tmp_path, some_results())
    data = json.loads(file.read_text())
    for figures in (data, *data["tasks"].values(), *data["per_episode"]):
        del figures["measures"]
    for task in data["tasks"].values():
        del task["max_steps"]
    for name in ("protocol", "until", "operators", "computation"):
        del data[name]
    file.write_text(json.dumps(data))
    assert read_results(tmp_path) == some_results()


@settings(max_examples=50, deadline=None)  # the disk may be busy
@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 30), st.integers(0, 2)),
        st.tuples(st.booleans(), st.integers(0, 20)),
        min_size=1,
    ),
    st.randoms(use_true_random=False),
)
def test_any_results_survive_the_file(
    tmp_path_factory: pytest.TempPathFactory, episodes: dict[tuple[str, int, int], tuple[bool, int]], random: Any
) -> None:
    folder = tmp_path_factory.mktemp("results")
    outcomes = [EpisodeOutcome(*key, *value) for key, value in episodes.items()]
    random.shuffle(outcomes)
    results = EvaluationResults.from_outcomes(
        outcomes,
        {name: name for name, _, _ in episodes},
        suite="toy",
        policy="p",
        policy_hash="",
        temperature=0.5,
        seed=1,
        versions={},
    )
    first = write_results(folder, results).read_bytes()
    assert read_results(folder) == results
    assert write_results(folder, read_results(folder)).read_bytes() == first


def test_several_rollouts_of_a_state_widen_the_interval() -> None:
    metas = [meta("push", state, state < 5, sample=sample) for state in range(10) for sample in range(4)]
    results = EvaluationResults.from_episodes(metas, policy="p", temperature=0.7, seed=0)
    assert results.episodes == 40
    assert results.interval == pytest.approx(wilson_interval(5, 10), abs=1e-9)


def test_no_episodes_is_an_error() -> None:
    with pytest.raises(DataError, match="no episodes"):
        EvaluationResults.from_episodes([], policy="p", temperature=0.0, seed=0)


def test_an_episode_must_not_count_twice() -> None:
    with pytest.raises(DataError, match="initial state 3, sample 0 occurs twice"):
        EvaluationResults.from_episodes([meta("a", 3, True)] * 2, policy="p", temperature=0.0, seed=0)


@pytest.mark.parametrize(
    ("fact", "value"),
    [("suite", "other"), ("policy_hash", "def"), ("temperature", 1.0), ("versions", {"engine": "2"})],
)
def test_episodes_of_different_origin_are_not_mixed(fact: str, value: Any) -> None:
    metas = [meta("a", 1, True), meta("a", 2, True, **{fact: value})]
    with pytest.raises(DataError, match=f"do not belong together: {fact}"):
        EvaluationResults.from_episodes(metas, policy="p", temperature=0.0, seed=0)


CHANGES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda data: data.pop("seed"), "field 'seed' is missing"),
    (lambda data: data.update(extra=1), "field 'extra' is unknown"),
    (lambda data: data.update(format=99), "has format 99"),
    (lambda data: data.update(success_rate=0.9), "disagrees with itself: success_rate is 0.9"),
    (lambda data: data["tasks"]["push"].update(successes=2), "task push: successes is 2"),
    (lambda data: data["interval"].append(1), r"interval is .* at most 2 items"),
    (lambda data: data.update(interval="wide"), "interval is 'wide'"),
    (
        lambda data: data["per_episode"][0].update(success="yes"),
        r"per_episode\[0\].success is 'yes': should be a valid boolean",
    ),
    (lambda data: data["per_episode"][0].update(steps=True), "steps is True: should be a valid integer"),
    (lambda data: data["per_episode"].append(3), r"per_episode\[3\] is 3: should be an object"),
    (lambda data: data["per_episode"][0].update(steps=2**40), r"per_episode\[0\]: 'steps' is"),
    (lambda data: data.pop("format"), "has format None"),
    (lambda data: data["per_episode"].clear(), "name different tasks"),
    (lambda data: data.update(temperature=None), "temperature is None: should be a valid number"),
    (lambda data: data.update(tasks=[]), r"tasks is \[\]"),
    (lambda data: data["per_episode"].append(dict(data["per_episode"][0])), "occurs twice"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES, ids=[message for _, message in CHANGES])
def test_a_changed_file_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    data = some_results().to_json()
    data = json.loads(json.dumps(data | {"per_episode": data["per_episode"]}))
    change(data)
    (tmp_path / "results.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match=message):
        read_results(tmp_path)


def test_missing_results_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_results(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no results\.json"):
        read_results(tmp_path)
    write_json(tmp_path / "run.json", {"verb": "evaluate"})
    with pytest.raises(DataError, match="not complete"):
        read_results(tmp_path)
    (tmp_path / "results.json").write_text('{"format": 1')
    with pytest.raises(DataError, match="cannot be read as JSON"):
        read_results(tmp_path)
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(DataError, match="should be an object"):
        read_results(tmp_path)
