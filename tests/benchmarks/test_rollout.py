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


def test_ways_of_a_comparison_play_as_many_simulator_steps(rollout, monkeypatch):
    import rollout_chunks

    ways = {
        "every step": rollout_chunks.Way("toy_fine"),
        "chunks": rollout_chunks.Way("toy_fine_wrist", chunk=4),
    }
    monkeypatch.setitem(rollout_chunks.COMPARISONS, "toy", {"task": "push-block", "steps": 8, "ways": ways})
    compared = rollout_chunks.compare("toy", rounds=2)
    every, chunks = compared["ways"].values()
    assert (every["decisions"], chunks["decisions"]) == (8, 2)
    assert every["times_less"] == 1.0
    assert chunks["times_less"] == pytest.approx(every["processor_seconds"] / chunks["processor_seconds"], rel=0.3)
    for way in (every, chunks):
        low, high = way["least_and_most"]
        assert 0 < low <= way["processor_seconds"] <= high
        assert sum(way["of_which"].values()) <= high + 0.05
        assert way["reset_processor_seconds"] >= 0
