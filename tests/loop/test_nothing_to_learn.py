"""An iteration without pairs ends the loop; damaged data must not look like that."""

from pathlib import Path
from typing import Any

import pytest

from grape.core.errors import DataError, NoPairsError
from grape.core.events import SILENT
from grape.loop import LoopSettings, loop
from grape.loop.stages import Stages
from grape.loop.trainings import Trainings


def iterate(error: Exception, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, bool, str]:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(loop, "run_collect", lambda *_: {})
    monkeypatch.setattr(loop, "run_score", lambda *_: {})
    monkeypatch.setattr(loop, "run_pair", fail)
    settings = LoopSettings(out=Path("run"))
    start = loop._Incumbent("SFT", Path("policy"), Path("evaluation"))
    return loop._iterate(settings, Stages(settings), 1, start, Trainings(), SILENT)


def test_no_pair_is_nothing_to_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert iterate(NoPairsError("No pair."), monkeypatch) == (None, False, "No pair.")


def test_a_truncated_file_ends_the_run_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="truncated"):
        iterate(DataError("scores.jsonl is truncated."), monkeypatch)
