"""Unknown is not failure: outcomes that nobody knows decide nothing, from the store to the pairs."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grape.cli.main import main
from grape.core.errors import DataError
from grape.core.preferences import Score
from grape.costs import builtin_specification, evaluate
from grape.costs.trial_measures import with_unknown_outcome
from grape.evaluation.outcomes import outcome_of
from grape.preferences.gcpg import RawTerms, calibrate, weighted_terms
from grape.preferences.pairing import pairs_of_states
from grape.preferences.reasons import reason_for
from grape.store import EpisodeStore
from tests.preferences.rollouts import make_rollout

RECORDED = Path(__file__).parents[1] / "recorded" / "release_0_1"
OUTCOMES = st.sampled_from([True, False, None])


def score(name, success, gcpg, state=0):
    return Score(name, "task", state, success, 5, None, 0.5, 1.0, {"self": 0.0, "ext": gcpg, "success": 0.0}, gcpg)


@given(st.lists(st.tuples(OUTCOMES, st.integers(0, 2), st.sampled_from(["open it", "close it"])), max_size=12))
def test_no_pair_joins_two_instructions_and_none_is_decided_by_an_unknown_outcome(episodes):
    scores = [score(f"e{i}", success, float(i), state) for i, (success, state, _) in enumerate(episodes)]
    instructions = {f"e{i}": instruction for i, (_, _, instruction) in enumerate(episodes)}
    by_name = {item.episode_id: item for item in scores}
    for mode in ("best-worst", "top-bottom", "success-only", "random"):
        groups, census = pairs_of_states(scores, mode=mode, require_mixed_outcomes=False, instructions=instructions)
        pairs = [pair for group in groups for pair in group]
        assert len({pair.pair_id for pair in pairs}) == len(pairs)
        for pair in pairs:
            assert instructions[pair.chosen] == instructions[pair.rejected]
            if mode == "success-only":
                assert by_name[pair.chosen].success is True
                assert by_name[pair.rejected].success is False
        mixed, _ = pairs_of_states(scores, mode=mode, instructions=instructions)
        for pair in (pair for group in mixed for pair in group):
            state = by_name[pair.chosen].initial_state
            members = [
                s.success
                for s in scores
                if s.initial_state == state and instructions[s.episode_id] == instructions[pair.chosen]
            ]
            assert None not in members
        assert sum(item.unknown for item in census.values()) <= len(episodes) // 2


def raw(success, state):
    count = len(success)
    values = [np.nan if item is None else float(item) for item in success]
    return RawTerms(
        r_self=-np.arange(count, dtype=float),
        steps=np.full(count, 5),
        cost=np.linspace(0.1, 2.0, count),
        success=np.array(values),
        task=np.zeros(count, int),
        state=np.array(state),
        tasks=("toy",),
    )


def test_success_counts_only_where_all_outcomes_of_a_state_are_known():
    terms = raw([True, False, True, None], [0, 0, 1, 1])
    weighted = weighted_terms(terms, calibrate(terms))
    np.testing.assert_array_equal(weighted[:, 2], [2.0, 0.0, 0.0, 0.0])
    assert np.isfinite(weighted).all()


def test_everything_stays_finite_where_no_outcome_is_known():
    terms = raw([None] * 4, [0, 0, 1, 1])
    assert np.isfinite(weighted_terms(terms, calibrate(terms))).all()


def test_an_unknown_outcome_is_charged_nothing_and_is_no_success():
    store = EpisodeStore.open(RECORDED / "rollouts" / "store")
    specification = builtin_specification("toy", "push-block")
    for meta in store.metas():
        trajectory = store.read(meta.episode_id)
        outcome = evaluate(specification, with_unknown_outcome(trajectory))[-1]
        assert "success" not in [constraint.name for constraint in outcome.constraints]
        known = evaluate(specification, trajectory)[-1]
        assert next(constraint.name for constraint in known.constraints) == "success"


def test_a_reason_says_that_outcomes_are_unknown():
    one, other = score("a", None, 2.0), score("b", False, 1.0)
    assert reason_for(one, other, "top-bottom").startswith("Outcomes unknown (one is)")
    assert "failed" not in reason_for(one, other, "top-bottom")


@pytest.fixture
def store_of_unknown(tmp_path):
    """Recorded rollouts, of which those of the first initial state lost their outcome."""
    recorded = EpisodeStore.open(RECORDED / "sampled" / "store")
    store = EpisodeStore.create(tmp_path / "store", recorded.suite, recorded.contract)
    for meta in recorded.metas():
        trajectory = recorded.read(meta.episode_id)
        store.write(with_unknown_outcome(trajectory) if meta.initial_state == 0 else trajectory)
    return tmp_path


def test_the_store_keeps_unknown_and_scores_and_pairs_count_it_apart(store_of_unknown, capsys):
    store = EpisodeStore.open(store_of_unknown / "store")
    assert {meta.success for meta in store.metas() if meta.initial_state == 0} == {None}
    with pytest.raises(DataError, match=r"outcome of episode .* is unknown"):
        outcome_of(store.metas()[0])
    out = store_of_unknown / "scores"
    assert main(["score", "--store", str(store.path), "--out", str(out)]) == 0
    assert "outcome of 4 of 16 episodes is unknown" in " ".join(capsys.readouterr().err.split())
    summary = json.loads((out / "done.json").read_text())
    assert (summary["unknown_outcomes"], summary["states"]["unknown"]) == (4, 1)
    rows = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert {row["success"] for row in rows if row["initial_state"] == 0} == {None}
    assert {row["terms"]["success"] for row in rows if row["initial_state"] == 0} == {0.0}
    pairs = store_of_unknown / "pairs"
    arguments = ["pair", "--scores", str(out), "--no-require-mixed-outcomes", "--out", str(pairs)]
    assert main(arguments) == 0
    reasons = [json.loads(line)["reason"] for line in (pairs / "pairs.jsonl").read_text().splitlines()]
    assert sum("utcomes unknown" in reason for reason in reasons) == 2


def test_scores_without_their_episodes_make_no_pairs(store_of_unknown, capsys):
    out = store_of_unknown / "scores"
    assert main(["score", "--store", str(store_of_unknown / "store"), "--out", str(out)]) == 0
    next((store_of_unknown / "store" / "episodes").iterdir()).unlink()
    assert main(["pair", "--scores", str(out), "--out", str(store_of_unknown / "pairs")]) == 2
    assert "lacks 1 episodes of the scores" in " ".join(capsys.readouterr().err.split())


def test_an_unknown_outcome_survives_the_header():
    store = EpisodeStore.open(RECORDED / "rollouts" / "store")
    meta = store.metas()[0]
    from grape.store.header import meta_from_dict, meta_to_dict

    unknown = dataclasses.replace(meta, success=None)
    assert meta_from_dict(json.loads(json.dumps(meta_to_dict(unknown)))) == unknown
    with pytest.raises(DataError, match="success"):
        meta_from_dict(meta_to_dict(unknown) | {"success": "yes"})


def test_no_pairs_says_that_outcomes_are_unknown(store_of_unknown, tmp_path, capsys):
    recorded = EpisodeStore.open(store_of_unknown / "store")
    store = EpisodeStore.create(tmp_path / "all" / "store", recorded.suite, recorded.contract)
    for meta in recorded.metas():
        store.write(with_unknown_outcome(recorded.read(meta.episode_id)))
    assert main(["score", "--store", str(store.path), "--out", str(tmp_path / "s")]) == 0
    capsys.readouterr()
    assert (
        main(["pair", "--scores", str(tmp_path / "s"), "--require-mixed-outcomes", "--out", str(tmp_path / "p")]) != 0
    )
    message = " ".join(capsys.readouterr().err.split())
    assert "from 4 initial states (4 with an unknown outcome)" in message
    assert "--no-require-mixed-outcomes" in message
    assert "failure" not in message


def test_a_stage_of_which_only_the_verdict_could_tell_is_not_charged_once_entered():
    """Otherwise every success would pay the penalty of an unfinished last stage."""
    specification = builtin_specification("metaworld", "drawer-open")
    entered = []
    for success in (True, False):
        shown = with_unknown_outcome(make_rollout("drawer-open", 0, 0, success))
        last = evaluate(specification, shown)[-2]
        assert last.name == specification.stages[-1].name
        assert (last.constraints[0].name, last.constraints[0].cost) == ("done", 0.0 if last.reached else 1.0)
        entered.append(last.reached)
    assert entered[0]
