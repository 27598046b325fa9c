"""Supervision of ranks: what they report, how they end, and which error is told."""

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from grape.core.errors import GrapeError, NoPairsError, SettingsError, TrainingError
from grape.core.events import SILENT
from grape.training import SftSettings, TrainSettings, run_sft, run_train
from grape.training.process_group import follow, plan_processes


class WrittenRank:
    """A rank that wrote these messages and ended."""

    def __init__(self, number: int, *messages: Mapping[str, Any], rest: bytes = b"") -> None:
        self.number = number
        self._reading, writing = os.pipe()
        os.write(writing, b"".join(json.dumps(message).encode() + b"\n" for message in messages) + rest)
        os.close(writing)

    def fileno(self) -> int:
        return self._reading

    def stop(self) -> None:
        raise AssertionError

    def wait(self, seconds: float) -> None:
        raise AssertionError

    def kill(self) -> None:
        os.close(self._reading)

    def ending(self) -> str:
        return "was killed by signal 9"


class Listener:
    """Notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    @contextlib.contextmanager
    def progress(self, title, total, done=0):
        self.heard.append(("begin", title, total, done))
        yield self
        self.heard.append(("end", title))

    def advance(self, amount=1, note=""):
        self.heard.append(("advance", amount, note))

    def info(self, message):
        self.heard.append(("info", message))

    def warn(self, message):
        self.heard.append(("warn", message))


DONE = {"kind": "outcome", "done": True}
LOST = {"kind": "outcome", "defect": "RuntimeError: Connection closed by peer", "traceback": "line 7, in all_reduce"}
REFUSED = {"kind": "outcome", "error": "NoPairsError", "message": "Nothing to learn.", "hint": "Collect more."}


def test_what_rank_0_reports_is_shown():
    listener = Listener()
    follow(
        [
            WrittenRank(
                0,
                {"kind": "warn", "text": "a warning"},
                {"kind": "bar", "bar": 0, "title": "read", "total": 2, "done": 1},
                {"kind": "advance", "bar": 0, "amount": 1, "note": "half"},
                {"kind": "bar over", "bar": 0},
                {"kind": "info", "text": "a message"},
                DONE,
            ),
            WrittenRank(1, DONE),
        ],
        listener,
    )
    assert listener.heard == [
        ("warn", "a warning"),
        ("begin", "read", 2, 1),
        ("advance", 1, "half"),
        ("end", "read"),
        ("info", "a message"),
    ]


@pytest.mark.parametrize(
    ("ranks", "kind", "message"),
    [
        ([(LOST,), (REFUSED,)], NoPairsError, "Nothing to learn"),
        ([(LOST,), ()], TrainingError, "Rank 1 of the training was killed by signal 9"),
        ([(DONE,), (LOST,)], TrainingError, "Rank 1 of the training failed: RuntimeError: Connection closed"),
        ([(REFUSED,), (REFUSED,)], NoPairsError, "Nothing to learn"),
        ([(DONE,), ({"kind": "outcome", "error": "OtherError", "message": "Odd.", "hint": ""},)], GrapeError, "Odd"),
    ],
)
def test_one_error_explains_the_others(ranks, kind, message):
    written = [WrittenRank(number, *messages) for number, messages in enumerate(ranks)]
    with pytest.raises(kind, match=message) as raised:
        follow(written, SILENT)
    assert type(raised.value) is kind
    assert ("line 7" in raised.value.hint) == ("RuntimeError" in message)


def test_a_rank_that_is_killed_while_it_writes_has_died():
    with pytest.raises(TrainingError, match="killed by signal 9"):
        follow([WrittenRank(0, DONE), WrittenRank(1, rest=b'{"kind": "outc\n{"kind": ')], SILENT)


SUPERVISOR = """
import sys
from pathlib import Path
from grape.training.process_group import start_local_ranks
from grape.training.settings import TrainSettings
settings = TrainSettings(pairs=Path("pairs"), policy=Path("policy"), out=Path("run"), device="cpu", gpus=2)
with start_local_ranks("train", settings) as ranks:
    print(*(rank.pid for rank in ranks), flush=True)
    sys.stdin.read()
"""


def test_no_rank_outlives_the_supervisor(tmp_path):
    command = [sys.executable, "-c", SUPERVISOR]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, text=True, **pipes) as supervisor:
        ranks = [os.pidfd_open(int(word)) for word in supervisor.stdout.readline().split()]
        supervisor.kill()
    for rank in ranks:
        assert select.select([rank], [], [], 300)[0], "a rank still runs"
        os.close(rank)


@pytest.fixture
def settings(tmp_path):
    return TrainSettings(pairs=tmp_path / "pairs", policy=tmp_path / "policy", out=tmp_path / "run", gpus=4)


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"},
        {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"},
    ],
)
def test_processes_of_ones_own_are_not_for_launchers(settings, environment, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=r"--gpus 4 starts processes of its own, but .* started 2"):
        run_train(settings)
    with pytest.raises(SettingsError, match="--gpus 4"):
        run_sft(SftSettings(data=(settings.pairs,), out=settings.out, gpus=4))


def test_settings_are_checked_before_ranks_are_started(settings):
    with pytest.raises(SettingsError, match="--beta is 0"):
        run_train(replace(settings, beta=0.0))
    assert not settings.out.exists()


def test_the_plan_says_how_processes_are_spread(settings, monkeypatch):
    assert plan_processes(replace(settings, gpus=1)) == {}
    own = plan_processes(replace(settings, device="cpu", sharding="full"))["processes"]
    assert (own["count"], own["machines"], own["on_each_machine"]) == (4, 1, 4)
    assert own["started_by"] == "--gpus 4"
    assert own["device_of_each"] == "the CPU"
    assert "spread" in own["parameters"]
    tasks = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "16", "SLURM_STEP_TASKS_PER_NODE": "8(x2)"}
    for name, value in tasks.items():
        monkeypatch.setenv(name, value)
    step = plan_processes(replace(settings, gpus=1))["processes"]
    assert (step["count"], step["machines"], step["on_each_machine"]) == (16, 2, 8)
    assert step["started_by"] == "SLURM's srun"
    assert "whole" in step["parameters"]
