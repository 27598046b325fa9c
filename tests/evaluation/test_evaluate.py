"""The verb evaluate: what it asks of collection, what it writes, and what it refuses."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import grape.collect
from grape.collect import CollectSettings, ray_launcher
from grape.core.errors import CompatibilityError, DataError, SettingsError, SimulatorError
from grape.core.events import SILENT, Reporter
from grape.core.files import write_json
from grape.core.provenance import add_validated, write_provenance
from grape.core.selections import parse_numbers
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.envs.metaworld.suite import MetaWorldSuite
from grape.envs.toy import ToySuite
from grape.evaluation import EVALUATION_STATES_START, EvaluateSettings, read_results, run_evaluate
from grape.evaluation.evaluate import _default_out
from grape.policies.base import PolicySpec
from grape.store import EpisodeStore
from tests.reporters import Hearing

TASKS = ("open", "push")


class FakeCollection:
    """Stands in for simulator and policy: even states succeed."""

    def __init__(self) -> None:
        self.collected: list[CollectSettings] = []
        self.breaks = False
        self.policy_hash = "f00d"
        self.computation = "cpu float32, sdpa"
        self.refuses = False

    @contextlib.contextmanager
    def open_launcher(self, settings: CollectSettings, reporter: Any, policy: None, out: Path | None) -> Iterator[Any]:
        if self.refuses:
            raise CompatibilityError("Gripper conventions differ.")
        spec = PolicySpec(7, 64, "", "toy", self.policy_hash, "road", self.computation)
        yield SimpleNamespace(spec=None if settings.policy == "expert" else spec, finished=lambda out: None)

    def __call__(
        self, settings: CollectSettings, reporter: Reporter = SILENT, *, launcher: Any = None
    ) -> Mapping[str, Any]:
        states = parse_numbers(settings.initial_states, "initial states")
        if settings.dry_run:
            limits = dict.fromkeys(TASKS, settings.max_steps or 8)
            episodes = len(states) * len(TASKS) * settings.samples
            return {"dry_run": True, "episodes": episodes, "tasks": list(TASKS), "limits": limits}
        self.collected.append(settings)
        store = EpisodeStore.create(settings.out / "store", "toy", {})
        for task in TASKS:
            for state in states:
                for sample in range(settings.samples):
                    episode = _episode(task, state, sample, settings)
                    if episode.meta.episode_id not in store:
                        store.write(episode)
                if self.breaks:
                    raise SimulatorError("the simulator is gone")
        return {}


def _episode(task: str, state: int, sample: int, settings: CollectSettings) -> Trajectory:
    steps = 2 + state % 3
    meta = EpisodeMeta(
        episode_id=f"{task}-{state}-{sample}",
        suite="toy",
        task=task,
        task_index=TASKS.index(task),
        instruction=f"{task} it",
        initial_state=state,
        sample=sample,
        seed=settings.seed,
        success=state % 2 == 0,
        steps=steps,
        actor="policy",
        temperature=settings.temperature if settings.policy != "expert" else 0.0,
        policy_hash="" if settings.policy == "expert" else "f00d",
    )
    return Trajectory(
        meta=meta,
        frames=np.zeros((steps + 1, 8, 8, 3), np.uint8),
        proprio=np.zeros((steps + 1, 2), np.float32),
        actions=np.zeros((steps, 7), np.float32),
        labels=np.zeros((steps, 7), np.float32),
        action_tokens=np.zeros((steps, 7), np.int32),
        token_logps=np.zeros((steps, 7), np.float32),
        keypoints={},
        signals={"success": np.zeros(steps + 1, np.float32)},
    )


@pytest.fixture
def collection(monkeypatch: pytest.MonkeyPatch) -> FakeCollection:
    fake = FakeCollection()
    monkeypatch.setattr(grape.collect, "run_collect", fake)
    monkeypatch.setattr(grape.collect, "plan_collect", fake)
    monkeypatch.setattr(grape.collect, "check_unopened", lambda settings: None)
    monkeypatch.setattr(grape.collect, "open_launcher", fake.open_launcher)
    monkeypatch.setattr(MetaWorldSuite, "versions", lambda suite: {"metaworld": "3"})  # also where it is not installed
    return fake


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    folder = tmp_path / "policy"
    folder.mkdir()
    return folder


def test_summary_and_results_agree(collection: FakeCollection, policy: Path, tmp_path: Path) -> None:
    out = tmp_path / "evaluation"
    summary = run_evaluate(EvaluateSettings(policy=str(policy), out=out, suite="toy", episodes=10))
    assert summary["episodes"] == 20
    assert summary["successes"] == 10
    assert summary["success_rate"] == 0.5
    assert summary["results"] == str(out / "results.json")
    assert set(summary["tasks"]) == set(TASKS)
    results = read_results(out)
    assert list(results.interval) == summary["interval"]
    assert results.policy_hash == "f00d"
    assert {outcome.initial_state for outcome in results.per_episode} == set(
        range(EVALUATION_STATES_START, EVALUATION_STATES_START + 10)
    )
    json.dumps(summary, allow_nan=False)


def test_defaults_are_greedy_on_reserved_states(collection: FakeCollection, policy: Path, tmp_path: Path) -> None:
    run_evaluate(EvaluateSettings(policy=str(policy), out=tmp_path / "e"))
    collected = collection.collected[0]
    assert (collected.temperature, collected.samples, collected.initial_states) == (0.0, 1, "100000-100049")
    assert collected.out == tmp_path / "e" / "rollouts"


def test_collection_is_asked_for_what_the_user_asked_for(
    collection: FakeCollection, policy: Path, tmp_path: Path
) -> None:
    settings = EvaluateSettings(
        policy=str(policy),
        out=tmp_path / "e",
        suite="toy",
        tasks="0,1",
        initial_states="10,11-20",
        samples=2,
        temperature=0.7,
        seed=5,
        lanes=3,
        workers=1,
    )
    summary = run_evaluate(settings)
    collected = dataclasses.asdict(collection.collected[0])
    for name in ("suite", "tasks", "samples", "temperature", "seed", "lanes", "workers", "timeout", "unnorm_key"):
        assert collected[name] == getattr(settings, name)
    assert collected["initial_states"] == "10-20"
    assert summary["episodes"] == 44
    assert read_results(tmp_path / "e").temperature == 0.7


def test_experts_need_no_folder_and_have_no_temperature(collection: FakeCollection, tmp_path: Path) -> None:
    run_evaluate(EvaluateSettings(policy="expert", out=tmp_path / "e", episodes=2, temperature=0.7))
    results = read_results(tmp_path / "e")
    assert (results.policy, results.policy_hash, results.temperature) == ("expert", "", 0.0)


def test_an_interrupted_evaluation_ends_in_the_same_bytes(
    collection: FakeCollection, policy: Path, tmp_path: Path
) -> None:
    whole = EvaluateSettings(policy=str(policy), out=tmp_path / "whole", episodes=4)
    run_evaluate(whole)
    halted = dataclasses.replace(whole, out=tmp_path / "halted")
    collection.breaks = True
    with pytest.raises(SimulatorError):
        run_evaluate(halted)
    with pytest.raises(DataError, match="not complete"):
        read_results(halted.out)
    collection.breaks = False
    run_evaluate(halted)
    for name in ("results.json", "done.json", "run.json"):
        assert (halted.out / name).read_bytes() == (whole.out / name).read_bytes()


def test_a_complete_evaluation_is_not_repeated(collection: FakeCollection, policy: Path, tmp_path: Path) -> None:
    settings = EvaluateSettings(policy=str(policy), out=tmp_path / "e", episodes=2)
    first = run_evaluate(settings)
    assert run_evaluate(dataclasses.replace(settings, workers=7)) == first
    assert len(collection.collected) == 1
    with pytest.raises(CompatibilityError, match=r"settings\.seed was 0, now 1"):
        run_evaluate(dataclasses.replace(settings, seed=1))


def test_dry_run_touches_nothing(collection: FakeCollection, policy: Path, tmp_path: Path) -> None:
    plan = run_evaluate(EvaluateSettings(policy=str(policy), out=tmp_path / "e", episodes=3, dry_run=True))
    assert plan["dry_run"] is True
    assert plan["episodes"] == 6
    assert plan["initial_states"] == "100000-100002"
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 3}, "greedy decoding repeats the same episode"),
        ({"episodes": 0}, "--episodes is 0"),
        ({"samples": 0}, "--samples is 0"),
        ({"first_state": -1}, "--first-state is -1"),
        ({"initial_states": "5-"}, "not understood"),
        ({"policy": "nowhere"}, "no such checkpoint folder"),
    ],
)
def test_senseless_settings_leave_no_folder(
    collection: FakeCollection, policy: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    settings = dataclasses.replace(EvaluateSettings(policy=str(policy), out=tmp_path / "e"), **change)
    with pytest.raises(SettingsError, match=message):
        run_evaluate(settings)
    assert not (tmp_path / "e").exists()


def test_training_states_are_warned_of(collection: FakeCollection, policy: Path, tmp_path: Path) -> None:
    states = {"push": "3,5-6,100-149", "other": "1"}
    write_json(policy / "provenance.json", {"collected": {"toy": states, "metaworld": {"push": "2"}}})
    reports = Hearing()
    settings = EvaluateSettings(policy=str(policy), out=tmp_path / "e", suite="toy", initial_states="1-6,149-151")
    summary = run_evaluate(settings, reports)
    assert summary["seen_states"] == {"push": "3,5-6,149"}
    assert len(reports.warnings) == 1
    assert "push 3,5-6,149" in reports.warnings[0]
    fresh = dataclasses.replace(settings, out=tmp_path / "f", initial_states="", episodes=3)
    assert run_evaluate(fresh, reports)["seen_states"] == {}
    assert len(reports.warnings) == 1


def test_validation_states_are_warned_of_unless_they_are_to_choose_again(
    collection: FakeCollection, policy: Path, tmp_path: Path
) -> None:
    write_provenance(policy, None, [_episode("push", 3, 0, CollectSettings(out=tmp_path)).meta])
    add_validated(policy, "toy", ["open", "push"], range(5, 9))
    warned, silent = Hearing(), Hearing()
    settings = EvaluateSettings(policy=str(policy), out=tmp_path / "e", suite="toy", initial_states="3-6")
    assert run_evaluate(settings, warned)["seen_states"] == {"open": "5-6", "push": "3,5-6"}
    assert "was trained on data from initial states of this evaluation: push 3." in warned.warnings[0]
    assert "was chosen on initial states of this evaluation" in warned.warnings[1]
    assert "open 5-6; push 5-6" in warned.warnings[1]
    again = dataclasses.replace(settings, out=tmp_path / "f")
    assert run_evaluate(again, silent, chooses=True)["seen_states"] == {"push": "3"}
    assert len(silent.warnings) == 1


def test_results_say_what_limited_the_episodes_and_what_computed(
    collection: FakeCollection, policy: Path, tmp_path: Path
) -> None:
    settings = EvaluateSettings(policy=str(policy), out=tmp_path / "e", suite="toy", episodes=2, max_steps=5)
    run_evaluate(settings)
    results = read_results(tmp_path / "e")
    assert {task.max_steps for task in results.tasks.values()} == {5}
    assert (results.operators, results.computation) == ("", "cpu float32, sdpa")
    expert = dataclasses.replace(settings, policy="expert", out=tmp_path / "x", operators="sloppy", max_steps=0)
    run_evaluate(expert)
    assert read_results(tmp_path / "x").operators == "sloppy"
    assert {task.max_steps for task in read_results(tmp_path / "x").tasks.values()} == {8}


@pytest.mark.parametrize(
    "data",
    [
        [],
        {"collected": {}, "validated": 3},
        {"collected": {}, "validated": {"toy": {"a": "1-"}}},
        {"collected": 3},
        {"collected": {"toy": [3]}},
        {"collected": {"toy": {"a": 1.5}}},
        {"collected": {"toy": {"a": "1-"}}},
        {"collected": {"toy": {"a": None}}},
    ],
)
def test_a_guard_that_is_not_understood_is_an_error(
    collection: FakeCollection, policy: Path, tmp_path: Path, data: Any
) -> None:
    write_json(policy / "provenance.json", data)
    with pytest.raises(DataError, match=r"provenance\.json is not understood"):
        run_evaluate(EvaluateSettings(policy=str(policy), out=tmp_path / "e", suite="toy"))


def test_a_policy_trained_again_does_not_get_the_old_figures(
    collection: FakeCollection, policy: Path, tmp_path: Path
) -> None:
    settings = EvaluateSettings(policy=str(policy), out=tmp_path / "e", episodes=2)
    run_evaluate(settings)
    collection.policy_hash = "beef"
    with pytest.raises(CompatibilityError, match=r"inputs\.policy_hash"):
        run_evaluate(settings)
    with pytest.raises(CompatibilityError):
        run_evaluate(dataclasses.replace(settings, policy="expert"))
    collection.policy_hash, collection.computation = "f00d", "cuda bfloat16, sdpa"
    with pytest.raises(CompatibilityError, match="cuda bfloat16"):
        run_evaluate(settings)


def test_the_same_policy_may_lie_in_another_folder(collection: FakeCollection, policy: Path, tmp_path: Path) -> None:
    settings = EvaluateSettings(policy=str(policy), out=tmp_path / "e", episodes=2)
    first = run_evaluate(settings)
    moved = policy.rename(tmp_path / "moved")
    again = run_evaluate(dataclasses.replace(settings, policy=str(moved)))
    assert again == {**first, "policy": str(moved)}
    assert len(collection.collected) == 1


def test_how_a_policy_is_opened_reaches_collection(collection: FakeCollection, policy: Path, tmp_path: Path) -> None:
    evaluate_settings = EvaluateSettings(
        policy=str(policy),
        out=tmp_path / "e",
        center_crop="yes",
        device="cpu",
        dtype="bfloat16",
        attention="eager",
        load_in_4bit=True,
        unnorm_key="bridge_orig",
    )
    summary = run_evaluate(evaluate_settings)
    assert summary["computation"] == "cpu float32, sdpa"
    for name in ("center_crop", "device", "dtype", "attention", "load_in_4bit", "unnorm_key"):
        assert getattr(collection.collected[0], name) == getattr(evaluate_settings, name), name


def test_a_name_on_the_hub_is_a_policy(collection: FakeCollection, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    summary = run_evaluate(EvaluateSettings(policy="openvla/openvla-7b"))
    assert Path(summary["results"]).parent.name.startswith("openvla-openvla-7b-")
    with pytest.raises(SettingsError, match="no such checkpoint folder"):  # runs/ is here now: a slip of the path
        run_evaluate(EvaluateSettings(policy="runs/openvla-7b"))


def test_a_refused_policy_leaves_no_folder(collection: FakeCollection, policy: Path, tmp_path: Path) -> None:
    collection.refuses = True
    with pytest.raises(CompatibilityError, match="Gripper"):
        run_evaluate(EvaluateSettings(policy=str(policy), out=tmp_path / "e"))
    assert not (tmp_path / "e").exists()


def test_another_release_of_the_simulator_is_another_measurement(
    collection: FakeCollection, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given, free = (EvaluateSettings(policy="policy", suite="toy", episodes=2, out=out) for out in (Path("e"), None))
    first, folder = run_evaluate(given), run_evaluate(free)["results"]
    assert run_evaluate(given) == first
    monkeypatch.setattr(ToySuite, "versions", lambda suite: {"toy": "2"})
    assert run_evaluate(free)["results"] != folder
    with pytest.raises(CompatibilityError, match=r"versions.*toy"):
        run_evaluate(given)


def test_without_out_the_folder_follows_from_what_is_measured(
    collection: FakeCollection, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = EvaluateSettings(policy="policy", episodes=2)
    plan = run_evaluate(dataclasses.replace(settings, dry_run=True))
    assert plan["out"] == "runs/evaluate"
    assert not Path("runs").exists()
    first = run_evaluate(settings)
    folder = Path(first["results"]).parent
    assert folder.parent == Path("runs/evaluate")
    assert folder.name.startswith(f"{tmp_path.name}-policy-")
    assert run_evaluate(dataclasses.replace(settings, workers=3)) == first
    others = [dataclasses.replace(settings, seed=1), dataclasses.replace(settings, policy="expert")]
    folders = {_default_out(some, {"policy_hash": "f00d"}) for some in (settings, *others)}
    assert len(folders | {_default_out(settings, {"policy_hash": "beef"})}) == 4


def test_finished_work_of_experts_starts_no_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = EvaluateSettings(out=tmp_path / "out", policy="expert", suite="toy", tasks="0", episodes=2, workers=1)
    summary = run_evaluate(given)
    monkeypatch.setattr(ray_launcher, "open_cluster", lambda address: pytest.fail("Ray was started"))
    with_ray = dataclasses.replace(given, launcher="ray")
    assert run_evaluate(with_ray) == summary
    with pytest.raises(pytest.fail.Exception, match="Ray was started"):
        run_evaluate(dataclasses.replace(with_ray, out=tmp_path / "other"))
