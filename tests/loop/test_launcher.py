"""Where a loop's episodes are played is said once, and holds for all of its stages."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from grape.collect import CollectSettings, run_collect
from grape.core.errors import SettingsError
from grape.evaluation import EvaluateSettings
from grape.loop import LoopSettings, run_loop
from grape.loop.settings import LAUNCHER
from grape.loop.stages import Stages
from grape.preferences import pricing, run_score


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


def test_scores_are_computed_where_episodes_are_played(tmp_path: Path) -> None:
    loop = LoopSettings(out=tmp_path, suite="toy")

    def scoring(score_workers: int = 1, collect_workers: int = 0, **changes: Any) -> tuple[str, str, int]:
        score, collect = replace(loop.score, workers=score_workers), replace(loop.collect, workers=collect_workers)
        settings = Stages(replace(loop, score=score, collect=collect, **changes)).score(1)
        return settings.launcher, settings.ray_address, settings.workers

    assert scoring() == ("local", "", 0)
    assert scoring(3, 5) == ("local", "", 3)
    cluster = {"launcher": "ray", "ray_address": "10.0.0.1:6379"}
    assert scoring(**cluster) == ("ray", "10.0.0.1:6379", 0)
    assert scoring(1, 6, worker_cpus=0.25, **cluster) == ("ray", "10.0.0.1:6379", 2)
    assert scoring(4, 6, worker_cpus=0.25, **cluster) == ("ray", "10.0.0.1:6379", 4)
    assert scoring(1, 6, worker_resource="simulator", **cluster) == ("local", "", 0)
    assert scoring(gpus=2)[0] == "ray"


def test_scores_of_several_processes_are_those_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pricing, "EPISODES_PER_SHARD", 3)
    files = []
    for workers in (1, 2):
        loop = LoopSettings(out=tmp_path / str(workers), suite="toy", tasks="0,1", states_per_iteration=4)
        collect = replace(loop.collect, samples=1, workers=workers)
        stages = Stages(replace(loop, collect=collect))
        run_collect(replace(stages.collect(1, tmp_path / "policy"), policy="expert", workers=1))
        run_score(stages.score(1))
        folder = stages.folder(1) / "score"
        files.append([(folder / name).read_bytes() for name in ("scores.jsonl", "curves.parquet", "calibration.json")])
    assert files[0] == files[1]


def test_a_stage_of_its_own_launcher_is_refused(tmp_path: Path) -> None:
    collect = CollectSettings(out=LoopSettings(out=tmp_path).collect.out, samples=8, launcher="ray")
    with pytest.raises(SettingsError, match=r"collect\.launcher"):
        run_loop(LoopSettings(out=tmp_path / "loop", suite="toy", collect=collect))
    loop = LoopSettings(out=tmp_path / "loop", suite="toy")
    with pytest.raises(SettingsError, match=r"score\.launcher is decided by the loop"):
        run_loop(replace(loop, score=replace(loop.score, launcher="ray")))


def test_a_cluster_that_does_not_answer_is_told_before_anything_is_played(tmp_path: Path) -> None:
    loop = LoopSettings(out=tmp_path / "loop", suite="toy", launcher="ray", ray_address="127.0.0.1:1")
    with pytest.raises(SettingsError, match="does not answer"):
        run_loop(loop)
    assert not (tmp_path / "loop" / "demonstrations").exists()
