"""The saturation benchmark on a handful of toy episodes: every arm is trained, and measured on the same decisions."""

from pathlib import Path

import pytest

from grape.cli.main import main


@pytest.fixture
def saturation(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    pytest.importorskip("torch")
    import saturation as module

    return module


def test_every_arm_is_measured_on_the_same_decisions(saturation, tmp_path):
    from tests.training.recordings import write_policy

    policy = write_policy(tmp_path / "policy")
    words = f"collect --suite toy --policy {policy} --tasks 2 --initial-states 0-2 --samples 4 --temperature 1"
    assert main([*words.split(), "--max-steps", "12", "--workers", "1", "--out", str(tmp_path / "collect")]) == 0
    scores = tmp_path / "score"
    assert main(["score", "--store", str(tmp_path / "collect" / "store"), "--out", str(scores)]) == 0
    arms = saturation.measure(scores, policy, tmp_path / "work", 4, 2, {"lr": 3e-3, "parity_steps": 4})
    assert arms.keys() == saturation.ARMS.keys()
    assert arms["whole"]["pairs"] == arms["cut by length"]["pairs"] == 4
    for name, arm in arms.items():
        first, second = arm["updates"]
        assert first["saturation"] == pytest.approx(0.5, abs=1e-4), name
        assert first["displacement"] == pytest.approx(0.0, abs=1e-4), name
        assert second["margin"] > 0, name
        assert arm["decisions"]["rejected"] <= arms["whole"]["decisions"]["rejected"]
        if not name.startswith("stage-wise"):  # those compare other decisions than these, which are of whole pairs
            assert arm["trained"]["chosen"] > arm["trained"]["rejected"], name
    assert arms["cut by length"]["decisions"]["rejected"] <= arms["whole"]["decisions"]["chosen"]
    assert saturation.table(arms).count("\n") == 1 + len(arms)
    again = saturation.measure(scores, policy, tmp_path / "work", 4, 2, {"lr": 3e-3, "parity_steps": 4})
    assert again == arms
