"""Protocols: what they fix, refuse and leave to the checkpoint, and what their evaluations report."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import grape.collect
from grape.cli.main import main
from grape.collect import CheckpointInfo, CollectSettings
from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.costs import suite_names_of
from grape.envs.libero.tasks import LIMITS
from grape.envs.registry import get_suite
from grape.evaluation import EpisodeOutcome, EvaluateSettings, EvaluationResults, read_results, run_evaluate
from grape.evaluation.outcomes import measure
from grape.evaluation.pairing import pair_results
from grape.evaluation.protocols import PROTOCOLS, Protocol, apply_protocol, fit_checkpoint
from grape.evaluation.statistics import wilson_interval
from grape.store import EpisodeStore
from tests.reporters import Hearing

LIBERO = EvaluateSettings(policy="p", protocol="libero-openvla-v1", suite="libero_spatial")
SIMPLER = EvaluateSettings(policy="p", protocol="simpler-widowx-24x3", suite="simpler_widowx")
TOY = Protocol(
    name="toy-3x2",
    suites=("toy",),
    initial_states="4-6",
    until="last-step",
    seed=3,
    tasks=("push-block", "reach-red"),
    seeds=2,
    signals={"touch": "touching", "success": "success"},
    rules=("Episodes run on.",),
)


@pytest.fixture
def toy_protocol(monkeypatch: pytest.MonkeyPatch) -> Protocol:
    monkeypatch.setitem(PROTOCOLS, TOY.name, TOY)
    return TOY


def test_the_public_evaluation_of_libero_is_what_it_was_published_as() -> None:
    settings, protocol = apply_protocol(LIBERO)
    assert protocol is not None
    assert (settings.initial_states, settings.seed, settings.temperature, settings.samples) == ("0-49", 7, 0.0, 1)
    assert (settings.until, settings.max_steps, settings.tasks) == ("success", 0, "")
    # The limits stand in the suites; the protocol's sentence must say the same.
    assert all(str(limit) in protocol.rules[0] for limit in LIMITS.values())
    assert set(protocol.suites) == set(LIMITS)


def test_simpler_runs_to_the_last_step_on_24_states() -> None:
    settings, protocol = apply_protocol(SIMPLER)
    assert protocol is not None
    for name in protocol.suites:
        assert set(protocol.signals.values()) <= set(suite_names_of(name).signals)
        suite = get_suite(name)
        assert {suite.n_initial_states(task) for task in suite.tasks} == {24}
    assert (settings.initial_states, settings.until, settings.temperature) == ("0-23", "last-step", 0.0)
    assert protocol.seeds == 3
    assert protocol.signals == {"grasp": "grasped", "success": "success"}


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 0},
        {"episodes": 10},
        {"first_state": 100_000},
        {"initial_states": "0-9"},
        {"samples": 2},
        {"temperature": 0.7},
        {"until": "last-step"},
        {"max_steps": 100},
        {"unnorm_key": "bridge_orig"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_a_protocol_fixes_cannot_be_asked_for_otherwise(changes: dict[str, Any]) -> None:
    with pytest.raises(
        SettingsError, match=f"--{next(iter(changes)).replace('_', '-')} .* contradicts --protocol libero"
    ):
        apply_protocol(replace(LIBERO, **changes))


def test_saying_what_the_protocol_says_is_no_contradiction_and_settings_are_stable() -> None:
    settings, _ = apply_protocol(
        replace(LIBERO, seed=7, initial_states="0-24,25-49", unnorm_key="libero_spatial_no_noops")
    )
    assert apply_protocol(settings)[0] == settings


def test_unknown_names_and_other_suites_are_refused() -> None:
    with pytest.raises(SettingsError, match="Unknown protocol 'libero-openvla'") as error:
        apply_protocol(replace(LIBERO, protocol="libero-openvla"))
    assert "Did you mean 'libero-openvla-v1'?" in error.value.hint
    with pytest.raises(SettingsError, match="not for suite 'metaworld'") as error:
        apply_protocol(replace(LIBERO, suite="metaworld"))
    assert "libero_goal" in error.value.hint


def test_statistics_are_those_of_the_suite_with_or_without_no_ops() -> None:
    settings, protocol = apply_protocol(LIBERO)
    assert protocol is not None
    both = fit_checkpoint(protocol, settings, ["libero_spatial_no_noops", "libero_spatial"], None)
    assert both.unnorm_key == "libero_spatial"
    assert fit_checkpoint(protocol, settings, ["libero_spatial_no_noops"], None).unnorm_key == "libero_spatial_no_noops"
    with pytest.raises(CompatibilityError, match="no normalization statistics of libero_spatial") as error:
        fit_checkpoint(protocol, settings, ["bridge_orig"], None)
    assert "bridge_orig" in error.value.hint


def test_simpler_takes_statistics_of_bridge_or_of_its_own_demonstrations() -> None:
    for suite in ("simpler_widowx", "simpler_widowx_subject", "simpler_widowx-v0"):
        name = "simpler-widowx-variations" if suite.endswith("subject") else SIMPLER.protocol
        settings, protocol = apply_protocol(replace(SIMPLER, suite=suite, protocol=name))
        assert protocol is not None
        for key in ("bridge_orig", suite, "simpler_widowx"):
            assert fit_checkpoint(protocol, settings, [key, "libero_goal"], None).unnorm_key == key
        # Fine-tuned here from a checkpoint that still holds BridgeData's.
        assert fit_checkpoint(protocol, settings, ["bridge_orig", suite], None).unnorm_key == suite
        with pytest.raises(CompatibilityError, match="no normalization statistics of simpler_widowx"):
            fit_checkpoint(protocol, settings, ["libero_goal"], None)


@pytest.mark.parametrize("group", ["subject", "physical", "semantic"])
def test_variations_do_not_get_the_benchmarks_name(group: str) -> None:
    varied = replace(SIMPLER, suite=f"simpler_widowx_{group}")
    with pytest.raises(SettingsError, match="is not for suite") as error:
        apply_protocol(varied)
    assert "--protocol simpler-widowx-variations" in error.value.hint
    settings, protocol = apply_protocol(replace(varied, protocol="simpler-widowx-variations"))
    benchmark, original = apply_protocol(SIMPLER)
    assert protocol is not None
    assert original is not None
    assert settings == replace(benchmark, protocol=settings.protocol, suite=varied.suite)
    assert (protocol.fixes, protocol.seeds, protocol.signals) == (original.fixes, original.seeds, original.signals)
    assert "not the benchmark's" in protocol.rules[0]
    for variant in ("simpler_widowx_held3", "libero_spatial_2hz", "libero_goal_nano_wrist", "simpler_widowx_nano"):
        with pytest.raises(SettingsError, match="is not for suite"):
            apply_protocol(replace(SIMPLER, suite=variant))


@pytest.mark.parametrize(("says", "crop"), [(None, "yes"), (True, "yes"), (False, "no")])
def test_images_are_cropped_for_policies_trained_with_crops(says: bool | None, crop: str) -> None:
    settings, protocol = apply_protocol(LIBERO)
    assert protocol is not None
    assert fit_checkpoint(protocol, settings, ["libero_spatial"], says).center_crop == crop
    if says is not None:
        with pytest.raises(SettingsError, match="contradicts p, which was trained"):
            fit_checkpoint(protocol, replace(settings, center_crop="no" if says else "yes"), ["libero_spatial"], says)


def trajectory(grasped: list[float], solved: list[float]) -> Trajectory:
    steps = len(solved) - 1
    meta = EpisodeMeta("e", "toy", "t", 0, "do it", 0, 0, 0, bool(solved[-1]), steps, "expert")
    return Trajectory(
        meta=meta,
        frames=np.zeros((steps + 1, 1, 1, 3), np.uint8),
        proprio=np.zeros((steps + 1, 1), np.float32),
        actions=np.zeros((steps, 7), np.float32),
        labels=np.zeros((steps, 7), np.float32),
        action_tokens=np.zeros((steps, 7), np.int32),
        token_logps=np.zeros((steps, 7), np.float32),
        keypoints={},
        signals={"grasped": np.array(grasped, np.float32), "success": np.array(solved, np.float32)},
    )


def test_end_and_ever_are_told_apart() -> None:
    signals = {"grasp": "grasped", "success": "success"}
    lost = measure(trajectory([0, 1, 1, 0], [0, 0, 1, 0]), signals)
    assert lost == {"grasp_end": False, "grasp_ever": True, "success_end": False, "success_ever": True}
    # The state of the reset is nobody's merit.
    assert measure(trajectory([1, 0], [1, 0]), signals)["success_ever"] is False
    with pytest.raises(CompatibilityError, match="no signal 'lifted'"):
        measure(trajectory([0, 0], [0, 0]), {"lift": "lifted"})


@pytest.fixture
def nano(tmp_path: Path) -> Path:
    from tests.training.recordings import write_policy  # needs torch, as the other tests here do not

    return write_policy(tmp_path / "policy")


def evaluate(tmp_path: Path, **changes: Any) -> Mapping[str, Any]:
    settings = EvaluateSettings(policy="expert", out=tmp_path / "e", suite="toy", protocol=TOY.name, workers=1)
    return run_evaluate(replace(settings, **changes))


def test_an_evaluation_by_protocol_plays_on_and_reports_both_rules(toy_protocol: Protocol, tmp_path: Path) -> None:
    summary = evaluate(tmp_path, operators="sloppy")
    assert (summary["protocol"], summary["until"], summary["episodes"]) == (TOY.name, "last-step", 6)
    store = EpisodeStore.open(tmp_path / "e" / "rollouts" / "store")
    assert {(meta.until, meta.steps, meta.initial_state) for meta in store.metas()} == {
        ("last-step", 8, state) for state in (4, 5, 6)
    }
    results = read_results(tmp_path / "e")
    assert list(results.measures) == ["success_end", "success_ever", "touch_end", "touch_ever"]
    assert results.measures["success_end"].rate == results.success_rate
    for name, figures in results.tasks.items():
        for measured, share in figures.measures.items():
            held = [outcome.measures[measured] for outcome in results.per_episode if outcome.task == name]
            assert share.count == sum(held)
            assert share.interval == wilson_interval(sum(held), len(held))
    # The sloppy operator pushes blocks past their goal: what was reached is not always kept.
    assert results.measures["success_ever"].count >= results.measures["success_end"].count
    assert evaluate(tmp_path, operators="sloppy") == summary


def test_a_changed_measure_in_the_file_is_noticed(toy_protocol: Protocol, tmp_path: Path) -> None:
    evaluate(tmp_path, tasks="reach-red")
    file = tmp_path / "e" / "results.json"
    data = json.loads(file.read_text())
    data["tasks"]["reach-red"]["measures"]["touch_ever"]["count"] += 1
    file.write_text(json.dumps(data))
    with pytest.raises(DataError, match="disagrees with itself"):
        read_results(file)


@pytest.mark.needs("train")
def test_a_policy_also_samples_the_seeds(
    toy_protocol: Protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nano: Path
) -> None:
    summary = evaluate(tmp_path, policy=str(nano), tasks="reach-red")
    assert summary["episodes"] == 3
    assert (summary["seeds"]["episodes"], summary["seeds"]["samples"]) == (6, 2)
    seeds = read_results(tmp_path / "e" / "results-seeds.json")
    assert (seeds.temperature, seeds.protocol) == (1.0, TOY.name)
    assert len({outcome.key for outcome in seeds.per_episode}) == 6
    assert read_results(tmp_path / "e").temperature == 0.0


@pytest.mark.needs("train")
def test_a_dry_run_shows_what_is_fixed(toy_protocol: Protocol, capsys: pytest.CaptureFixture[str], nano: Path) -> None:
    code = main(["evaluate", "--protocol", TOY.name, "--suite", "toy", "--policy", str(nano), "--dry-run", "--json"])
    plan = json.loads(capsys.readouterr().out)
    assert code == 0
    assert plan["protocol"] == TOY.name
    assert (plan["initial_states"], plan["until"], plan["seed"], plan["episodes"]) == ("4-6", "last-step", 3, 6)
    assert plan["limits"] == {"reach-red": 8, "push-block": 8}
    assert plan["seeds"] == {"samples": 2, "temperature": 1.0, "episodes": 12, "decisions_at_most": 96}
    assert plan["measures"] == ["touch_end", "touch_ever", "success_end", "success_ever"]


def test_tasks_of_others_are_refused_and_missing_ones_named(
    toy_protocol: Protocol, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SettingsError, match="reach-blue is not one of protocol toy-3x2"):
        evaluate(tmp_path, tasks="reach-blue")
    main(["evaluate", "--protocol", TOY.name, "--suite", "toy", "--policy", "expert", "--tasks", "0", "--dry-run"])
    assert "1 more tasks (push-block)" in " ".join(capsys.readouterr().err.split())


def test_the_table_shows_end_and_ever(
    toy_protocol: Protocol, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--protocol", TOY.name, "--suite", "toy", "--policy", "expert", "--workers", "1"]
    assert main([*words, "--out", str(tmp_path / "e")]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "at the end ┃ ever" in text
    assert "all │ success │ 100.0 % (61.0 - 100.0 %) │ 100.0 % (61.0 - 100.0 %)" in text
    assert "Episodes ran to their last step" in text


def test_success_by_two_rules_is_not_compared() -> None:
    def results(until: str) -> EvaluationResults:
        return EvaluationResults.from_outcomes(
            [EpisodeOutcome("t", 0, 0, True, 3)],
            {"t": "do it"},
            suite="toy",
            policy="p",
            policy_hash="h",
            temperature=0.0,
            seed=0,
            versions={},
            until=until,
        )

    with pytest.raises(CompatibilityError, match="success is not the same thing"):
        pair_results(results("success"), results("last-step"))


@pytest.mark.needs("train")
def test_a_checkpoint_says_which_statistics_it_has_and_whether_it_crops(nano: Path) -> None:
    says = grape.collect.read_checkpoint_info(str(nano))
    assert len(says.norm_keys) == 1
    assert says.center_crop is False
    config = json.loads((nano / "config.json").read_text())
    (nano / "config.json").write_text(json.dumps(config | {"grape": config["grape"] | {"center_crop": True}}))
    assert grape.collect.read_checkpoint_info(str(nano)) == CheckpointInfo(says.norm_keys, True)


@pytest.mark.needs("train")
def test_a_published_checkpoint_says_nothing_of_crops_until_it_is_trained_here(tmp_path: Path) -> None:
    golden = Path(__file__).parents[3] / "shared" / "golden" / "openvla" / "ckpt"
    if not golden.is_dir():
        pytest.skip(f"golden fixtures are not at {golden}")
    assert grape.collect.read_checkpoint_info(str(golden)).center_crop is None
    shutil.copytree(golden, tmp_path / "trained", copy_function=shutil.copyfile)
    (tmp_path / "trained" / "provenance.json").write_text('{"collected": {"libero_spatial": {"task": "0-9"}}}')
    assert grape.collect.read_checkpoint_info(str(tmp_path / "trained")).center_crop is False


@pytest.mark.needs("train")
def test_what_says_nothing_of_crops_is_pointed_out_once_images_matter(nano: Path, tmp_path: Path) -> None:
    reporter = Hearing()
    settings = {"suite": "toy", "tasks": "0", "initial_states": "0", "workers": 1, "samples": 1}
    collect = CollectSettings(policy=str(nano), out=tmp_path / "said", **settings)
    grape.collect.run_collect(collect, reporter=reporter)
    assert reporter.warnings == []
    config = json.loads((nano / "config.json").read_text())
    (nano / "config.json").write_text(json.dumps(config | {"grape": config["grape"] | {"preset": ""}}))
    grape.collect.run_collect(replace(collect, out=tmp_path / "silent"), reporter=reporter)
    assert "--center-crop yes" in reporter.warnings[0]
    grape.collect.run_collect(replace(collect, out=tmp_path / "told", center_crop="no"), reporter=reporter)
    assert len(reporter.warnings) == 1
