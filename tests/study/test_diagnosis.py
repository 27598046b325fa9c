"""Diagnoses of a whole small study: against what is computed here in another way; damaged, killed, merged."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.core.events import SILENT
from grape.core.settings import load_settings
from grape.core.trajectories import Observation
from grape.envs.registry import get_suite, select_tasks
from grape.policies.base import TrainablePolicy
from grape.policies.registry import open_policy
from grape.preferences import read_pairs
from grape.store import EpisodeStore
from grape.study import StudySettings, run_study
from grape.study.arms import Arm, arms_of
from grape.study.bench import Bench
from grape.study.cells import Cell, read_cell
from grape.study.diagnosis import Diagnosis, diagnosis_path, read_diagnosis
from grape.study.inspection import diagnose_cell

ROOT = Path(__file__).resolve().parents[2]
TINY = Path(__file__).with_name("tiny.yaml")
ARMS = ("sft", "filtered-bc", "anchor-only", "tpo")
CHANGES: Mapping[str, Any] = {
    "arms": list(ARMS),
    "test_states": 2,
    "diagnosis_samples": 4,
    "demonstrations": {"initial_states": "0-15", "operators": "clean:12,sloppy:4", "lanes": 8, "workers": 1},
    "sft": {"epochs": 12, "proprio": True},
    "train": {"pairs_per_update": 4},
}
"""A start that succeeds now and then."""
KILLS = 4

pytestmark = pytest.mark.slow


def study(out: Path, **changes: Any) -> StudySettings:
    settings = load_settings(StudySettings, out.with_name("study.yaml"), StudySettings(out=out))
    return replace(settings, report=False, **changes)


def write_config(folder: Path, **changes: Any) -> Path:
    config = yaml.safe_load(TINY.read_text()) | dict(CHANGES) | changes
    (folder / "study.yaml").write_text(yaml.safe_dump(config))
    return folder / "study.yaml"


def diagnoses_of(out: Path) -> dict[str, Diagnosis]:
    """All diagnoses, without what is said of the software that made them."""
    files = sorted((out / "diagnoses").glob("*.json"))
    return {path.stem: replace(read_diagnosis(path), software={}) for path in files}


def first_cell(out: Path, name: str = "tpo") -> tuple[StudySettings, Bench, Arm, Cell]:
    settings = study(out)
    suite = get_suite("toy")
    bench = Bench(settings, 0, suite, select_tasks(suite, "0"), SILENT)
    return settings, bench, arms_of(settings)[name], read_cell(out / "cells" / f"0-{name}.json")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study, diagnosed in its own folder."""
    folder = tmp_path_factory.mktemp("diagnosis")
    write_config(folder)
    run_study(study(folder / "run"))
    run_study(study(folder / "run", diagnose=True))
    return folder / "run"


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """The study with all its work, without diagnoses and fresh rollouts."""
    shutil.copy(made.with_name("study.yaml"), tmp_path)
    shutil.copytree(made, tmp_path / "run", ignore=shutil.ignore_patterns("diagnos*", ".lock*"))
    return tmp_path / "run"


def test_the_starting_policy_against_itself_has_not_moved(made: Path) -> None:
    for seed in (0, 1):
        start = diagnoses_of(made)[f"{seed}-sft"].rounds[0]
        assert start.iteration == 0
        assert all(change.mean == change.deviation == 0 for change in start.fresh.values())
        assert 0 <= start.distance["fresh"] < 1e-6
        assert (start.trained, start.terms, start.saturated, start.curve) == ({}, (), None, {})


def test_arms_of_a_seed_are_measured_on_the_same_fresh_rollouts_that_no_arm_trained_on(made: Path) -> None:
    diagnoses = diagnoses_of(made)
    assert set(diagnoses) == {f"{seed}-{arm}" for seed in (0, 1) for arm in ARMS}
    for seed in (0, 1):
        members = [diagnoses[f"{seed}-{arm}"] for arm in ARMS]
        store = EpisodeStore.open(made / "work" / f"seed-{seed}" / "diagnosis" / "samples-4" / "store")
        assert {item.fresh for item in members} == {store.digest()}
        states = study(made).first_validation_state
        assert {(meta.initial_state, meta.sample) for meta in store.metas()} == {
            (state, sample) for state in (states, states + 1) for sample in range(4)
        }
        cells = [read_cell(made / "cells" / f"{seed}-{arm}.json") for arm in ARMS]
        for item, cell in zip(members, cells, strict=True):
            assert (item.settings, item.start) == (cell.settings, cell.start)
            assert [part.policy_hash for part in item.rounds] == [part.policy_hash for part in cell.rounds]
        trained = [item.rounds[0] for item in members if item.arm != "sft"]
        assert all(0 <= part.distance["before"] < 1e-6 < part.distance["trained"] for part in trained)
        assert [part.terms for part in trained] == [("imitation",), ("anchor",), ("preference", "anchor")]
        assert trained[1].comparisons == trained[2].comparisons  # the same pairs


def opened(place: Path) -> TrainablePolicy:
    policy = open_policy(place)
    assert isinstance(policy, TrainablePolicy)
    policy.freeze()
    return policy


def token_logps(policy: TrainablePolicy, store: EpisodeStore, episode: str) -> np.ndarray:
    """Log-probabilities of an episode's tokens, ``(T, D)``, one decision at a time."""
    trajectory, rows = store.read(episode), []
    for step, tokens in enumerate(trajectory.action_tokens):
        seen = Observation(trajectory.frames[step], trajectory.proprio[step], trajectory.meta.instruction)
        logps = policy.token_logps(policy.encode([seen]), torch.from_numpy(tokens).long()[None, None])
        rows.append(logps[0, 0].detach().numpy())
    return np.array(rows)


def test_changes_are_those_of_the_two_policies(made: Path) -> None:
    """Against log-probabilities computed one decision at a time from the two checkpoints."""
    part = diagnoses_of(made)["0-tpo"].rounds[0]
    work = made / "work" / "seed-0"
    before = opened(work / "sft" / "policy")
    after = opened(work / "arms" / "tpo" / "iteration-1" / "train" / "policy")
    store = EpisodeStore.open(work / "diagnosis" / "samples-4" / "store")
    moved: dict[bool, list[float]] = {True: [], False: []}
    for meta in store.metas():
        change = token_logps(after, store, meta.episode_id) - token_logps(before, store, meta.episode_id)
        moved[bool(meta.success)].append(float(change.mean()))
    sides = {name: values for name, values in (("success", moved[True]), ("failure", moved[False])) if values}
    assert {"success", "failure"} & part.fresh.keys() == sides.keys()
    for name, values in sides.items():
        assert part.fresh[name].count == len(values)
        assert part.fresh[name].mean == pytest.approx(np.mean(values), rel=2e-3, abs=2e-4)
        deviation = np.std(values, ddof=1) if len(values) > 1 else 0
        assert part.fresh[name].deviation == pytest.approx(deviation, rel=2e-3, abs=2e-4)
    assert part.fresh == part.since_start


def make_uniform(folder: Path) -> float:
    """Make a policy that finds all tokens equally likely; returns the log-probability of each."""
    weights = load_file(folder / "model.safetensors")
    weights["language_model.lm_head.weight"].zero_()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return -math.log(json.loads((folder / "config.json").read_text())["text_config"]["vocab_size"])


def test_a_policy_made_by_hand_changes_what_is_computed_by_hand(copy: Path) -> None:
    """A policy for which each token is equally likely: all follows from what was recorded."""
    settings, bench, arm, cell = first_cell(copy)
    pairs_folder = bench.folder(arm) / "iteration-1" / "pair"
    policy = bench.folder(arm) / "iteration-1" / "train" / "policy"
    logp = make_uniform(policy)
    uniform_hash = open_policy(policy).spec.policy_hash
    cell = replace(cell, rounds=(replace(cell.rounds[0], policy_hash=uniform_hash),))
    part = read_diagnosis(diagnose_cell(settings, bench, arm, cell, SILENT)).rounds[0]

    def recorded(place: Path) -> dict[str, np.ndarray]:
        store = EpisodeStore.open(place)
        return {meta.episode_id: store.read(meta.episode_id, frames=False).token_logps for meta in store.metas()}

    fresh_store = EpisodeStore.open(bench.fresh_rollouts().out / "store")
    fresh = recorded(fresh_store.path)
    for name, outcome in (("success", True), ("failure", False)):
        changes = [
            float((logp - fresh[meta.episode_id]).mean()) for meta in fresh_store.metas() if meta.success is outcome
        ]
        assert (name in part.fresh) == bool(changes)
        assert not changes or part.fresh[name].mean == pytest.approx(np.mean(changes), rel=1e-3)
    absolute = np.abs(np.concatenate([logp - values for values in fresh.values()]))
    assert part.distance["fresh"] == pytest.approx(absolute.mean(), rel=1e-3)
    logps = recorded(bench.first_store().path)
    sides: dict[str, list[float]] = {"chosen": [], "rejected": [], "rejected_head": [], "rejected_tail": []}
    weights = []
    for pair in read_pairs(pairs_folder):
        chosen, rejected = (logp - logps[name] for name in (pair.chosen, pair.rejected))
        sides["chosen"].append(chosen.mean())
        sides["rejected"].append(rejected.mean())
        sides["rejected_head"].append(rejected[: len(chosen)].mean())
        sides["rejected_tail"] += [rejected[len(chosen) :].mean()] if len(rejected) > len(chosen) else []
        weights.append(1 / (1 + math.exp(settings.train.beta * (chosen.sum() - rejected.sum()))))
    for name, values in sides.items():
        assert (name in part.trained) == bool(values)
        assert not values or part.trained[name].count == len(values)
        assert not values or part.trained[name].mean == pytest.approx(np.mean(values), rel=1e-3)
    assert part.saturated == pytest.approx(np.mean([weight < 0.1 for weight in weights]), abs=1e-3)


def test_summary_and_page_tell_it(made: Path) -> None:
    summary = run_study(replace(study(made), report=True))
    rows = {row["arm"]: row for row in summary["diagnosis"]}
    assert list(rows) == list(ARMS)
    figures = rows["tpo"]["figures"]
    files = diagnoses_of(made)
    per_seed = {str(seed): files[f"{seed}-tpo"].rounds[0].fresh["failure"].mean for seed in (0, 1)}
    assert figures["failure"]["seeds"] == per_seed
    assert figures["failure"]["mean"] == pytest.approx(np.mean(list(per_seed.values())))
    assert figures["failure"]["deviation"] == pytest.approx(np.std(list(per_seed.values()), ddof=1))
    assert figures["clipped"]["seeds"].keys() == {"0", "1"}
    assert rows["anchor-only"]["figures"]["share"]["mean"] == 0
    assert 0 < figures["share"]["mean"] < 1
    page = (made / "study.html").read_text()
    assert "<h2>Why</h2>" in page
    assert rows["tpo"]["sentence"].split("(2 seeds)")[0] in page
    assert json.loads((made / "study.json").read_text())["diagnosis"] == summary["diagnosis"]


def test_killing_it_anywhere_changes_no_diagnosis(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "both"
    for name in ("whole", "killed"):
        shutil.copytree(made, folder / name / "run", ignore=shutil.ignore_patterns("diagnos*", ".lock*"))
    config = write_config(tmp_path, diagnose=True, report=False)
    command = [sys.executable, "-m", "tests.loop.killing", str(config), str(folder), str(KILLS), "study"]
    process = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert len(json.loads(process.stdout)) == KILLS
    whole, killed = (diagnoses_of(folder / name / "run") for name in ("whole", "killed"))
    assert whole == killed == diagnoses_of(made)


def test_seeds_side_by_side_give_the_same(made: Path, copy: Path) -> None:
    run_study(study(copy, diagnose=True, jobs=2, cells="sft,anchor-only"))
    own = diagnoses_of(copy)
    assert set(own) == {"0-sft", "1-sft", "0-anchor-only", "1-anchor-only"}
    assert all(diagnosis == diagnoses_of(made)[name] for name, diagnosis in own.items())


def test_parts_merge_without_work(made: Path, tmp_path: Path) -> None:
    """As committed files, and as a study's folder or its folder of results."""
    write_config(tmp_path)
    for seed in (0, 1):
        for kind in ("cells", "diagnoses"):
            (tmp_path / f"part-{seed}" / kind).mkdir(parents=True)
            for path in (made / kind).glob(f"{seed}-*.json"):
                shutil.copy(path, tmp_path / f"part-{seed}" / kind)
    merged = run_study(study(tmp_path / "run", merge=(tmp_path / "part-0", tmp_path / "part-1" / "cells")))
    assert merged["diagnosis"] == run_study(study(made))["diagnosis"]
    assert diagnoses_of(tmp_path / "run") == diagnoses_of(made)
    assert run_study(study(tmp_path / "run", merge=(tmp_path / "part-0",)))["diagnosis"] == merged["diagnosis"]
    path = tmp_path / "part-0" / "diagnoses" / "0-tpo.json"
    text = path.read_text()
    path.write_text(text.replace('"samples":4', '"samples":5'))
    with pytest.raises(CompatibilityError, match="different diagnoses of the same cell"):
        run_study(study(tmp_path / "run", merge=(tmp_path / "part-0",)))
    path.write_text(text.replace(read_diagnosis(path).fresh, "f" * 64))
    with pytest.raises(CompatibilityError, match="seed 0 were diagnosed on different fresh rollouts"):
        run_study(study(tmp_path / "other", merge=(tmp_path / "part-0",)))
    path.write_text(text.replace(read_diagnosis(path).rounds[0].policy_hash, "f" * 64))
    with pytest.raises(CompatibilityError, match="other policies than those of the cell's result"):
        run_study(study(tmp_path / "third", merge=(tmp_path / "part-0",)))
    path.write_text(text[:-40])
    with pytest.raises(DataError, match=r"0-tpo\.json"):
        run_study(study(tmp_path / "fourth", merge=(tmp_path / "part-0",)))


@pytest.mark.parametrize("lost", ["train/policy", "train/metrics.jsonl", "pair/done.json"])
def test_work_that_is_missing_is_told_before_anything_runs(copy: Path, lost: str) -> None:
    place = copy / "work" / "seed-1" / "arms" / "tpo" / "iteration-1" / lost
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(DataError, match=r"is missing, which a diagnosis of cell 1-tpo reads"):
        run_study(study(copy, diagnose=True))
    assert not (copy / "work" / "seed-0" / "diagnosis").exists()
    assert not (copy / "diagnoses").exists()


def test_a_merged_study_without_work_cannot_be_diagnosed(made: Path, tmp_path: Path) -> None:
    write_config(tmp_path)
    run_study(study(tmp_path / "run", merge=(made,)))
    shutil.rmtree(tmp_path / "run" / "diagnoses")
    with pytest.raises(DataError, match="is missing") as caught:
        run_study(study(tmp_path / "run", diagnose=True))
    assert "--merge takes diagnoses over" in caught.value.hint
    with pytest.raises(SettingsError, match="--diagnose needs the work/ folder"):
        run_study(study(tmp_path / "run", diagnose=True, merge=(made,)))


def test_work_of_another_cell_or_damaged_is_refused(copy: Path) -> None:
    arms = copy / "work" / "seed-0" / "arms"
    policy = arms / "tpo" / "iteration-1" / "train" / "policy"
    shutil.move(policy, copy / "kept")
    shutil.copytree(arms / "anchor-only" / "iteration-1" / "train" / "policy", policy)
    with pytest.raises(CompatibilityError, match="not the policy that the result of cell 0-tpo was made with"):
        run_study(study(copy, diagnose=True, cells="tpo:0"))
    shutil.rmtree(policy)
    shutil.move(copy / "kept", policy)
    weights = policy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(DataError):
        run_study(study(copy, diagnose=True, cells="tpo:0"))
    start = copy / "work" / "seed-1" / "sft" / "policy"
    shutil.rmtree(start)
    shutil.copytree(copy / "work" / "seed-0" / "sft" / "policy", start)
    with pytest.raises(CompatibilityError, match="not the policy that the result of cell 1-sft was made with"):
        run_study(study(copy, diagnose=True, cells="sft:1"))
    assert not (copy / "diagnoses").exists()


def test_only_finished_cells_and_one_number_of_samples(made: Path, tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError, match="was diagnosed with --diagnosis-samples 4"):
        run_study(study(made, diagnose=True, diagnosis_samples=3))
    write_config(tmp_path)
    with pytest.raises(DataError, match="None of the cells to diagnose is finished: 0-tpo"):
        run_study(study(tmp_path / "run", diagnose=True, cells="tpo:0"))
    assert diagnosis_path(made, 0, "tpo").stat().st_size < 2500


def test_a_plan_counts_fresh_rollouts_alone(made: Path) -> None:
    plan = run_study(study(made, diagnose=True, dry_run=True, seconds_per_episode=3.6))
    assert (plan["episodes"], plan["updates"], plan["cpu_hours"]) == (2 * 4 * 2, 0, 0.02)
