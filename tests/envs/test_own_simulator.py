"""A simulator of another distribution goes all the way: collect, sft, score, pair, train, evaluate."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from grape.collect import CollectSettings, run_collect
from grape.costs import find_specification, run_costs_check
from grape.costs.verb import CostsCheckSettings
from grape.envs.registry import get_suite
from grape.preferences import PairSettings, ScoreSettings, read_scores, run_pair, run_score
from tests.envs.snapshots import run_expert
from tests.installed_examples import installed_example

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "own_simulator"
FILES = ("own_simulator/__init__.py", "own_simulator/costs/reach.yaml", "pyproject.toml")


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory):
    """What ``pip install examples/own_simulator`` leaves behind: the package, and its entry points."""
    with installed_example(EXAMPLE, "own_simulator", tmp_path_factory.mktemp("site")):
        yield


def test_the_page_shows_the_code_that_runs_here():
    page = (ROOT / "docs" / "own-simulator.md").read_text()
    for name in FILES:
        assert (EXAMPLE / name).read_text().strip() in page, f"docs/own-simulator.md does not show {name} as it is"
    assert len((EXAMPLE / FILES[0]).read_text().splitlines()) <= 60


def test_its_expert_solves_it_and_its_specification_fits(tmp_path):
    suite = get_suite("dots")
    (task,) = suite.tasks
    for state in range(5):
        snapshots = run_expert(suite, task, suite.make_environment(task), state)
        assert snapshots[-1].success is True
    collect = CollectSettings(out=tmp_path / "demos", suite="dots", initial_states="0-2", workers=1)
    assert run_collect(collect)["success_rate"] == 1.0
    checked = run_costs_check(CostsCheckSettings("dots/reach", store=tmp_path / "demos"))
    assert checked["compared"] == str(tmp_path / "demos")
    assert find_specification("dots/reach").suite == "dots"


def test_gymnasiums_check_passes():
    from gymnasium.utils.env_checker import check_env
    from own_simulator import DotReach

    check_env(DotReach(), skip_render_check=True)


def test_it_needs_no_more_than_its_id_on_the_command_line(tmp_path):
    name = "gym:own_simulator:DotReach-v0"
    suite = get_suite(name)
    assert suite.tasks[0].instruction == "dot reach"
    ours = get_suite("dots")
    one, other = (item.make_environment(item.tasks[0]) for item in (suite, ours))
    np.testing.assert_array_equal(one.reset(3).image, other.reset(3).image)
    command = [sys.executable, "-m", "grape", "collect", "--suite", name, "--out", str(tmp_path / "out")]
    reply = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    assert reply.returncode == 2
    assert "has no scripted experts" in reply.stderr
    assert "Traceback" not in reply.stderr


def _environment():
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path])}


@pytest.mark.slow
def test_from_demonstrations_to_preferences(tmp_path):
    from grape.evaluation import EvaluateSettings, run_evaluate
    from grape.training import SftSettings, TrainSettings, run_sft, run_train

    shared = {"suite": "dots", "workers": 1}
    demos = CollectSettings(out=tmp_path / "demos", initial_states="1000-1011", **shared)
    assert run_collect(demos)["success_rate"] == 1.0
    sft = run_sft(SftSettings(data=(tmp_path / "demos",), out=tmp_path / "sft", epochs=3, device="cpu"))
    rollouts = CollectSettings(
        out=tmp_path / "rollouts",
        policy=sft["policy"],
        initial_states="0-3",
        samples=3,
        temperature=1.0,
        device="cpu",
        **shared,
    )
    assert run_collect(rollouts)["episodes"] == 12
    summary = run_score(ScoreSettings(store=tmp_path / "rollouts", out=tmp_path / "scores"))
    assert "success_alone" not in summary["calibration"]
    assert all(score.stages for score in read_scores(tmp_path / "scores").values())
    assert run_pair(PairSettings(scores=tmp_path / "scores", out=tmp_path / "pairs"))["pairs"] > 0
    trained = run_train(
        TrainSettings(pairs=tmp_path / "pairs", policy=Path(sft["policy"]), out=tmp_path / "train", max_updates=1)
    )
    result = run_evaluate(
        EvaluateSettings(out=tmp_path / "evaluation", policy=trained["policy"], episodes=2, device="cpu", **shared)
    )
    assert result["episodes"] == 2
