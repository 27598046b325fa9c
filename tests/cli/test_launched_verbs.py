"""Verbs under a launcher: which are refused, and which processes print."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from grape.cli.main import VERBS, main
from grape.cli.verb import Verb, run_verb


@dataclass(frozen=True)
class _Settings:
    """A verb.

    Attributes:
        number: A number.
    """

    number: int = 1


def _verb(processes: Any) -> Verb:
    def run(settings: _Settings, reporter: Any) -> Mapping[str, Any]:
        reporter.warn("working")
        return {"number": settings.number}

    return Verb("count", _Settings, run, lambda summary, console: None, processes=processes)


SINGLE_PROCESS = {"RANK": "1"}
FIRST = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
SECOND = FIRST | {"RANK": "1"}
BATCH_SCRIPT = {"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}
FIRST_TASK = BATCH_SCRIPT | {"SLURM_STEP_NUM_TASKS": "2"}
SECOND_TASK = FIRST_TASK | {"SLURM_PROCID": "1"}
ONE_TASK = FIRST_TASK | {"SLURM_STEP_NUM_TASKS": "1"}


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, str]], None]:
    """Sets a launcher's variables, and no others."""

    def surround(environment: Mapping[str, str]) -> None:
        for name in (*FIRST, *FIRST_TASK):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return surround


@pytest.mark.parametrize("environment", [{}, SINGLE_PROCESS, BATCH_SCRIPT, ONE_TASK], ids=str)
@pytest.mark.parametrize("processes", ["one", "group", "each"])
def test_a_process_alone_prints_whatever_its_environment_says(processes, environment, surroundings, capsys):
    surroundings(environment)
    assert run_verb(_verb(processes), ["--json"]) == 0
    captured = capsys.readouterr()
    assert captured.out == '{"number": 1}\n'
    assert "working" in captured.err


@pytest.mark.parametrize(
    ("processes", "environment", "prints"),
    [
        ("group", FIRST, True),
        ("group", SECOND, False),
        ("group", SECOND_TASK, False),
        ("each", SECOND, True),
        ("each", SECOND_TASK, True),
    ],
)
def test_of_a_group_the_main_process_prints(processes, environment, prints, surroundings, capsys):
    surroundings(environment)
    assert run_verb(_verb(processes), ["--json"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ('{"number": 1}\n' if prints else "")
    assert ("working" in captured.err) == prints


@pytest.mark.parametrize(
    ("main_process", "other", "advice"),
    [(FIRST, SECOND, "without the launcher"), (FIRST_TASK, SECOND_TASK, "srun --ntasks 1")],
)
def test_any_other_verb_is_refused_in_one_sentence(main_process, other, advice, surroundings, capsys, tmp_path):
    words = ["collect", "--suite", "toy", "--out", str(tmp_path / "run")]
    surroundings(main_process)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "'grape collect' is one process, but" in error
    assert "started 2." in error
    assert advice in error
    surroundings(other)
    assert main(words) == 2
    assert capsys.readouterr().err == ""  # said once
    assert not (tmp_path / "run").exists()
    assert main(["help", "collect"]) == 0


def test_tasks_may_play_a_shard_each(surroundings, capsys, tmp_path):
    words = ["collect", "--suite", "toy", "--shard", "2/2", "--out", str(tmp_path / "run"), "--dry-run"]
    surroundings(SECOND_TASK)
    assert main(words) == 0
    surroundings(FIRST)
    assert main(words) == 2  # torchrun's processes have the same command line, so the same shard


def test_the_verbs_of_several_processes():
    verbs = {name: importlib.import_module(f"grape.cli.verbs.{name}").VERB for name in VERBS}
    processes = {name: getattr(verb, "processes", "one") for name, verb in verbs.items()}
    assert {name: kind for name, kind in processes.items() if kind != "one"} == {
        **dict.fromkeys(("train", "sft", "loop"), "group"),
        "doctor": "each",
    }


def test_a_rank_of_a_scheduler_silences_no_verb(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert main(["costs", "list", "--json"]) == 0
    assert capsys.readouterr().out.startswith("{")
