"""The programs of learned rewards, asked through the verbs, over stand-ins of the rewards' packages."""

import ast
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grape.cli.main import main
from grape.core.errors import CompatibilityError, ProgramError, SettingsError
from grape.core.trajectories import Trajectory
from grape.judges import load_judgments, register_judge
from grape.judges.registry import parse_judge
from grape.preferences import PairSettings, ScoreSettings, run_pair, run_score
from grape.scorers import load_values, open_scorer, parse_scorers, register_scorer, scorer_names
from grape.store import EpisodeStore
from tests.preferences.rollouts import in_chunks, make_rollout
from tests.reporters import Hearing

STANDINS = Path(__file__).with_name("reward_standins")
PROGRAMS = Path(parse_scorers(["robometer"])[0].command[1]).parent
ALLOWED = {*sys.stdlib_module_names, "numpy", "reward_protocol", "lerobot", "robometer"}


def make_interpreter(path: Path, packages: Path = STANDINS) -> Path:
    """A Python in which the rewards' packages are installed, as a virtual environment's would be."""
    path.write_text(f'#!/bin/sh\nPYTHONPATH="{packages}" exec "{sys.executable}" -B "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_interpreter(tmp_path_factory.mktemp("environment") / "python")


def make_store(path: Path, instructions: tuple[str, ...]) -> EpisodeStore:
    """Episodes of 12 control steps with images; from the third on they are decided three actions at a time."""
    store = EpisodeStore.create(path, "metaworld", {})
    rng = np.random.default_rng(7)
    for sample, instruction in enumerate(instructions):
        rollout = dataclasses.replace(
            make_rollout(sample=sample, success=sample != 1, instruction=instruction),
            frames=rng.integers(0, 256, (13, 6, 8, 3), dtype=np.uint8),
            proprio=rng.normal(size=(13, 2)).astype(np.float32),
        )
        store.write(in_chunks(rollout, 3, 1 if sample < 2 else 3))
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    """Four episodes, each told another thing, at which a stand-in can misbehave."""
    return make_store(tmp_path_factory.mktemp("recorded") / "store", ("task 0", "task 1", "task 2", "task 3"))


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores of three episodes of one initial state and instruction."""
    folder = tmp_path_factory.mktemp("alike")
    store = make_store(folder / "store", ("open it",) * 3)
    run_score(ScoreSettings(store=store.path, out=folder / "scores"), Hearing())
    return folder


def fail(store: EpisodeStore, scorer: str) -> str:
    """What is said when a program fails at the first episode."""
    opened = open_scorer(parse_scorers([scorer])[0])
    try:
        with pytest.raises(ProgramError) as failure:
            opened.score(store.read(store.ids()[0]))
    finally:
        opened.close()
    return failure.value.message


def score(store: EpisodeStore, out: Path, *scorers: str, reporter: Hearing | None = None) -> dict[str, Any]:
    """Stored values by label."""
    summary = run_score(ScoreSettings(store=store.path, out=out, scorer=scorers), reporter or Hearing())
    return {
        label: load_values(out / "scorers" / f"{label}.jsonl", label, part)
        for label, part in summary["scorers"].items()
    }


def brightness(trajectory: Trajectory, images: list[int]) -> float:
    """What the stand-in of Robometer makes of some images: their brightness, weighted by their place."""
    values = trajectory.frames[images].reshape(len(images), -1).mean(1) / 255
    return float(np.average(values, weights=np.arange(1, len(images) + 1)))


def test_a_reward_sees_images_of_the_whole_episode(store: EpisodeStore, python: Path, tmp_path: Path) -> None:
    robometer, topreward = f"robometer:{python} --frames 4 --points 2 --device cpu", f"topreward:{python} --frames 3"
    values = score(store, tmp_path / "out", robometer, topreward)
    for sample, (name, images) in enumerate(zip(store.ids(), [[0, 4, 8, 12]] * 2 + [[0, 1, 3, 4]] * 2, strict=True)):
        trajectory = store.read(name)
        progress, by_step = values["robometer"].scores[sample].value, values["robometer"].scores[sample].step_values
        assert progress == pytest.approx(brightness(trajectory, images))
        # Asked at the first image and the last one; in between it is a line over control steps.
        first = brightness(trajectory, [0])
        assert by_step == pytest.approx([first + (progress - first) * step / 12 for step in range(1, 13)])
        three = [0, 6, 12] if sample < 2 else [0, 2, 4]
        assert values["topreward"].scores[sample].value == pytest.approx(-brightness(trajectory, three))
        assert not values["topreward"].scores[sample].step_values
    about = values["robometer"].provenance["about"]
    assert about["name"] == "Robometer progress"
    assert about["options"] | {"model": "lerobot/Robometer-4B", "frames": 4, "device": "cpu"} == about["options"]


def test_sarm_sees_a_window_of_images_and_scaled_states(store: EpisodeStore, python: Path, tmp_path: Path) -> None:
    stats = tmp_path / "stats.json"
    stats.write_text(json.dumps({"observation.state": {"mean": [1.0, -1.0], "std": [2.0, 4.0], "count": [9]}}))
    command = f"sarm:{python} --model mine --stats {stats}"
    values = score(store, tmp_path / "out", command, f"curve={command} --points 13")
    for sample, name in enumerate(store.ids()):
        trajectory = store.read(name)
        scaled = (trajectory.proprio - [1.0, -1.0]) / [2.0, 4.0]
        times = np.arange(13) if sample < 2 else np.arange(0, 13, 3)
        by_image = [
            image.mean() / 255 + scaled[time].mean() / 100 for time, image in zip(times, trajectory.frames, strict=True)
        ]
        assert values["sarm"].scores[sample].value == pytest.approx(by_image[-1], abs=1e-6)
        curve = np.interp(np.arange(1, 13), times, by_image)
        assert values["curve"].scores[sample].step_values == pytest.approx(curve, abs=1e-6)
    stats.write_text(json.dumps({"observation.state": {"mean": [0.0] * 7, "std": [1.0] * 7}}))
    assert "a state has 2 numbers, and the dataset's statistics have 7" in fail(store, command)


def test_the_pairwise_head_judges(alike: Path, python: Path, tmp_path: Path) -> None:
    store = EpisodeStore.open(alike / "store")
    judge = f"robometer:{python} --device cuda:1 --frames 2"
    settings = PairSettings(scores=alike / "scores", out=tmp_path / "pairs", judge=judge, both_orders=True)
    summary = run_pair(settings, Hearing())
    judgments = load_judgments(tmp_path / "pairs" / "judgments.jsonl")
    assert len(judgments) == 6
    for judgment in judgments:
        a, b = (store.read(name).frames[-1].mean() for name in (judgment.a, judgment.b))
        assert judgment.p == pytest.approx(0.5 + (a - b) / 510)
    assert summary["judge"]["provenance"]["about"]["name"] == "Robometer preference"


@pytest.mark.parametrize(
    ("behavior", "problem"),
    [
        ("weights", r"lerobot/Robometer-4B cannot be loaded \(FileNotFoundError: model.safetensors not found"),
        (
            "memory-at-load",
            r"lerobot/Robometer-4B does not fit into the device's memory \(OutOfMemoryError: CUDA out of",
        ),
    ],
)
def test_a_reward_that_cannot_be_loaded_is_started_once(
    behavior: str, problem: str, store: EpisodeStore, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REWARD_STANDIN", behavior)
    listener = Hearing()
    with pytest.raises(ProgramError, match=f"cannot work: {problem}"):
        score(store, tmp_path / "out", f"robometer:{python}", reporter=listener)
    assert not listener.warnings


def test_a_missing_package_is_named(store: EpisodeStore, tmp_path: Path) -> None:
    (tmp_path / "lerobot.py").touch()  # an older LeRobot has no rewards
    python = make_interpreter(tmp_path / "python", tmp_path)
    with pytest.raises(
        ProgramError, match=r"lacks a package .*'lerobot\.rewards'.*install 'lerobot\[topreward\]', 0\.6"
    ):
        score(store, tmp_path / "out", f"topreward:{python}")


def test_a_program_that_runs_out_of_memory_is_replaced(
    store: EpisodeStore, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REWARD_STANDIN", "memory-once")
    monkeypatch.setenv("REWARD_STANDIN_TASK", "task 2")
    monkeypatch.setenv("REWARD_STANDIN_MARK", str(tmp_path / "mark"))
    listener = Hearing()
    values = score(store, tmp_path / "out", f"robometer:{python}", reporter=listener)
    assert all(value is not None for value in values["robometer"].by_episode().values())
    (warning,) = listener.warnings
    assert "is started again: it ended with status 1" in warning
    assert "Out of memory at drawer-open-0000-02 (OutOfMemoryError: CUDA out of memory. Tried" in warning
    assert "give a smaller --frames" in warning


@pytest.mark.parametrize("name", ["robometer", "topreward", "sarm"])
def test_what_is_no_number_is_no_value(
    name: str, store: EpisodeStore, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stats.json").write_text('{"observation.state": {"mean": [0, 0], "std": [1, 1]}}')
    options = f" --model mine --stats {tmp_path}/stats.json" if name == "sarm" else ""
    monkeypatch.setenv("REWARD_STANDIN", "nan")
    monkeypatch.setenv("REWARD_STANDIN_TASK", "task 1")
    values = score(store, tmp_path / "nan", f"{name}:{python}{options}")[name]
    assert [one.problem for one in values.scores] == ["", "the model answered nan", "", ""]


@pytest.mark.parametrize(("name", "shape"), [("robometer", "numbers of shape (1, 2)"), ("sarm", "of shape (7,), not")])
def test_another_shape_ends_the_program(
    name: str, shape: str, store: EpisodeStore, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stats.json").write_text('{"observation.state": {"mean": [0, 0], "std": [1, 1]}}')
    options = f" --model mine --stats {tmp_path}/stats.json" if name == "sarm" else ""
    monkeypatch.setenv("REWARD_STANDIN", "shape")
    message = fail(store, f"{name}:{python}{options}")
    assert "failed 3 times: it ended with status 1" in message
    assert f"Failed at {store.ids()[0]}: " in message
    assert shape in message


def test_a_judge_says_when_it_cannot_tell(
    alike: Path, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REWARD_STANDIN", "nan")
    settings = PairSettings(scores=alike / "scores", out=tmp_path / "out", judge=f"robometer:{python} --device cuda:1")
    with pytest.raises(SettingsError, match="no answer to any of 3 couples; first: the model answered nan"):
        run_pair(settings, Hearing())
    judgments = load_judgments(tmp_path / "out" / "judgments.jsonl")
    assert [(one.p, one.problem) for one in judgments] == [(None, "the model answered nan")] * 3


def test_an_unknown_camera_ends_the_run(store: EpisodeStore, python: Path, tmp_path: Path) -> None:
    listener = Hearing()
    with pytest.raises(ProgramError, match="cannot work: there is no camera 'wrist', only main: give another --camera"):
        score(store, tmp_path / "out", f"robometer:{python} --camera wrist", reporter=listener)
    assert listener.warnings == []  # nothing was started again
    assert not (tmp_path / "out" / "scorers").exists()


def test_sources_and_options_are_part_of_the_run(
    store: EpisodeStore, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (choice,) = parse_scorers([f"robometer:{python} --frames 4"])
    assert choice.label == "robometer"
    assert choice.command[0] == str(python)
    assert not any("site-packages" in text or str(PROGRAMS) in text for text in map(str, choice.identity().values()))
    score(store, tmp_path / "out", f"robometer:{python} --frames 4")
    with pytest.raises(CompatibilityError, match=r"inputs\.scorers\.robometer\.command"):
        score(store, tmp_path / "out", f"robometer:{python} --frames 5")
    before = choice.identity()
    monkeypatch.setattr("grape.scorers.shipped._SHARED", "score_sarm.py")
    assert choice.identity()["sources"] != before["sources"]


def test_this_interpreter_is_taken_where_none_is_named() -> None:
    (choice,) = parse_scorers(["robometer:--frames 4"])
    assert choice.command == (sys.executable, str(PROGRAMS / "score_robometer.py"), "--frames", "4")
    assert parse_scorers(["robometer"])[0].command == choice.command[:2]
    assert parse_judge("robometer").command == (sys.executable, str(PROGRAMS / "judge_robometer.py"))
    assert parse_judge("scorer:robometer:--frames 4").identity() == {"scorer": choice.identity()}
    with pytest.raises(SettingsError, match=r"--scorer robometer: '/no/python --frames 4': there is no program"):
        parse_scorers(["robometer:/no/python --frames 4"])


def test_their_names_are_taken_and_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert {"robometer", "sarm", "topreward"} <= set(scorer_names())
    with pytest.raises(SettingsError, match="none of costs, success, robometer"):
        register_scorer("sarm", lambda: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(SettingsError, match="cannot name a judge"):
        register_judge("robometer", lambda: None)  # type: ignore[arg-type, return-value]
    assert main(["judges", "list"]) == 0
    shown = capsys.readouterr().out
    assert "needs lerobot[topreward] 0.6" in shown
    assert "needs robometer (Python 3.10)" in shown


def test_options_that_do_not_fit_are_said_at_once(python: Path) -> None:
    listener = Hearing()
    for options, problem in (
        ("", "required: --model, --stats"),
        ("--model m --stats s --fast", "unrecognized arguments: --fast"),
    ):
        (choice,) = parse_scorers([f"sarm:{python} {options}"])
        with pytest.raises(ProgramError, match=f"its options do not fit .*{problem}"):
            open_scorer(choice, warn=listener.warn)
    (choice,) = parse_scorers([f"robometer:{python} --frames 0"])
    with pytest.raises(ProgramError, match="--frames must be 1 or more"):
        open_scorer(choice, warn=listener.warn)
    assert not listener.warnings


def test_a_program_of_the_other_kind_says_so(python: Path) -> None:
    (choice,) = parse_scorers([f"{python} {PROGRAMS / 'judge_robometer.py'}"])
    with pytest.raises(ProgramError, match="it is a judge, not a scorer"):
        open_scorer(choice)


@pytest.mark.parametrize("path", sorted(PROGRAMS.glob("*.py")), ids=lambda path: path.name)
def test_programs_need_nothing_of_grape(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 10))
    for node in ast.walk(tree):
        names = [node.module or "."] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert {name.split(".")[0] for name in names} <= ALLOWED


def test_a_program_explains_itself(python: Path) -> None:
    shown = subprocess.run(
        [python, PROGRAMS / "score_sarm.py", "--help"], capture_output=True, text=True, check=True, env=dict(os.environ)
    ).stdout
    assert "LeRobot 0.6.2 (commit 7427f31" in shown
    assert "--stats" in shown
