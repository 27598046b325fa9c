"""Filtered BC beside a loop, without running it."""

from dataclasses import replace
from pathlib import Path

import pytest

from grape.core.events import SilentReporter
from grape.loop import LoopSettings, filtered_bc
from grape.loop.loop import _covers
from grape.loop.settings import UNSET
from grape.loop.stages import Stages
from grape.loop.trainings import Trainings
from grape.preferences import PairSettings


def test_it_changes_only_what_makes_it_filtered_bc() -> None:
    mixed = PairSettings(scores=UNSET, out=UNSET, require_mixed_outcomes=True)
    settings = LoopSettings(out=Path("run"), seed=3, pair=mixed, compare_cloning=True)
    stages, plain = Stages(settings), Stages(replace(settings, compare_cloning=False))
    pair, train = stages.filtered_bc_pair(), stages.filtered_bc_train(Path("policy"))
    own_pair, own_train = plain.pair(1), plain.train(1, Path("policy"))
    assert differences(pair, own_pair) == {"out", "require_mixed_outcomes"}
    assert differences(train, own_train) == {"out", "pairs", "method"}


def differences(one: object, other: object) -> set[str]:
    return {name for name, value in vars(one).items() if value != vars(other)[name]}


def test_without_a_success_there_is_nothing_to_imitate(monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []

    class Listener(SilentReporter):
        def warn(self, message: str) -> None:
            warnings.append(message)

    monkeypatch.setattr(filtered_bc, "run_pair", lambda *_: {"chosen_success_rate": 0.0})
    stages = Stages(LoopSettings(out=Path("run")))
    arms = filtered_bc.compare_filtered_bc(stages, Path("first"), {}, Path("trained"), "tpo", Trainings(), Listener())
    assert arms == []
    assert "nothing to imitate" in warnings[0]


def test_a_complete_run_gets_the_comparison_when_it_is_asked_for_later() -> None:
    done = {"iterations": 2}
    settings = LoopSettings(out=Path("run"), iterations=2, compare_cloning=True)
    assert not _covers(done, settings)
    assert _covers(done | {"arms": []}, settings)
    assert _covers(done, LoopSettings(out=Path("run"), iterations=2))
