"""The verb ``score`` on recorded episodes."""

import dataclasses
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from grape.core.errors import CompatibilityError, DataError, GrapeError, SettingsError
from grape.core.files import read_json
from grape.costs import builtin_specification, evaluate, specification_hash, with_unknown_outcome
from grape.costs.builtins import builtin_text
from grape.preferences import PairSettings, ScoreSettings, read_pairs, read_scores, recorded_stores, run_pair, run_score
from grape.store import EpisodeStore
from tests.preferences.rollouts import TASKS, make_rollout, make_store
from tests.reporters import Hearing


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("recorded") / "collect" / "store").path


def score(store: Path, out: Path, **settings) -> dict:
    return dict(run_score(ScoreSettings(store=store, out=out, **settings)))


def test_published_mode_is_the_papers_formula(recorded: Path, tmp_path: Path) -> None:
    summary = score(recorded, tmp_path / "out", calibrate=False)
    scores, store = read_scores(tmp_path / "out"), EpisodeStore.open(recorded)
    assert list(scores) == list(store.ids())
    for name, episode_score in scores.items():
        trajectory = store.read(name)
        stages = evaluate(builtin_specification("metaworld", trajectory.meta.task), with_unknown_outcome(trajectory))
        r_self = float(trajectory.token_logps.astype(np.float64).sum())
        r_ext = math.prod(math.exp(-stage.cost) for stage in stages)
        assert episode_score.gcpg == pytest.approx(0.01 * r_self + 0.01 * r_ext + 2 * trajectory.meta.success, rel=1e-9)
        assert (episode_score.r_self, episode_score.r_ext) == (pytest.approx(r_self), pytest.approx(r_ext))
        assert episode_score.terms["success"] == 2.0 * trajectory.meta.success
        assert [stage.cost for stage in episode_score.stages] == [stage.cost for stage in stages]
    assert summary["calibration"]["weights"] == {"self": 0.01, "ext": 0.01, "success": 2.0}
    assert summary["calibration"]["thresholds"] == {}


def test_calibration_is_the_default_and_recorded(recorded: Path, tmp_path: Path) -> None:
    summary = score(recorded, tmp_path / "out")
    chosen = read_json(tmp_path / "out" / "calibration.json")
    assert chosen == summary["calibration"]
    assert chosen["calibrated"] is True
    assert chosen["normalisation"] == "step-mean"
    assert chosen["contributions"]["self"] == pytest.approx(chosen["contributions"]["ext"])
    assert 0 < chosen["contributions"]["ext"] <= 1.0
    assert chosen["states"] == 8
    assert chosen["specifications"] == {
        task: specification_hash(builtin_specification("metaworld", task)) for task in TASKS
    }
    assert any(place.endswith("/time") for place in chosen["thresholds"]["drawer-open"])
    for episode_score in read_scores(tmp_path / "out").values():
        r_self = 0.0 if episode_score.r_self is None else episode_score.r_self / episode_score.steps
        assert episode_score.terms["self"] == pytest.approx(chosen["weights"]["self"] * r_self)
        assert episode_score.terms["ext"] == pytest.approx(
            chosen["weights"]["ext"] * math.exp(-chosen["beta"][episode_score.task] * episode_score.cost)
        )
        assert episode_score.gcpg == pytest.approx(sum(episode_score.terms.values()))
        assert episode_score.cost == pytest.approx(sum(stage.cost for stage in episode_score.stages))


def test_summary_speaks_plainly(recorded: Path, tmp_path: Path) -> None:
    summary = score(recorded, tmp_path / "out")
    assert summary["episodes"] == 40
    assert summary["states"] == {"mixed": 4, "all_successes": 2, "all_failures": 2, "single": 0}
    assert set(summary["tasks"]) == set(TASKS)
    assert summary["correlations"]["within_states"]["ext"] > 0.5
    assert 0.0 <= summary["upsets"] <= 0.2
    assert 0.5 < summary["concordance"] <= 1.0
    equal = summary["equal_outcomes"]
    assert 0 < equal["disagree"] < equal["couples"]
    assert sum(equal["decides"].values()) == pytest.approx(1.0)
    assert summary["means"]["r_self_per_step"] < 0
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_the_simulators_verdict_enters_through_success_alone(recorded: Path, tmp_path: Path) -> None:
    score(recorded, tmp_path / "plain")
    score(recorded, tmp_path / "verdict", price_verdict=True)
    plain, verdict = read_scores(tmp_path / "plain"), read_scores(tmp_path / "verdict")
    for name, episode_score in plain.items():
        assert "success" not in [constraint.name for constraint in episode_score.stages[-1].constraints]
        charged = [item.contribution for item in verdict[name].stages[-1].constraints if item.name == "success"]
        assert bool(charged[0]) is not episode_score.success
        assert episode_score.terms["success"] == verdict[name].terms["success"]


def test_the_papers_ablations_rank_differently(tmp_path: Path) -> None:
    """Without R_self, without R_ext, without I_success (arXiv 2411.19309, Table 1)."""
    store = make_store(tmp_path / "store", states=6, samples=8).path
    pairs = {}
    for name, weights in {
        "self": (0.0, 0.01, 2.0),
        "ext": (0.01, 0.0, 2.0),
        "success": (0.01, 0.01, 0.0),
    }.items():
        score(store, tmp_path / name, weights=weights)
        run_pair(PairSettings(scores=tmp_path / name, out=tmp_path / f"{name}-pairs", seed=0))
        pairs[name] = frozenset((pair.chosen, pair.rejected) for pair in read_pairs(tmp_path / f"{name}-pairs"))
    assert len(set(pairs.values())) == 3


def test_a_finished_run_with_built_in_costs_of_an_earlier_release_is_taken_as_finished(
    recorded: Path, tmp_path: Path
) -> None:
    out, listener = tmp_path / "out", Hearing()
    summary = score(recorded, out)
    run = read_json(out / "run.json")
    run["inputs"]["specifications"] = dict.fromkeys(TASKS, "0" * 64)
    (out / "run.json").write_text(json.dumps(run))
    done = read_json(out / "done.json")
    del done["calibration"]["spread_within"]
    (out / "done.json").write_text(json.dumps(done))
    before = (out / "scores.jsonl").read_bytes()
    assert run_score(ScoreSettings(store=recorded, out=out), listener) == done
    assert (out / "scores.jsonl").read_bytes() == before
    assert [warning.split(":")[0] for warning in listener.warnings] == [f"The scores in {out} were made by release 0.1"]
    assert "charge safety for stages that were never entered" in listener.warnings[0]
    # Costs of one's own, and runs that were not finished, are held to what they were.
    (tmp_path / "costs.yaml").write_text(builtin_text("metaworld", TASKS[0]))
    with pytest.raises(CompatibilityError, match=r"inputs\.specifications"):
        score(recorded, out, costs=tmp_path / "costs.yaml")
    (out / "done.json").unlink()
    with pytest.raises(CompatibilityError, match=r"inputs\.specifications"):
        score(recorded, out)
    assert summary["episodes"] == 40


def test_a_finished_run_says_whose_built_in_costs_have_changed_since(recorded: Path, tmp_path: Path) -> None:
    """Also where calibration is that of today."""
    out, listener = tmp_path / "out", Hearing()
    summary = score(recorded, out)
    assert run_score(ScoreSettings(store=recorded, out=out), listener) == summary
    assert listener.warnings == []
    run = read_json(out / "run.json")
    run["inputs"]["specifications"][TASKS[0]] = "0" * 64
    (out / "run.json").write_text(json.dumps(run))
    assert run_score(ScoreSettings(store=recorded, out=out), listener) == summary
    assert len(listener.warnings) == 1
    assert f"which were others for {TASKS[0]}." in listener.warnings[0]


@pytest.mark.parametrize("damage", ["abc", [1], None])
def test_hashes_that_are_none_are_refused(recorded: Path, tmp_path: Path, damage: object) -> None:
    out = tmp_path / "out"
    score(recorded, out)
    run = read_json(out / "run.json")
    run["inputs"]["specifications"] = damage
    (out / "run.json").write_text(json.dumps(run))
    with pytest.raises(CompatibilityError, match=r"inputs\.specifications"):
        score(recorded, out)


def test_same_store_same_bytes_wherever_it_lies(recorded: Path, tmp_path: Path) -> None:
    for place in ("a", "b"):
        shutil.copytree(recorded, tmp_path / place / "store")
        score(tmp_path / place / "store", tmp_path / place / "scores")
    for name in ("scores.jsonl", "calibration.json", "done.json", "run.json"):
        first, second = ((tmp_path / place / "scores" / name).read_bytes() for place in "ab")
        assert first == second
    assert recorded_stores(tmp_path / "a" / "scores", "score") == ((tmp_path / "a" / "store").resolve(),)


def test_a_finished_run_is_returned_and_a_changed_store_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", states=2, samples=2)
    first = score(store.path, tmp_path / "out")
    assert score(store.path, tmp_path / "out") == first
    (tmp_path / "out" / "done.json").unlink()
    (tmp_path / "out" / "scores.jsonl").write_text("{half")
    with pytest.raises(DataError, match="not complete"):
        read_scores(tmp_path / "out")
    assert score(store.path, tmp_path / "out") == first
    with pytest.raises(CompatibilityError, match=r"settings\.soft_share"):
        score(store.path, tmp_path / "out", soft_share=0.5)
    store.write(make_rollout(state=7))
    with pytest.raises(CompatibilityError, match=r"inputs\.episodes"):
        score(store.path, tmp_path / "out")


def test_objectives_change_costs_by_their_tags(recorded: Path, tmp_path: Path) -> None:
    plain = score(recorded, tmp_path / "plain", threshold_quantile=None)
    score(recorded, tmp_path / "fast", threshold_quantile=None, objectives={"efficiency": 3.0, "safety": 0.0})
    score(recorded, tmp_path / "lax", threshold_quantile=None, thresholds={"completion": 100.0})
    fast, lax = read_scores(tmp_path / "fast"), read_scores(tmp_path / "lax")
    for name, before in read_scores(tmp_path / "plain").items():
        for i, stage in enumerate(before.stages):
            for j, constraint in enumerate(stage.constraints):
                if constraint.name == "time":
                    assert fast[name].stages[i].constraints[j].weight == pytest.approx(3 * constraint.weight)
                if "safety" in constraint.objectives:
                    assert fast[name].stages[i].constraints[j].contribution == 0
                if "completion" in constraint.objectives and constraint.threshold > 0.01:
                    assert lax[name].stages[i].constraints[j].contribution == 0
    assert plain["calibration"]["objectives"] == {}
    assert read_json(tmp_path / "fast" / "calibration.json")["objectives"] == {"efficiency": 3.0, "safety": 0.0}


def test_experts_have_no_self_term(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", "metaworld", {})
    for sample in range(4):
        store.write(make_rollout(sample=sample, success=sample > 0, expert=True))
    summary = score(store.path, tmp_path / "out")
    assert all(s.r_self is None and s.terms["self"] == 0 for s in read_scores(tmp_path / "out").values())
    assert summary["means"]["r_self_per_step"] is None
    assert "R_self does not count" in summary["warnings"][0]


def test_mixed_stores_are_warned_about(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", "metaworld", {})
    store.write(make_rollout(sample=0, expert=True))
    store.write(make_rollout(sample=1, policy_hash="one"))
    store.write(make_rollout(sample=2, policy_hash="two", success=False))
    listener = Hearing()
    summary = run_score(ScoreSettings(store=store.path, out=tmp_path / "out"), listener)
    assert summary["policies"] == ["abc", "one", "two"][1:]
    assert summary["warnings"] == listener.warnings
    assert "1 of 3 episodes were not sampled" in listener.warnings[0]
    assert "2 policies" in listener.warnings[1]


def own_costs(path: Path, task: str = "drawer-open", suite: str = "metaworld", keypoint: str = "gripper") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"""
version: 1
{f"suite: {suite}" if suite else ""}
{f"task: {task}" if task else ""}
limit: 16 steps
keypoints: [{keypoint}, goal]
signals: [success]
stages:
  - name: go
    done_when: {{succeeded: {{}}}}
    subgoal:
      - name: near
        cost: {{distance: {{of: {keypoint}, to: goal}}}}
        worst: 50 cm
        weight: 1 per m
        objectives: [completion]
"""
    )
    return path


def test_own_specifications_override_built_in_ones(recorded: Path, tmp_path: Path) -> None:
    for costs in (own_costs(tmp_path / "one.yaml"), own_costs(tmp_path / "many" / "x.yaml").parent):
        out = tmp_path / f"out-{costs.name}"
        score(recorded, out, costs=costs)
        stages = {s.task: [stage.name for stage in s.stages] for s in read_scores(out).values()}
        assert stages["drawer-open"] == ["go", "outcome"]
        assert len(stages["faucet-open"]) > 2
    score(recorded, tmp_path / "all", costs=own_costs(tmp_path / "any.yaml", task=""))
    assert {len(s.stages) for s in read_scores(tmp_path / "all").values()} == {2}
    own_costs(tmp_path / "stem" / "faucet-open.yaml", task="")
    score(recorded, tmp_path / "stem-out", costs=tmp_path / "stem")
    assert {s.task for s in read_scores(tmp_path / "stem-out").values() if len(s.stages) == 2} == {"faucet-open"}


def test_wrong_specifications_are_refused_before_anything_is_written(recorded: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    own_costs(tmp_path / "twice" / "a.yaml")
    own_costs(tmp_path / "twice" / "b.yaml")
    cases: list[tuple[Path, type[GrapeError], str]] = [
        (tmp_path / "nowhere", SettingsError, "does not exist"),
        (tmp_path / "empty", SettingsError, "holds no YAML file"),
        (tmp_path / "twice", DataError, "both for task"),
        (own_costs(tmp_path / "o.yaml", task="open-sesame"), CompatibilityError, "store holds no episode"),
        (own_costs(tmp_path / "f" / "o.yaml", task="open-sesame").parent, CompatibilityError, "open-sesame"),
        (own_costs(tmp_path / "s.yaml", suite="libero"), CompatibilityError, "suite 'libero'"),
        (own_costs(tmp_path / "k.yaml", keypoint="griper"), DataError, "gripper"),
    ]
    for costs, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            score(recorded, tmp_path / "out", costs=costs)
        assert caught.value.exit_code == 2
        assert not (tmp_path / "out").exists()


def test_unusable_stores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        score(tmp_path / "nowhere", tmp_path / "out")
    store = EpisodeStore.create(tmp_path / "store", "metaworld", {})
    with pytest.raises(DataError, match="holds no episodes"):
        score(store.path, tmp_path / "out")
    broken = make_rollout()
    logps = broken.token_logps.copy()
    logps[3, 2] = np.nan
    store.write(dataclasses.replace(broken, token_logps=logps))
    with pytest.raises(DataError, match="drawer-open-0000-00 holds log-probabilities that are not finite"):
        score(store.path, tmp_path / "out")
    other = EpisodeStore.create(tmp_path / "other", "metaworld", {})
    other.write(make_rollout(task="drawer-open", episode_id="x"))
    other.write(dataclasses.replace(broken, meta=dataclasses.replace(broken.meta, task="drawer-opn")))
    with pytest.raises(SettingsError, match="no cost specification for task 'drawer-opn'") as caught:
        score(other.path, tmp_path / "out2")
    assert "Did you mean 'drawer-open'" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": (0.0, 0.0, 0.0)}, "--weights"),
        ({"weights": (-1.0, 0.0, 2.0)}, "--weights"),
        ({"beta": 0.0}, "--beta is 0"),
        ({"soft_share": -1.0}, "--soft-share"),
        ({"threshold_quantile": 1.5}, "--threshold-quantile"),
        ({"objectives": {"safty": 1.0}}, "objective 'safty'"),
        ({"thresholds": {"safety": float("nan")}}, "--thresholds safety"),
    ],
)
def test_settings_out_of_range(tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        score(tmp_path, tmp_path / "out", **settings)


def test_neither_scoring_nor_pairing_imports_torch() -> None:
    code = "import sys, grape.preferences, grape.store; print([m for m in ('torch', 'mujoco') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
