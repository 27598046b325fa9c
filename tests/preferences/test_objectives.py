"""Weights, thresholds and objectives given by hand: they win over calibration, are stored, and move the pairs."""

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from grape.cli.main import main
from grape.core.errors import SettingsError
from grape.core.files import read_json
from grape.core.trajectories import Trajectory
from grape.costs import builtin_specification, evaluate
from grape.envs.libero.tasks import suite_tasks
from grape.preferences import PairSettings, ScoreSettings, read_pairs, read_scores, run_pair, run_score
from grape.preferences.thresholds import thresholds_by_hand
from grape.store import EpisodeStore
from tests.costs.record_libero import read
from tests.preferences.rollouts import make_rollout, make_store

FACTORS = (0, 1, 4)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("recorded") / "store").path


def drawers() -> list[Trajectory]:
    """LIBERO's experts at a drawer: who pulls faster bumps into the cabinet more often."""
    return read(suite_tasks("libero_goal")[0])


def drawers_bumped_while_pulling() -> list[Trajectory]:
    """The same, as if nobody had bumped into anything before the handle was reached."""
    episodes = drawers()
    specification = builtin_specification("libero_goal", episodes[0].meta.task)
    changed = []
    for one in episodes:
        collision = one.signals["collision"].copy()
        collision[: evaluate(specification, one)[0].end + 1] = 0.0
        changed.append(dataclasses.replace(one, signals={**one.signals, "collision": collision}))
    return changed


def chosen_under(store: Path, out: Path, words: str) -> list[str]:
    """Chosen episodes of the best-worst pairs, scored by the command line with built-in costs and these objectives."""
    command = ["score", "--store", str(store), "--out", str(out / "scores")]
    assert main([*command, "--objectives", words]) == 0
    settings = PairSettings(scores=out / "scores", out=out / "pairs", mode="best-worst", require_mixed_outcomes=False)
    run_pair(settings)
    return [pair.chosen for pair in read_pairs(out / "pairs")]


def falls(values: list[float]) -> bool:
    """Never up, and lower at the end than at the beginning."""
    return all(after <= before for before, after in itertools.pairwise(values)) and values[-1] < values[0]


@pytest.mark.parametrize("recorded_drawers", [drawers, drawers_bumped_while_pulling])
def test_each_objective_alone_chooses_what_it_is_about_from_the_same_rollouts(
    recorded_drawers: Callable[[], list[Trajectory]], tmp_path: Path
) -> None:
    episodes = recorded_drawers()
    store = EpisodeStore.create(tmp_path / "store", "libero_goal", {})
    for one in episodes:
        store.write(one)
    steps = {one.meta.episode_id: float(one.steps) for one in episodes}
    collisions = {one.meta.episode_id: float(np.sum(one.signals["collision"] > 0.5)) for one in episodes}
    for tag, measure in (("safety", collisions), ("efficiency", steps)):
        chosen = [chosen_under(store.path, tmp_path / f"{tag}-{factor}", f"{tag}:{factor}") for factor in FACTORS]
        assert [len(names) for names in chosen] == [2] * len(FACTORS)
        assert falls([sum(measure[name] for name in names) for names in chosen]), tag
        kept = read_json(tmp_path / f"{tag}-4" / "scores" / "calibration.json")
        assert kept["objectives"] == {tag: 4.0}


def test_safety_is_charged_for_what_happened_and_leaves_penalties_as_they_are(tmp_path: Path) -> None:
    """A failure that never came near the drawer is no riskier than the specification says; thresholds are its own."""
    store = EpisodeStore.create(tmp_path / "store", "libero_goal", {})
    for one in drawers():
        store.write(one)
    scores = {}
    for factor in FACTORS:
        out = tmp_path / f"safety-{factor}"
        run_score(ScoreSettings(store=store.path, out=out, calibrate=False, objectives={"safety": float(factor)}))
        scores[factor] = read_scores(out)
    never = [
        (name, number)
        for name, score in scores[1].items()
        for number, stage in enumerate(score.stages)
        if not stage.reached
    ]
    assert never
    for name, number in never:
        stages = [scores[factor][name].stages[number] for factor in FACTORS]
        assert stages[0] == dataclasses.replace(stages[1], constraints=stages[0].constraints)
        assert len({stage.cost for stage in stages}) == 1
        assert {item.name for item in stages[1].constraints if item.contribution} == {"done"}
    for name, score in scores[1].items():
        unsafe = sum(
            item.contribution for stage in score.stages for item in stage.constraints if "safety" in item.objectives
        )
        for factor in FACTORS:
            assert scores[factor][name].cost == pytest.approx(score.cost + (factor - 1) * unsafe)


def test_thresholds_given_by_hand_win_and_are_stored(recorded: Path, tmp_path: Path) -> None:
    values = {"hook/at-handle": 0.5, "faucet-open/outcome/object-at-goal": 0.03, "outcome/object-at-goal": 0.02}
    plain = run_score(ScoreSettings(store=recorded, out=tmp_path / "plain"))
    assert "outcome/object-at-goal" not in plain["calibration"]["threshold_values"]
    summary = run_score(
        ScoreSettings(store=recorded, out=tmp_path / "out", threshold_values=values, thresholds={"completion": 7.0})
    )
    chosen = read_json(tmp_path / "out" / "calibration.json")
    assert chosen == summary["calibration"]
    assert chosen["threshold_values"] == values
    assert not any("object-at-goal" in place for places in chosen["thresholds"].values() for place in places)
    for episode_score in read_scores(tmp_path / "out").values():
        by_name = {part.name: part.threshold for part in episode_score.stages[-1].constraints}
        assert by_name["object-at-goal"] == (0.03 if episode_score.task == "faucet-open" else 0.02)
        if episode_score.task == "drawer-open":
            assert {part.name: part.threshold for part in episode_score.stages[1].constraints}["at-handle"] == 0.5


def test_weights_given_by_hand_win_and_are_stored(recorded: Path, tmp_path: Path) -> None:
    free = run_score(ScoreSettings(store=recorded, out=tmp_path / "free", weights=(3.0, 5.0, 2.0)))["calibration"]
    kept = run_score(ScoreSettings(store=recorded, out=tmp_path / "kept", weights=(3.0, 5.0, 2.0), keep_weights=True))
    assert kept["calibration"]["weights"] == {"self": 3.0, "ext": 5.0, "success": 2.0}
    assert (free["weights_kept"], kept["calibration"]["weights_kept"]) == (False, True)
    assert free["weights"] != kept["calibration"]["weights"]
    for name in ("beta", "normalisation", "thresholds", "spreads"):
        assert kept["calibration"][name] == free[name]
    # Calibrated, the soft terms typically differ in the proportion of the given lambda_1 and lambda_2.
    assert free["contributions"]["self"] / free["contributions"]["ext"] == pytest.approx(3 / 5)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"hook/at-handel": 0.1}, "Did you mean 'hook/at-handle'"),
        ({"door-open/hook/at-handle": 0.1}, "Unknown constraint"),
        ({"hook/at-handle": -0.1}, "is -0.1"),
        ({"hook/at-handle": float("nan")}, "is nan"),
    ],
)
def test_senseless_thresholds_are_refused_before_anything_is_written(
    recorded: Path, tmp_path: Path, values: dict[str, float], says: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        run_score(ScoreSettings(store=recorded, out=tmp_path / "out", threshold_values=values))
    assert says in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_narrower_name_wins() -> None:
    specifications = {task: builtin_specification("metaworld", task) for task in ("drawer-open", "faucet-open")}
    values = {"drawer-open/outcome/object-at-goal": 0.1, "outcome/object-at-goal": 0.2}
    place = (4, "object-at-goal")
    assert thresholds_by_hand(specifications, values)["drawer-open"] == {place: 0.1}


def test_factors_may_be_given_by_name_and_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = EpisodeStore.create(tmp_path / "store", "metaworld", {})
    for sample in range(3):
        store.write(make_rollout(sample=sample, success=sample > 0))
    for number, words in enumerate((["safety:4,efficiency:0"], ["safety", "4", "efficiency", "0"])):
        out = tmp_path / f"out-{number}"
        command = ["score", "--store", str(store.path), "--out", str(out), "--json", "--objectives", *words]
        assert main(command) == 0
        assert json.loads(capsys.readouterr().out)["calibration"]["objectives"] == {"safety": 4.0, "efficiency": 0.0}
