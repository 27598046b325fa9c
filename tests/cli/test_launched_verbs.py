"""Which processes print: one of several that a launcher started, and every other one whatever its environment says."""

import importlib
from collections.abc import Mapping
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


def _verb(several_processes: bool) -> Verb:
    def run(settings: _Settings, reporter: Any) -> Mapping[str, Any]:
        reporter.warn("working")
        return {"number": settings.number}

    return Verb("count", _Settings, run, lambda summary, console: None, several_processes=several_processes)


SINGLE_PROCESS = {"RANK": "1"}
SECOND = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}


@pytest.mark.parametrize(
    ("several_processes", "environment", "prints"),
    [
        (False, {}, True),
        (False, SINGLE_PROCESS, True),
        (False, SECOND, True),
        (True, SINGLE_PROCESS, True),
        (True, SECOND, False),
    ],
)
def test_only_further_processes_of_a_launcher_are_silent(several_processes, environment, prints, monkeypatch, capsys):
    for name in SECOND:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert run_verb(_verb(several_processes), ["--json"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ('{"number": 1}\n' if prints else "")
    assert ("working" in captured.err) == prints


def test_the_verbs_that_run_in_several_processes_are_those_that_train():
    verbs = {name: importlib.import_module(f"grape.cli.verbs.{name}").VERB for name in VERBS}
    assert {name for name, verb in verbs.items() if getattr(verb, "several_processes", False)} == {"train", "sft"}


def test_a_rank_of_a_scheduler_silences_no_verb(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert main(["costs", "list", "--json"]) == 0
    assert capsys.readouterr().out.startswith("{")
