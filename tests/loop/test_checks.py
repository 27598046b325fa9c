"""Mistakes in a loop's settings are found before anything is written."""

import json
from pathlib import Path
from typing import Any

import pytest

from grape.core.errors import CompatibilityError, SettingsError
from grape.core.settings import read_yaml, settings_from_dict
from grape.envs.registry import get_suite, select_tasks
from grape.loop import LoopSettings, run_loop
from grape.loop.checks import check_settings
from grape.loop.stages import Stages
from grape.policies.openvla import load_policy
from grape.policies.openvla_oft.policy import OFTPolicy
from grape.policies.openvla_oft.saving import save_oft_policy
from grape.training.lora import add_adapters, save_result
from tests.openvla_oft.conftest import make_nano
from tests.training.recordings import write_policy

TINY = read_yaml(Path(__file__).parent / "tiny.yaml")


def settings(out: Path, **changes: Any) -> LoopSettings:
    data = dict(TINY)
    for key, value in changes.items():
        data[key] = data.get(key, {}) | value if isinstance(value, dict) else value
    return settings_from_dict(LoopSettings, data, LoopSettings(out=out))


def test_a_policy_that_cannot_be_trained_is_refused_before_it_collects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_oft_policy(make_nano(), tmp_path / "oft")
    monkeypatch.setattr(OFTPolicy, "has_logps", False)  # as with a regression head
    with pytest.raises(SettingsError, match="has no action tokens, so no log-probabilities"):
        run_loop(settings(tmp_path / "out", policy=str(tmp_path / "oft")))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {"lr": -1.0}}, r"--train\.lr is -1"),
        ({"gate_alpha": 0.7}, r"--gate-alpha is 0\.7"),
        ({"pair": {"m": 0}}, r"--pair\.m is 0"),
        ({"score": {"weights": [0.0, 0.0, 0.0]}}, r"--score\.weights"),
        ({"score": {"costs": "nowhere"}}, r"--score\.costs nowhere does not exist"),
        ({"sft": {"epochs": 0}}, r"--sft\.epochs is 0"),
        ({"sft": {"lora_rank": 4}}, r"--sft\.lora-rank needs --sft\.policy"),
        ({"collect": {"samples": 0}}, r"--collect\.samples is 0"),
        ({"collect": {"samples": 1}}, r"--collect\.samples is 1"),
        (
            {"collect": {"mixed_samples": 9}},
            r"--collect\.mixed-samples 9 has no effect without --collect\.mixed-episodes",
        ),
        ({"collect": {"temperature": 0.0}}, r"--collect\.temperature is 0"),
        ({"demonstrations": {"operators": "clan"}}, r"--demonstrations: Unknown operator 'clan'"),
        ({"demonstrations": {"operators": "clean:3"}}, r"--demonstrations\.operators 'clean:3' shares out 3"),
        ({"demonstrations": {"initial_states": "5-1"}}, "backwards"),
        ({"demonstrations": {"seed": 3}}, r"--demonstrations\.seed is decided by the loop"),
        ({"policy": "nowhere"}, "no such checkpoint folder"),
        ({"iterations": 0}, "--iterations is 0"),
        ({"evaluation_samples": 0}, "--evaluation-samples is 0"),
        ({"evaluation_samples": 2}, "--evaluation-samples 2 at --evaluation-temperature 0"),
        ({"evaluation_temperature": -0.1}, r"--evaluation-temperature is -0\.1"),
        ({"first_state": -1}, "--first-state is -1"),
        ({"first_test_state": -1}, "--first-test-state is -1"),
        ({"first_state": 10**9}, "does not exist"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        run_loop(settings(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {"lora_rank": 4}, "collect": {"load_in_4bit": True}}, r"--train\.load-in-4bit and --collect\.load"),
        (
            {"train": {"lora_rank": 4, "dtype": "bfloat16"}, "collect": {"dtype": "float32"}},
            r"--train\.dtype is bfloat",
        ),
        ({"sft": {"lora_rank": 4}, "train": {"lora_rank": 0}}, r"--sft\.lora-rank is 4 and --train\.lora-rank is 0"),
        ({"sft": {"lora_rank": 4}, "train": {"lora_rank": 8}}, r"--sft\.lora-rank is 4 and --train\.lora-rank is 8"),
        (
            {"sft": {"lora_rank": 4, "lora_targets": "all"}, "train": {"lora_rank": 4}},
            r"--sft\.lora-targets is all and --train\.lora-targets is language\+projector",
        ),
        (
            {"sft": {"lora_rank": 4, "load_in_4bit": True}, "train": {"lora_rank": 4}},
            r"--sft\.load-in-4bit and --collect\.load-in-4bit differ",
        ),
    ],
)
def test_adapters_whose_stages_would_not_share_one_set_of_weights(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    if "sft" in changes:
        changes["sft"]["policy"] = str(write_policy(tmp_path / "policy"))
    with pytest.raises(SettingsError, match=message):
        run_loop(settings(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("rank", "dtype", "message"),
    [
        (3, "float32", r"is an adapter with rank 2, and --train\.lora-rank is 3"),
        (0, "bfloat16", r"--train\.lora-rank 0 would merge it into weights stored or computed in fewer"),
    ],
)
def test_a_loop_from_an_adapter_trains_that_adapter(rank: int, dtype: str, message: str, tmp_path: Path) -> None:
    start = write_policy(tmp_path / "base")
    policy = load_policy(start)
    add_adapters(policy, 2, 0.0, 0)
    save_result(policy, tmp_path / "start", start)
    train = {"lora_rank": rank, "dtype": dtype}
    with pytest.raises(SettingsError, match=message):
        run_loop(settings(tmp_path / "run", policy=str(tmp_path / "start" / "policy"), train=train))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "uses", "flags"),
    [
        ({"first_state": 11}, ("demonstrations", "collection"), ("--demonstrations.initial-states", "--first-state")),
        (
            {"first_state": 99_990, "states_per_iteration": 6},
            ("collection", "the test"),
            ("--states-per-iteration", "--test-states"),
        ),
        ({"test_states": 50_001}, ("validation", "the test"), ("--validation-states", "--test-states")),
        ({"first_state": 149_999}, ("collection", "validation"), ("--first-state", "--validation-states")),
        ({"first_test_state": 8}, ("demonstrations", "the test"), ("--first-test-state",)),
        ({"first_validation_state": 100_002}, ("validation", "the test"), ("--first-validation-state",)),
    ],
)
def test_no_initial_state_has_two_uses(
    changes: dict[str, Any], uses: tuple[str, ...], flags: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="overlap") as caught:
        run_loop(settings(tmp_path / "run", **changes))
    assert all(use in caught.value.message for use in uses)
    assert all(flag in caught.value.hint for flag in flags)


def test_evaluations_sample_as_asked_and_collection_stays_its_own(tmp_path: Path) -> None:
    greedy = Stages(settings(tmp_path))
    sampled = Stages(settings(tmp_path, evaluation_samples=8, evaluation_temperature=0.5))
    for stages, expected in ((greedy, (1, 0.0)), (sampled, (8, 0.5))):
        for evaluation in (stages.validate(Path("p"), Path("v")), stages.test(Path("p"), Path("t"))):
            assert (evaluation.samples, evaluation.temperature) == expected
    assert greedy.collect(1, Path("p")) == sampled.collect(1, Path("p"))
    assert greedy.sft() == sampled.sft()


def test_states_that_only_touch_are_fine(tmp_path: Path) -> None:
    plan = run_loop(settings(tmp_path / "run", first_state=12, dry_run=True))
    assert plan["dry_run"] is True
    assert not (tmp_path / "run").exists()


def test_simulators_of_every_stage_run_in_the_interpreter_that_was_named() -> None:
    python = Path("/opt/simpler/bin/python")
    stages = Stages(LoopSettings(out=Path("run"), env_python=python))
    policy = Path("policy")
    used = [stages.demonstrations(), stages.collect(1, policy)]
    used += [stages.validate(policy, policy), stages.test(policy, policy)]
    assert [stage.env_python for stage in used] == [python] * 4


def test_a_policy_is_checked_as_it_will_be_opened(tmp_path: Path) -> None:
    policy = make_nano()
    statistics = {**policy.config.norm_stats, "other": policy.config.norm_stats["toy"]}
    config = {**policy.config.raw, "norm_stats": statistics}
    save_oft_policy(policy, tmp_path / "oft")
    (tmp_path / "oft" / "config.json").write_text(json.dumps(config))
    loop = settings(tmp_path / "out", policy=str(tmp_path / "oft"), collect={"unnorm_key": "nowhere"})
    with pytest.raises(SettingsError, match="nowhere"):
        run_loop(loop)
    loop = settings(tmp_path / "out", policy=str(tmp_path / "oft"), collect={"unnorm_key": "toy"})
    check_settings(loop, get_suite("toy"), select_tasks(get_suite("toy"), loop.tasks))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sft": {"chunk": 4}, "collect": {"execute": 6}},
            r"--collect\.execute 6: the policy will decide on 4 actions",
        ),
        ({"collect": {"execute": 2}}, r"--collect\.execute 2: the policy will decide on 1"),
        ({"sft": {"cameras": "agentview,wrist"}}, r"--sft\.cameras agentview,wrist: the suite toy has no camera wrist"),
    ],
)
def test_what_a_new_policy_cannot_do_is_found_before_the_demonstrations(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        run_loop(settings(tmp_path / "out", dry_run=True, **changes))


def test_a_policy_that_the_suite_does_not_fit_is_found_in_a_dry_run(tmp_path: Path) -> None:
    save_oft_policy(make_nano(cameras=("agentview", "wrist")), tmp_path / "wrist")
    with pytest.raises(CompatibilityError, match="the suite has no wrist"):
        run_loop(settings(tmp_path / "out", policy=str(tmp_path / "wrist"), dry_run=True))


def test_a_loop_evaluates_as_it_collects() -> None:
    stages = Stages(settings(Path("out"), collect={"execute": 2}, sft={"chunk": 4}))
    assert stages.validate(Path("policy"), Path("out")).execute == stages.test(Path("policy"), Path("out")).execute == 2
