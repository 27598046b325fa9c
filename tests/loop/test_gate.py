"""What the gate lets pass and which policy is the result, in loops whose stages are replaced by what they found."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import grape.training
from grape.collect import CollectSettings
from grape.core.errors import CompatibilityError
from grape.core.provenance import read_provenance
from grape.evaluation import EpisodeOutcome, EvaluateSettings, EvaluationResults, write_results
from grape.loop import LoopSettings, loop, run_loop
from grape.preferences import PairSettings, ScoreSettings
from grape.training.settings import SftSettings, TrainSettings
from tests.reporters import Hearing

STATES = 20


class Stages:
    """Stages that only tell who asked for what.

    Args:
        solved: How many of the validation states each policy solves, by the folder that it is in.
    """

    def __init__(self, solved: Mapping[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
        self.collected_with: list[str] = []
        self._solved = solved
        for name in ("score", "pair"):
            monkeypatch.setattr(loop, f"run_{name}", lambda *_: {})
        monkeypatch.setattr(loop, "run_collect", self._collect)
        monkeypatch.setattr(loop, "run_evaluate", self._evaluate)
        for name in ("sft", "train"):
            monkeypatch.setattr(grape.training, f"run_{name}", lambda *_: {})

    def _collect(self, settings: CollectSettings, *_: Any) -> dict[str, Any]:
        self.collected_with.append(Path(settings.policy).parts[-3] if settings.policy != "expert" else "expert")
        return {}

    def _evaluate(self, settings: EvaluateSettings, *_: Any, **__: Any) -> dict[str, Any]:
        folder = Path(settings.policy).parts
        name = "sft" if "sft" in folder else folder[-3]
        assert settings.out is not None
        outcomes = [EpisodeOutcome("reach", state, 0, state < self._solved[name], 5) for state in range(STATES)]
        facts: dict[str, Any] = {"suite": "toy", "temperature": 0.0, "seed": 0, "versions": {}}
        results = EvaluationResults.from_outcomes(
            outcomes, {"reach": "reach"}, policy=settings.policy, policy_hash=name, **facts
        )
        settings.out.mkdir(parents=True, exist_ok=True)
        write_results(settings.out, results)
        return {}


def settings(out: Path, **changes: Any) -> LoopSettings:
    values = {"suite": "toy", "tasks": "0", "iterations": 3, "report": False} | changes
    return LoopSettings(
        out=out,
        demonstrations=CollectSettings(out=Path("decided-by-the-loop"), initial_states="0-3"),
        sft=SftSettings(data=(Path("decided-by-the-loop"),), out=Path("decided-by-the-loop")),
        score=ScoreSettings(store=Path("decided-by-the-loop"), out=Path("decided-by-the-loop")),
        pair=PairSettings(scores=Path("decided-by-the-loop"), out=Path("decided-by-the-loop")),
        train=TrainSettings(**dict.fromkeys(("pairs", "policy", "out"), Path("decided-by-the-loop"))),
        **values,
    )


def accepted(summary: Mapping[str, Any]) -> list[bool]:
    return [entry["accepted"] for entry in summary["policies"]]


def as_of_release_01(out: Path) -> None:
    """Make a run look as if release 0.1 had begun it."""
    marker = out / "run.json"
    record = json.loads(marker.read_text())
    del record["inputs"]["gate"]
    marker.write_text(json.dumps(record))


def test_iterations_go_on_from_what_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = Stages({"sft": 10, "iteration-1": 9, "iteration-2": 12, "iteration-3": 11}, monkeypatch)
    summary = run_loop(settings(tmp_path / "run"))
    assert accepted(summary) == [True, False, True, False]
    assert stages.collected_with == ["expert", "run", "run", "iteration-2"]
    assert summary["policy"] == "iteration-2/train/policy"
    assert summary["test"]["labels"] == ["SFT", "iteration 2"]
    judged = {"toy": {"reach-red": set(range(150_000, 150_025))}}
    for folder in ("sft", "iteration-1/train", "iteration-2/train", "iteration-3/train"):
        assert read_provenance(tmp_path / "run" / folder / "policy").validated == judged
    assert summary["policies"][1]["verdict"].startswith("rejected: its estimate is lower (-5.0 points on 20 pairs")


def test_the_result_is_the_best_even_where_nothing_gates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = Stages({"sft": 10, "iteration-1": 14, "iteration-2": 14, "iteration-3": 3}, monkeypatch)
    infos: list[str] = []
    reporter = Hearing()
    monkeypatch.setattr(reporter, "info", infos.append)
    summary = run_loop(settings(tmp_path / "run", gate=False), reporter)
    assert accepted(summary) == [True] * 4
    assert stages.collected_with[-1] == "iteration-2"
    assert summary["policy"] == "iteration-1/train/policy"
    assert summary["test"]["after"] == "test/iteration-1"
    assert any("the result is iteration 1" in line for line in infos)


def test_a_margin_is_asked_for_by_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Stages({"sft": 10, "iteration-1": 11}, monkeypatch)
    summary = run_loop(settings(tmp_path / "run", iterations=1, gate_margin=0.01))
    assert accepted(summary) == [True, False]
    assert "a loss of 1.0 points cannot be excluded" in summary["policies"][1]["verdict"]
    assert summary["policy"] == "sft/policy"
    with pytest.raises(CompatibilityError, match=r"settings\.gate_margin"):
        run_loop(settings(tmp_path / "run", iterations=1))


def test_a_run_of_release_01_goes_on_with_its_rule_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    successes = {"sft": 10, "iteration-1": 9, "iteration-2": 8, "iteration-3": 7}
    Stages(successes, monkeypatch)
    run_loop(settings(tmp_path / "run", iterations=1))
    as_of_release_01(tmp_path / "run")
    (tmp_path / "run" / "done.json").unlink()
    stages, reporter = Stages(successes, monkeypatch), Hearing()
    summary = run_loop(settings(tmp_path / "run"), reporter)
    assert accepted(summary) == [True] * 4
    assert stages.collected_with[-1] == "iteration-2"
    assert "accepted: not significantly worse" in summary["policies"][1]["verdict"]
    assert summary["policy"] == "sft/policy"  # the best on the validation states
    assert len([line for line in reporter.warnings if "begun by release 0.1" in line]) == 1
    reporter = Hearing()
    run_loop(settings(tmp_path / "new"), reporter)
    run_loop(settings(tmp_path / "new"), reporter)
    assert not [line for line in reporter.warnings if "release 0.1" in line]
