"""Tasks without a cost specification: scored by success alone, said, recorded, and without a trace on other tasks."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grape.core.errors import NoPairsError, SettingsError
from grape.core.files import read_json
from grape.costs.builtins import builtin_text
from grape.preferences import PairSettings, ScoreSettings, read_pairs, read_scores, run_pair, run_score
from grape.store import EpisodeStore
from tests.preferences.rollouts import TASKS, make_rollout
from tests.reporters import Hearing

OWN = "my-robot"


def own_store(path: Path, tasks=TASKS, outcomes=None, **facts) -> EpisodeStore:
    """Episodes of a suite that nobody knows: outcomes by task and initial state."""
    store = EpisodeStore.create(path, OWN, {})
    outcomes = outcomes or ((True, False, True), (False, False, False))
    for task in tasks:
        for state, known in enumerate(outcomes):
            for sample, success in enumerate(known):
                episode = make_rollout(task, state, sample, bool(success), suite=OWN, **facts)
                store.write(dataclasses.replace(episode, meta=dataclasses.replace(episode.meta, success=success)))
    return store


def score(store: EpisodeStore, out: Path, listener: Hearing | None = None, **choices) -> dict:
    return dict(run_score(ScoreSettings(store=store.path, out=out, **choices), listener or Hearing()))


def test_success_is_all_that_ranks(tmp_path):
    store, listener = own_store(tmp_path / "store"), Hearing()
    summary = score(store, tmp_path / "scores", listener)
    for item in read_scores(tmp_path / "scores").values():
        assert item.terms == {"self": 0.0, "ext": 0.0, "success": 2.0 * item.success}
        assert (item.gcpg, item.cost, item.r_ext, item.stages) == (2.0 * item.success, 0.0, 1.0, ())
        assert item.r_self == pytest.approx(store.read(item.episode_id).logp)  # recorded all the same
    (warning,) = listener.warnings
    assert "no cost specification for drawer-open, faucet-open: scored by success alone" in warning
    assert f"Suite {OWN} is not installed here" in warning
    assert summary["warnings"] == [warning]
    recorded = read_json(tmp_path / "scores" / "calibration.json")
    assert (recorded["success_alone"], recorded["specifications"]) == (list(TASKS), {})
    assert recorded["weights"]["success"] == 2.0
    assert summary["means"]["r_ext"] is summary["means"]["cost"] is summary["concordance"] is None
    assert (summary["upsets"], summary["states"]["mixed"]) == (0.0, 2)


def test_pairs_are_of_a_success_and_a_failure(tmp_path):
    score(own_store(tmp_path / "store"), tmp_path / "scores")
    summary = run_pair(PairSettings(scores=tmp_path / "scores", out=tmp_path / "pairs"))
    assert (summary["pairs"], summary["chosen_success_rate"], summary["rejected_success_rate"]) == (2, 1.0, 0.0)
    for pair in read_pairs(tmp_path / "pairs"):
        assert pair.margin == 2.0
        assert pair.reason.startswith("Succeeded where the other did not solve the task; success decided it")
    with pytest.raises(NoPairsError, match="No two episodes of one state spent steps in one stage"):
        run_pair(PairSettings(scores=tmp_path / "scores", out=tmp_path / "stages", stage_wise=True))


def test_unknown_outcomes_rank_nothing(tmp_path):
    store, listener = own_store(tmp_path / "store", TASKS[:1], ((True, None, False),)), Hearing()
    score(store, tmp_path / "scores", listener)
    assert {item.gcpg for item in read_scores(tmp_path / "scores").values()} == {0.0}
    assert any("outcome of 1 of 3 episodes is unknown" in warning for warning in listener.warnings)
    with pytest.raises(NoPairsError, match="1 with an unknown outcome"):
        run_pair(PairSettings(scores=tmp_path / "scores", out=tmp_path / "pairs"))


@settings(max_examples=8, deadline=None)
@given(
    outcomes=st.lists(st.lists(st.booleans(), min_size=2, max_size=3), min_size=1, max_size=3),
    calibrate=st.booleans(),
)
def test_a_task_without_costs_changes_no_other_tasks_scores(tmp_path_factory, outcomes, calibrate):
    """Calibrated on tasks with costs alone: their scores are those of a store that holds nothing else."""
    folder = tmp_path_factory.mktemp("stores")
    costs = folder / "drawer-open.yaml"
    costs.write_text(builtin_text("metaworld", "drawer-open").replace("suite: metaworld\n", ""))
    priced = ((True, False, True), (False, False, True))
    alone = own_store(folder / "alone", TASKS[:1], priced)
    both = own_store(folder / "both", TASKS[:1], priced)
    for state, known in enumerate(outcomes):
        for sample, success in enumerate(known):
            both.write(make_rollout("faucet-open", state, sample, success, suite=OWN))
    score(alone, folder / "scores-alone", costs=costs, calibrate=calibrate)
    listener = Hearing()
    score(both, folder / "scores-both", listener, costs=costs, calibrate=calibrate)
    expected, scores = read_scores(folder / "scores-alone"), read_scores(folder / "scores-both")
    assert {name: item for name, item in scores.items() if item.task == "drawer-open"} == expected
    for item in scores.values():
        if item.task == "faucet-open":
            assert item.gcpg == 2.0 * item.success
    assert any("no cost specification for faucet-open" in warning for warning in listener.warnings)
    shutil.rmtree(folder)


def test_what_was_given_must_be_there_and_success_must_count(tmp_path):
    store = own_store(tmp_path / "store")
    with pytest.raises(SettingsError, match=r"--costs .*my-cots does not exist"):
        score(store, tmp_path / "out", costs=tmp_path / "my-cots")
    with pytest.raises(SettingsError, match="success counts for nothing"):
        score(store, tmp_path / "out", weights=(0.01, 0.01, 0.0))
    assert not (tmp_path / "out").exists()


def test_a_file_of_nearly_a_tasks_name_is_pointed_out(tmp_path):
    store, listener = own_store(tmp_path / "store"), Hearing()
    costs = tmp_path / "costs"
    costs.mkdir()
    text = "\n".join(
        line
        for line in builtin_text("metaworld", "drawer-open").splitlines()
        if not line.startswith(("suite:", "task:"))
    )
    (costs / "drawer-open.yaml").write_text(text)
    (costs / "faucet-opne.yaml").write_text(text)
    score(store, tmp_path / "scores", listener, costs=costs)
    assert any("misspelled: faucet-opne.yaml for faucet-open?" in warning for warning in listener.warnings)


def test_scoring_again_resumes_and_a_specification_makes_another_run(tmp_path):
    store = own_store(tmp_path / "store", TASKS[:1])
    assert score(store, tmp_path / "scores") == score(store, tmp_path / "scores")
    before = (tmp_path / "scores" / "scores.jsonl").read_bytes()
    costs = tmp_path / "drawer-open.yaml"
    costs.write_text(builtin_text("metaworld", "drawer-open").replace("suite: metaworld\n", ""))
    with pytest.raises(Exception, match="holds results of another run"):
        score(store, tmp_path / "scores", costs=costs)
    assert (tmp_path / "scores" / "scores.jsonl").read_bytes() == before


def test_experts_without_log_probabilities_are_scored_alike(tmp_path):
    store = own_store(tmp_path / "store", TASKS[:1], expert=True)
    score(store, tmp_path / "scores")
    assert {item.gcpg for item in read_scores(tmp_path / "scores").values()} == {0.0, 2.0}


def test_a_report_shows_them(tmp_path):
    pytest.importorskip("jinja2")
    from grape.report import ReportSettings, run_report

    store = own_store(tmp_path / "run" / "store")
    score(store, tmp_path / "run" / "scores")
    run_pair(PairSettings(scores=tmp_path / "run" / "scores", out=tmp_path / "run" / "pairs"))
    page = Path(run_report(ReportSettings(run=tmp_path / "run"))["report"]).read_text()
    assert "scored by success alone" in page or "did not solve the task" in page


def test_the_loop_refuses_what_needs_stages_where_no_task_has_any(tmp_path):
    from grape.envs.registry import get_suite
    from grape.loop import LoopSettings, checks
    from grape.loop.checks import check_settings

    toy = get_suite("toy")
    loop = LoopSettings(
        out=tmp_path, suite="toy", tasks="0", states_per_iteration=6, validation_states=4, test_states=4
    )
    stage_wise = dataclasses.replace(loop, pair=dataclasses.replace(loop.pair, stage_wise=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "choose_specifications", lambda *arguments: {})
        check_settings(loop, toy, toy.tasks[:1])
        with pytest.raises(SettingsError, match="they have no stages"):
            check_settings(stage_wise, toy, toy.tasks[:1])
        without = dataclasses.replace(loop, score=dataclasses.replace(loop.score, weights=(1.0, 1.0, 0.0)))
        with pytest.raises(SettingsError, match="success counts for nothing"):
            check_settings(without, toy, toy.tasks[:1])


def test_terms_are_exact_zeros_and_not_rounded_ones(tmp_path):
    score(own_store(tmp_path / "store"), tmp_path / "scores")
    values = [tuple(item.terms.values()) for item in read_scores(tmp_path / "scores").values()]
    assert np.array_equal(np.unique([value[:2] for value in values]), [0.0])
