"""The rollout benchmark measures two ways of playing the same episodes."""

from pathlib import Path

import pytest


@pytest.fixture
def rollout(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    pytest.importorskip("torch")
    import rollout as module

    toy = "grape.envs.toy"
    facts = {"task": "0", "draws": (toy, "ToyEnvironment", "_draw"), "road": (toy, None, "_pushed")}
    monkeypatch.setitem(module.SUITES, "toy", facts)
    return module


def test_both_sides_record_the_same_episodes_and_their_seconds_add_up(rollout):
    measured = rollout.measure("toy", episodes=4, decisions=3, workers=2)
    assert measured["same"]
    assert (measured["decisions"], measured["lanes"]) == (12, 2)
    for side in (measured["sequential"], measured["ours"]):
        assert sum(side["shares"].values()) == pytest.approx(1.0, abs=0.01)
        assert 0 <= side["shares"]["rest"] < 1
        assert side["decisions_per_s"] == pytest.approx(12 / side["seconds"], rel=0.2)
    assert measured["sequential"]["shares"]["rendering"] > 0
