"""A loop that trains in several processes: those that a launcher started, and those that ``--gpus`` starts."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grape.core.errors import CompatibilityError, GrapeError, SettingsError, TrainingError
from grape.core.events import Progress, SilentReporter
from grape.core.files import read_json, read_jsonl
from grape.core.settings import read_yaml, save_settings, settings_from_dict
from grape.loop import LoopSettings, run_loop
from grape.loop import trainings as job
from grape.loop.plan import format_plan
from grape.loop.stages import Stages
from grape.policies.openvla import compute_norm_stats, create_nano, save_policy
from grape.training import run_train

SMALLEST = read_yaml(Path(__file__).with_name("smallest.yaml"))
GROUP = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def settings_in(folder: Path, **changes: Any) -> LoopSettings:
    one = {"iterations": 1, "compare_cloning": False} | changes
    settings = settings_from_dict(LoopSettings, SMALLEST | one, LoopSettings(out=folder / "run"))
    parts = {name: replace(getattr(settings, name), device="cpu") for name in ("sft", "collect", "train")}
    return replace(settings, **parts)


def children_of(process: int) -> list[int]:
    """Processes that a process started."""
    children = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == process:
                children.append(int(folder.name))
    return children


class Killer(SilentReporter):
    """Kills the rank beside a process after the first update of the preference training."""

    def __init__(self, process: int) -> None:
        self._process = process

    @contextlib.contextmanager
    def progress(self, title: str, total: int, done: int = 0) -> Iterator[Progress]:
        with super().progress(title, total, done) as bar:
            yield self if title == "train tpo" else bar

    def advance(self, amount: int = 1, note: str = "") -> None:
        for child in children_of(self._process):
            os.kill(child, signal.SIGKILL)


@pytest.mark.slow
def test_a_loop_trains_in_the_processes_of_its_launcher_and_goes_on_in_its_own(tmp_path, monkeypatch):
    settings = settings_in(tmp_path)
    save_settings(tmp_path / "loop.yaml", settings)
    command = [sys.executable, "-m", "grape", "loop", "--config", str(tmp_path / "loop.yaml"), "--out", "run"]
    surroundings = {**os.environ, **GROUP, "RANK": "1", "LOCAL_RANK": "1"}
    with subprocess.Popen(command, cwd=tmp_path, env=surroundings, stderr=subprocess.PIPE, text=True) as other:
        with monkeypatch.context() as launched:
            for name, value in (GROUP | {"RANK": "0", "LOCAL_RANK": "0"}).items():
                launched.setenv(name, value)
            with pytest.raises(TrainingError, match="Rank 1 of the training was killed by signal 9 on"):
                run_loop(settings, Killer(other.pid))
        _, stderr = other.communicate(timeout=600)
        assert other.returncode == 0, stderr
    assert not (tmp_path / "run" / ".process-group").exists()
    train = tmp_path / "run" / "iteration-1" / "train"
    assert len(read_jsonl(tmp_path / "run" / "sft" / "metrics.jsonl")) == 6
    assert not (train / "done.json").exists()

    run_loop(replace(settings, gpus=2))
    assert read_yaml(train / "settings.yaml")["gpus"] == 2
    alone = replace(Stages(settings).train(1, tmp_path / "run" / "sft" / "policy"), out=tmp_path / "alone")
    run_train(alone)
    for one, two in zip(read_jsonl(alone.out / "metrics.jsonl"), read_jsonl(train / "metrics.jsonl"), strict=True):
        assert two == pytest.approx(one, rel=1e-3, abs=1e-4)
    assert read_json(train / "done.json")["updates"] == read_json(alone.out / "done.json")["updates"]


def test_the_others_of_a_job_that_is_over_leave(tmp_path, monkeypatch):
    variables = GROUP | {"RANK": "0", "LOCAL_RANK": "0"}
    for name, value in (GROUP | {"RANK": "1"}).items():
        monkeypatch.setenv(name, value)
    trainings = job.JobTrainings(tmp_path, variables)
    assert (tmp_path / ".process-group").stat().st_mode & 0o777 == 0o600
    with subprocess.Popen(
        [sys.executable, "-m", "grape", "loop", "--suite", "toy", "--out", str(tmp_path)],
        env={**os.environ, "RANK": "1"},
        stderr=subprocess.PIPE,
        text=True,
    ) as other:
        trainings.close(600.0)
        _, stderr = other.communicate(timeout=600)
    assert other.returncode == 0, stderr
    assert stderr == ""
    assert not (tmp_path / ".process-group").exists()


def test_a_main_process_that_is_gone_or_never_begins_is_told(tmp_path, monkeypatch):
    for name, value in (GROUP | {"RANK": "1"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(job, "_PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(job, "_RETRY_SECONDS", 0.01)
    with pytest.raises(SettingsError, match="did not begin"):
        run_loop(settings_in(tmp_path))
    older = job.JobTrainings(tmp_path, GROUP | {"RANK": "0", "MASTER_PORT": "1"})
    with pytest.raises(SettingsError, match="did not begin"):  # that file is another job's
        job.serve_trainings(tmp_path)
    older.close(0.0)
    monkeypatch.setattr(job, "_PATIENCE_SECONDS", 60.0)
    gone = job.JobTrainings(tmp_path, GROUP | {"RANK": "0"})
    monkeypatch.setattr(job, "connect", lambda invitation: closed_by_the_other_side())
    with pytest.raises(GrapeError, match="main process is gone"):
        job.serve_trainings(tmp_path)
    gone.close(0.0)


SLURM = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}


def test_tasks_of_slurm_end_with_the_main_one_that_fails_early(tmp_path, monkeypatch):
    for name, value in (SLURM | {"SLURM_PROCID": "0"}).items():
        monkeypatch.setenv(name, value)
    settings = settings_in(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").touch()
    with pytest.raises(CompatibilityError, match="was not made by 'grape loop'"):
        run_loop(settings)
    save_settings(tmp_path / "loop.yaml", settings)
    command = [sys.executable, "-m", "grape", "loop", "--config", "loop.yaml", "--out", "run"]
    surroundings = {**os.environ, "SLURM_PROCID": "1"}
    other = subprocess.run(command, cwd=tmp_path, env=surroundings, stderr=subprocess.PIPE, text=True, timeout=600)
    assert other.returncode == CompatibilityError.exit_code
    assert "Process 1: the job's main process failed." in other.stderr
    assert "was not made by 'grape loop'" in other.stderr
    monkeypatch.setattr(job, "_PATIENCE_SECONDS", 0.1)
    for name, value in {"SLURM_PROCID": "1", "SLURM_RESTART_COUNT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match="did not begin"):  # that file is of the job before it was requeued
        run_loop(settings)


def test_tasks_of_slurm_that_come_when_all_is_done_leave(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "_FAREWELL_SECONDS", 0.0)
    for name, value in (SLURM | {"SLURM_PROCID": "0"}).items():
        monkeypatch.setenv(name, value)
    with job.tell_failure(tmp_path), job.open_trainings(tmp_path):
        pass
    monkeypatch.setenv("SLURM_PROCID", "1")
    job.serve_trainings(tmp_path)
    monkeypatch.setenv("SLURM_PROCID", "0")
    with job.tell_failure(tmp_path):
        assert not list(tmp_path.glob(".process-group*"))  # one task may come before the main one has begun again


def closed_by_the_other_side():
    here, there = socket.socketpair()
    there.close()
    return here


def test_processes_that_do_not_come_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "_ARRIVAL_SECONDS", 0.01)
    trainings = job.JobTrainings(tmp_path, GROUP | {"RANK": "0"})
    with pytest.raises(GrapeError, match="1 of the job's 2 processes did not connect"):
        trainings.train(Stages(settings_in(tmp_path)).train(1, tmp_path / "policy"), SilentReporter())
    trainings.close(0.0)


def test_several_gpus_are_those_of_rollouts_and_training(tmp_path):
    loop = LoopSettings(out=tmp_path, suite="toy", gpus=4)
    stages = Stages(loop)
    assert stages.uses_ray
    assert stages.collect(1, tmp_path / "policy").replicas == 4
    assert stages.train(1, tmp_path / "policy").gpus == stages.sft().gpus == 4
    assert stages.filtered_bc_train(tmp_path / "policy").gpus == 4
    for changes in ({"launcher": "local"}, {"gpus": 1}, {"collect": replace(loop.collect, device="cpu")}):
        stages = Stages(replace(loop, **changes))
        assert not stages.uses_ray
        assert stages.collect(1, tmp_path / "policy").replicas == 0
    cluster = Stages(replace(loop, launcher="ray", ray_address="10.0.0.1:6379")).collect(1, tmp_path / "policy")
    assert cluster.replicas == 0  # one on each GPU of the cluster


def test_a_dry_run_shows_the_processes(tmp_path, monkeypatch):
    plan = run_loop(replace(settings_in(tmp_path), gpus=4, dry_run=True))
    assert plan["processes"]["training"]["count"] == 4
    assert "Training: 4 processes (--gpus 4), 4 on each of 1 machine, the CPU for each" in "\n".join(format_plan(plan))
    assert "processes" not in run_loop(replace(settings_in(tmp_path), dry_run=True))
    for name, value in (GROUP | {"RANK": "0"}).items():
        monkeypatch.setenv(name, value)
    assert run_loop(replace(settings_in(tmp_path), dry_run=True))["processes"]["training"]["count"] == 2
    with pytest.raises(SettingsError, match="--gpus 4 starts processes of its own"):
        run_loop(replace(settings_in(tmp_path), gpus=4, dry_run=True))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_loop_under_torchrun_comes_to_its_end(tmp_path):
    settings = settings_in(tmp_path, policy="first", report=False, validation_states=1, test_states=1)
    statistics = compute_norm_stats(np.random.default_rng(0).uniform(-1, 1, (50, 7)), tuple("abcdefg"))
    save_policy(create_nano(seed=0, norm_stats=statistics, gripper="+1 closes"), tmp_path / "first")
    pair, train = replace(settings.pair, require_mixed_outcomes=False), replace(settings.train, max_updates=1)
    save_settings(tmp_path / "loop.yaml", replace(settings, pair=pair, train=train))
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "grape", "loop"]
    command = [sys.executable, "-m", *launcher, "--config", "loop.yaml", "--out", "run", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1  # the main process alone says what came out
    assert [policy["label"] for policy in json.loads(done.stdout)["policies"]] == ["starting policy", "iteration 1"]
    assert (tmp_path / "run" / "done.json").exists()
    assert not list((tmp_path / "run").glob(".process-group*"))
    assert not list((tmp_path / "run").rglob("*.tmp"))
