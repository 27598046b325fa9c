"""Paths in summaries can be pasted into the next command from where one stands."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grape.cli.main import main
from grape.cli.show import LOOP_PATHS
from grape.cli.verb import _with_paths
from tests.generation.answers import good


def summary_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main([*words, "--json"]) in (0, 1)
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_score_names_its_store(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["collect", "--suite", "toy", "--tasks", "reach-red", "--initial-states", "0-3"]
    collected = summary_of([*words, "--out", "runs/c"], capsys)
    for _ in range(2):  # written, and found again
        scored = summary_of(["score", "--store", collected["store"], "--out", "runs/s"], capsys)
        assert scored["store"] == collected["store"] == "runs/c/store"


def test_import_names_its_store(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    rows = np.empty(2, dtype=object)
    for row in range(2):
        image = np.zeros((8, 8, 3), np.uint8)
        rows[row] = {"images": image, "prompt": "put it there", "action": np.zeros(7, np.float32)}
    np.save(tmp_path / "in" / "success_episode_0.npy", rows, allow_pickle=True)
    imported = summary_of(["import", "grape-npy", "in", "--out", "runs/i"], capsys)
    assert imported["store"] == "runs/i/store"
    assert Path(imported["store"], "store.json").exists()


def test_generate_names_its_specification(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "1.txt").write_text(good())
    words = ["costs", "generate", "--suite", "toy", "--task", "push-block", "--client", "script", "--no-image"]
    generated = summary_of([*words, "--answers", "answers", "--out", "runs/g"], capsys)
    assert generated["specification"] == "runs/g/specification.yaml"
    assert main([*words, "--answers", "answers", "--out", "runs/g"]) == 0
    assert "see runs/g/specification.yaml" in capsys.readouterr().out
    assert main(["costs", "check", generated["specification"], "--suite", "toy"]) == 0


def test_a_loop_names_its_policies(tmp_path: Path) -> None:
    (tmp_path / "loop" / "iteration-1" / "policy").mkdir(parents=True)
    summary = {
        "policy": "iteration-1/policy",
        "policies": [{"policy": "runs/sft/policy"}, {"policy": "iteration-1/policy"}],
    }
    shown = _with_paths(summary, tmp_path / "loop", frozenset(LOOP_PATHS))
    policy = str(tmp_path / "loop" / "iteration-1" / "policy")
    assert shown == {"policy": policy, "policies": [{"policy": "runs/sft/policy"}, {"policy": policy}]}


def test_a_way_up_through_a_link_is_left_as_it_is(tmp_path: Path) -> None:
    for folder in ("far/scores", "far/store", "near"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "near" / "scores").symlink_to(tmp_path / "far" / "scores")
    shown = _with_paths({"store": "../store"}, tmp_path / "near" / "scores", frozenset({"store"}))
    assert Path(shown["store"]).resolve() == tmp_path / "far" / "store"
