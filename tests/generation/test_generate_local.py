"""A model on this machine through the whole verb; it is random, so what it says is refused."""

import json
from pathlib import Path

import pytest

from grape.core.events import SilentReporter
from grape.generation import GenerateCostsSettings, run_generate_costs

pytest.importorskip("torch")
from tests.vlm.tiny_model import make_tiny_model


def test_a_random_model_is_asked_about_the_image_and_not_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One token a byte makes the real prompt long; its length is no matter here.
    monkeypatch.setattr("grape.generation.feedback.system_prompt", lambda: "Write costs.")
    folder = make_tiny_model(tmp_path / "model")
    chosen = GenerateCostsSettings(
        out=tmp_path / "out",
        suite="toy",
        task="push-block",
        client="local",
        model=str(folder),
        repairs=1,
        max_tokens=16,
        device="cpu",
    )
    summary = run_generate_costs(chosen, SilentReporter())
    assert (summary["accepted"], summary["rounds"], summary["specification"]) == (False, 2, "")
    assert "cut off" in summary["findings"][0]
    rounds = json.loads((tmp_path / "out" / "transcript.json").read_text())["rounds"]
    assert rounds[0]["tokens"]["prompt"] > 500, "one token a byte of the task"
    assert rounds[0]["prompt"][1]["pictures"]
    assert run_generate_costs(chosen, SilentReporter()) == summary
