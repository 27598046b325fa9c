"""Where a loop's episodes are played is said once, and holds for all of its stages."""

from dataclasses import replace
from pathlib import Path

import pytest

from grape.collect import CollectSettings
from grape.core.errors import SettingsError
from grape.evaluation import EvaluateSettings
from grape.loop import LoopSettings, run_loop
from grape.loop.settings import LAUNCHER
from grape.loop.stages import Stages


def test_the_launcher_is_that_of_all_stages(tmp_path: Path) -> None:
    given = {
        **{"launcher": "ray", "ray_address": "10.0.0.1:6379", "replicas": 3, "replica_gpus": 0.5, "replica_cpus": 2},
        **{"worker_cpus": 0.25, "worker_resource": "simulator"},
    }
    assert set(given) == set(LAUNCHER)
    loop = LoopSettings(out=tmp_path, suite="toy")
    stages = Stages(replace(loop, **given))
    evaluation = stages.validate(tmp_path / "policy", tmp_path / "evaluate")
    for settings in (stages.demonstrations(), stages.collect(1, tmp_path / "policy"), evaluation):
        assert isinstance(settings, CollectSettings | EvaluateSettings)
        assert {name: getattr(settings, name) for name in LAUNCHER} == given


def test_a_stage_of_its_own_launcher_is_refused(tmp_path: Path) -> None:
    collect = CollectSettings(out=LoopSettings(out=tmp_path).collect.out, samples=8, launcher="ray")
    with pytest.raises(SettingsError, match=r"collect\.launcher"):
        run_loop(LoopSettings(out=tmp_path / "loop", suite="toy", collect=collect))


def test_a_cluster_that_does_not_answer_is_told_before_anything_is_played(tmp_path: Path) -> None:
    loop = LoopSettings(out=tmp_path / "loop", suite="toy", launcher="ray", ray_address="127.0.0.1:1")
    with pytest.raises(SettingsError, match="does not answer"):
        run_loop(loop)
    assert not (tmp_path / "loop" / "demonstrations").exists()
