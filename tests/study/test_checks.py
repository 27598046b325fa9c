"""Study files that are wrong, and the arms that are right."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from grape.cli.main import main
from grape.core.errors import GrapeError, SettingsError
from grape.core.settings import load_settings, settings_from_dict
from grape.preferences.pair_settings import check_pair
from grape.preferences.score import check_score
from grape.study import StudySettings, run_study
from grape.study.arms import ARMS, arms_of
from grape.study.checks import chosen_cells
from grape.training.settings import check_train

TINY = Path(__file__).with_name("tiny.yaml")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "studies"


def tiny(changes: dict[str, Any]) -> StudySettings:
    base = load_settings(StudySettings, TINY, StudySettings(out=Path("never-written")))
    return settings_from_dict(StudySettings, {"dry_run": True, **changes}, base)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ["tpo", "tpoo"]}, "Unknown arm 'tpoo'"),
        ({"arms": []}, "names no arm"),
        ({"arms": ["tpo", "tpo"]}, "tpo twice"),
        ({"baselines": ["kto"]}, "Baseline 'kto' is not among the arms"),
        ({"first_test_state": 1002}, "overlap"),
        ({"first_state": 6}, "the demonstrations and of collection overlap"),
        ({"first_validation_state": 100_002}, "overlap"),
        ({"seeds": [1, 1]}, "--seeds must be different"),
        ({"seeds": []}, "--seeds must be different"),
        ({"updates": 0}, "--updates is 0"),
        ({"train": {"epochs": 3}}, "--train.epochs is decided by the study"),
        ({"train": {"result": "best"}}, "choose among its states"),
        ({"collect": {"seed": 3}}, "--collect.seed is decided by the study"),
        ({"collect": {"samples": 1}}, "--collect.samples is 1"),
        ({"test_temperature": 0.0}, "--test-samples 2 at --test-temperature 0"),
        ({"own_arms": {"tpo": {}}}, "'tpo' is the name of a built-in arm"),
        ({"own_arms": {"../x": {}}}, "no name for an arm"),
        ({"arms": ["x"], "own_arms": {"x": {"base": "tpoo"}}}, "Unknown base of arm 'x'"),
        ({"arms": ["x"], "own_arms": {"x": {"collect": {}}}}, "Unknown entry of own_arms.x 'collect'"),
        ({"arms": ["x"], "own_arms": {"x": {"train": {"betta": 1}}}}, "own_arms.x.train.betta"),
        ({"arms": ["x"], "own_arms": {"x": {"replay": "all"}}}, "own_arms.x.replay: 'all' is no number"),
        ({"arms": ["x"], "own_arms": {"x": {"replay": -1}}}, "own_arms.x.replay: -1 is no number"),
        ({"arms": ["x"], "own_arms": {"x": {"base": "sft", "replay": 1}}, "iterations": 2}, "the arm does not train"),
        ({"arms": ["x"], "own_arms": {"x": {"replay": 1}}}, "the study has one iteration"),
        ({"arms": ["x"], "own_arms": {"x": {"train": 3}}}, "own_arms.x.train is no mapping"),
        (
            {"arms": ["x"], "own_arms": {"x": {"base": "kto", "train": {"window": 8}}}},
            "no meaning for --train.method kto",
        ),
        ({"cells": "kto:0"}, "Unknown arm of this study 'kto'"),
        ({"cells": "tpo:0-4"}, "seed 2, which the study does not have"),
        ({"cells": "tpo:x"}, "seeds of --cells"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        run_study(tiny(changes))
    assert message in caught.value.message
    assert not Path("never-written").exists()


def test_every_arm_is_a_valid_training_with_the_same_budget() -> None:
    """Also where the study's own settings fit TPO alone."""
    special = {
        "arms": list(ARMS),
        "pair": {"weight": "margin", "cut": "distance", "cut_distance": 0.1},
        "train": {"beta": 0.02, "anchor": 3.0, "loss_type": "hinge"},
    }
    for changes in ({"arms": list(ARMS)}, special):
        arms = arms_of(tiny(changes))
        assert run_study(tiny(changes))["dry_run"]
        for arm in arms.values():
            check_score(arm.score)
            check_pair(arm.pair)
            unpaired = arm.train.unpaired
            data = Path("x")
            check_train(replace(arm.train, scores=data if unpaired else None, pairs=None if unpaired else data))
            assert (arm.train.epochs, arm.train.max_updates) == (2, 2)
    assert arms["tpo"].train.beta == arms["anchor-only"].train.beta == 0.02
    assert arms["anchor-only"].train.preference_weight == 0
    assert arms["filtered-bc"].train.beta == 0.1  # without a meaning there
    assert (arms["tpo-no-self"].score.weights, arms["tpo-no-success"].score.weights) == ((0, 0.01, 2), (0.01, 0.01, 0))
    assert arms["random-rejected"].pair.mode == arms["tpo"].pair.mode
    assert arms["random-rejected"].pair.weight == "none"


def test_own_arms_build_on_built_in_ones() -> None:
    own = {"gentle": {"train": {"beta": 0.01}}, "few": {"base": "filtered-bc", "pair": {"max_pairs": 3}}}
    arms = arms_of(tiny({"arms": ["gentle", "few"], "own_arms": own}))
    assert (arms["gentle"].train.method, arms["gentle"].train.beta) == ("tpo", 0.01)
    assert (arms["few"].train.method, arms["few"].pair.mode, arms["few"].pair.max_pairs) == (
        "filtered-bc",
        "every-success",
        3,
    )


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("", {(s, a) for s in (0, 1) for a in ("sft", "filtered-bc", "tpo")}),
        ("tpo:0", {(0, "tpo")}),
        ("tpo:0-1, sft", {(0, "tpo"), (1, "tpo"), (0, "sft"), (1, "sft")}),
        (":1", {(1, "sft"), (1, "filtered-bc"), (1, "tpo")}),
    ],
)
def test_selection_of_cells(text: str, cells: set[tuple[int, str]]) -> None:
    settings = tiny({"cells": text})
    assert set(chosen_cells(settings, arms_of(settings))) == cells


def test_a_dry_run_counts_what_is_shared_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["study", "--config", str(TINY), "--out", str(tmp_path / "x"), "--dry-run", "--iterations", "2"]
    assert main([*words, "--seconds-per-episode", "2", "--seconds-per-update", "1.5"]) == 0
    text = capsys.readouterr().out
    assert not (tmp_path / "x").exists()
    rows = {line.split("  ")[0].strip(): line for line in text.splitlines()}
    assert "2 x 8 episodes, 4 updates" in rows["starting policies"]
    assert "2 x 16 episodes" in rows["first rollouts"]
    assert "4 x 16 episodes" in rows["later rollouts"]
    assert "8 x 2 updates" in rows["training"]
    assert "10 x 6 episodes" in rows["measurements"]  # 2 seeds x (2 arms x 2 iterations + the start)
    episodes, updates = 16 + 32 + 64 + 60, 8 + 16
    assert f"{episodes} episodes, {updates} updates" in rows["all"]
    assert f"about {round((2 * episodes + 1.5 * updates) / 3600, 2)} CPU hours" in text


@pytest.mark.parametrize(
    "name",
    [
        *("toy.yaml", "metaworld.yaml", "libero-goal.yaml"),
        *(f"laboratory/{path.name}" for path in sorted((EXAMPLES / "laboratory").glob("*.yaml"))),
    ],
)
def test_example_studies_are_valid(name: str) -> None:
    path = EXAMPLES / name
    settings = load_settings(StudySettings, path, StudySettings(out=Path("never-written")))
    try:
        plan = run_study(replace(settings, dry_run=True))
    except GrapeError as error:  # a simulator that is not installed
        pytest.skip(error.message)
    assert plan["episodes"] > 0
