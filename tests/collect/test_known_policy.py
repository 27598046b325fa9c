"""A finished run knows its policy by the checkpoint's files, so that looking at it again starts no replicas."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grape.collect import CollectSettings, KnownPolicy, ray_launcher, run_collect
from grape.core.errors import CompatibilityError
from grape.core.provenance import add_validated
from grape.evaluation import EvaluateSettings, run_evaluate
from grape.policies.base import PolicySpec

pytestmark = pytest.mark.needs("train")

SPEC = PolicySpec(7, 64, "+1 closes", "toy", "f00d", "beef", "cpu float32, sdpa", cameras=("agentview", "wrist"))
GIVEN: dict[str, Any] = {"suite": "toy", "tasks": "0", "initial_states": "0-1", "max_steps": 2, "workers": 1}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from grape.policies.openvla import compute_norm_stats, create_nano, save_policy

    folder = tmp_path_factory.mktemp("checkpoint") / "policy"
    statistics = compute_norm_stats(np.random.default_rng(0).uniform(-1, 1, (50, 7)), tuple("abcdefg"))
    save_policy(create_nano(seed=0, norm_stats=statistics, gripper="+1 closes"), folder)
    return folder


@pytest.fixture
def policy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "policy"))


def finished(folder: Path) -> Path:
    folder.mkdir()
    (folder / "done.json").write_text("{}")
    return folder


def settings_of(policy: Path | str, **changes: Any) -> CollectSettings:
    return CollectSettings(out=Path("unused"), policy=str(policy), **changes)


def test_equal_files_that_are_opened_alike_are_the_same_policy(policy: Path, tmp_path: Path) -> None:
    out = finished(tmp_path / "out")
    assert KnownPolicy(settings_of(policy)).recorded(out) is None
    KnownPolicy(settings_of(policy)).record(out, SPEC)
    assert KnownPolicy(settings_of(policy)).recorded(out) == SPEC
    add_validated(policy, "toy", ["reach"], [1])  # a loop does so after it has evaluated a policy
    moved = Path(shutil.copytree(policy, tmp_path / "elsewhere" / "policy"))
    assert KnownPolicy(settings_of(moved)).recorded(out) == SPEC
    for changes in ({"dtype": "bfloat16"}, {"device": "cpu"}, {"center_crop": "yes"}, {"unnorm_key": "other"}):
        assert KnownPolicy(settings_of(policy, **changes)).recorded(out) is None
    (out / "done.json").unlink()
    assert KnownPolicy(settings_of(policy)).recorded(out) is None


def test_any_changed_byte_or_release_makes_another_policy(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grape.collect import known_policy

    out = finished(tmp_path / "out")
    KnownPolicy(settings_of(policy)).record(out, SPEC)
    with monkeypatch.context() as patched:
        patched.setattr(known_policy, "policy_releases", lambda: {"torch": "0"})
        assert KnownPolicy(settings_of(policy)).recorded(out) is None
    for path in [path for path in policy.iterdir() if path.suffix in (".json", ".safetensors")]:
        before = path.read_bytes()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        assert KnownPolicy(settings_of(policy)).recorded(out) is None, path.name
        path.write_bytes(before)
    assert KnownPolicy(settings_of(policy)).recorded(out) == SPEC
    (out / ".policy-contract.json").write_text('{"hash": 3}')
    assert KnownPolicy(settings_of(policy)).recorded(out) is None


def test_files_that_change_while_a_run_is_under_way_are_not_recorded(policy: Path, tmp_path: Path) -> None:
    out = finished(tmp_path / "out")
    known = KnownPolicy(settings_of(policy))
    config = policy / "config.json"
    config.write_text(config.read_text() + "\n")
    known.record(out, SPEC)
    KnownPolicy(settings_of("organization/name")).record(out, SPEC)  # its weights need not be on this machine
    KnownPolicy(settings_of(tmp_path / "nowhere")).record(out, SPEC)
    assert [path.name for path in out.iterdir()] == ["done.json"]


def test_an_adapter_is_known_with_its_base(policy: Path, tmp_path: Path) -> None:
    out, adapter = finished(tmp_path / "out"), tmp_path / "adapter"
    adapter.mkdir()
    shutil.copy(policy / "config.json", adapter)
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(policy)}))
    KnownPolicy(settings_of(adapter)).record(out, SPEC)
    assert KnownPolicy(settings_of(adapter)).recorded(out) == SPEC
    (policy / "generation_config.json").write_text("{}")
    assert KnownPolicy(settings_of(adapter)).recorded(out) is None


def test_finished_and_planned_runs_of_a_policy_start_no_ray(policy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    collected = CollectSettings(out=tmp_path / "collect", policy=str(policy), device="cpu", **GIVEN)
    evaluated = EvaluateSettings(out=tmp_path / "evaluate", policy=str(policy), device="cpu", **GIVEN)
    elsewhere = dataclasses.replace(evaluated, out=None)
    summaries = run_collect(collected), run_evaluate(evaluated), run_evaluate(elsewhere)
    monkeypatch.setattr(ray_launcher, "open_cluster", lambda address: pytest.fail("Ray was started"))
    collect, evaluate, default = (dataclasses.replace(one, launcher="ray") for one in (collected, evaluated, elsewhere))
    for settings, run in ((collect, run_collect), (evaluate, run_evaluate), (default, run_evaluate)):
        assert run(dataclasses.replace(settings, dry_run=True))["dry_run"]
        with pytest.raises(pytest.fail.Exception, match="Ray was started"):
            run(settings)  # finished by the local launcher, which leaves no record
    from grape.policies.registry import open_policy

    spec = open_policy(policy).spec
    for folder in (collect.out, evaluate.out, Path(summaries[2]["results"]).parent):
        KnownPolicy(collect).record(folder, spec)
    assert (run_collect(collect), run_evaluate(evaluate), run_evaluate(default)) == summaries
    with pytest.raises(CompatibilityError, match=r"samples was 1, now 2"):
        run_collect(dataclasses.replace(collect, samples=2))
    next((collect.out / "store" / "episodes").glob("*.parquet")).unlink()
    with pytest.raises(pytest.fail.Exception, match="Ray was started"):
        run_collect(collect)
    (policy / "generation_config.json").write_text("{}")
    with pytest.raises(pytest.fail.Exception, match="Ray was started"):
        run_evaluate(evaluate)
