"""A whole small study: equal starts, rollouts and budgets; killed, continued and merged."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from grape.core.errors import CompatibilityError, DataError
from grape.core.settings import load_settings
from grape.preferences import read_pairs, recorded_stores
from grape.store import open_stores
from grape.study import StudySettings, run_study
from grape.study.arms import arms_of
from grape.study.cells import Cell, cell_hash, read_cell

ROOT = Path(__file__).resolve().parents[2]
TINY = Path(__file__).with_name("tiny.yaml")
KILLS = 6


def tiny(out: Path, **changes: Any) -> StudySettings:
    return replace(load_settings(StudySettings, TINY, StudySettings(out=out)), **changes)


def cells_of(out: Path) -> dict[str, Cell]:
    return {path.stem: read_cell(path) for path in sorted((out / "cells").glob("*.json"))}


@dataclass(frozen=True)
class Runs:
    whole: Path
    killed: Path
    places: list[str]
    summary: dict[str, Any]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("study")
    command = [sys.executable, "-m", "tests.loop.killing", str(TINY), str(folder), str(KILLS), "study"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    summary = json.loads((folder / "whole" / "stdout").read_text())
    return Runs(folder / "whole" / "run", folder / "killed" / "run", json.loads(process.stdout), summary)


@pytest.mark.slow
def test_arms_share_start_rollouts_and_budget(runs: Runs) -> None:
    cells = cells_of(runs.whole)
    assert set(cells) == {f"{seed}-{arm}" for seed in (0, 1) for arm in ("sft", "filtered-bc", "tpo")}
    for seed in (0, 1):
        members = [cell for cell in cells.values() if cell.seed == seed]
        assert len({cell.start for cell in members}) == 1
        trained = [cell.rounds[0] for cell in members if cell.arm != "sft"]
        assert len({item.rollouts for item in trained}) == 1
        assert {item.updates for item in trained} == {2}
        assert {item.collected for item in trained} == {16}
        assert len({item.policy_hash for item in trained} | {members[0].start}) == 3
        states = {tuple(outcome[:3] for outcome in cell.rounds[0].outcomes) for cell in members}
        assert len(states) == 1
    assert cells["0-sft"].rounds[0].policy_hash == cells["0-sft"].start != cells["1-sft"].start
    assert cells["0-tpo"].rounds[0].rollouts != cells["1-tpo"].rounds[0].rollouts
    assert len(list((runs.whole / "work" / "seed-0" / "scores").iterdir())) == 1  # arms that score alike share it


@pytest.mark.slow
def test_the_result_names_its_figure_of_merit_and_compares_each_couple_once(runs: Runs) -> None:
    summary = runs.summary
    assert summary["merit"]["measured"].startswith("success rate on 3 test states a task, 2 rollouts each, sampled")
    couples = [(row["arm"], row["baseline"]) for row in summary["comparisons"]]
    assert couples == [("filtered-bc", "sft"), ("tpo", "sft"), ("tpo", "filtered-bc")]
    assert all(row["pairs"] == 12 and row["states"] == 3 for row in summary["comparisons"])
    assert [arm["updates"] for arm in summary["arms"]] == [[], [2, 2], [2, 2]]
    page = (runs.whole / "study.html").read_text()
    assert "tpo − filtered-bc" in page
    assert summary["comparisons"][0]["sentence"] in page


@pytest.mark.slow
def test_killing_it_anywhere_changes_no_result(runs: Runs) -> None:
    assert len(runs.places) == KILLS
    whole, killed = cells_of(runs.whole), cells_of(runs.killed)
    assert {name: cell.facts for name, cell in whole.items()} == {name: cell.facts for name, cell in killed.items()}
    drop = ("cpu_seconds", "wall_seconds")
    tables = [json.loads((out / "study.json").read_text()) for out in (runs.whole, runs.killed)]
    for table in tables:
        for arm in table["arms"]:
            assert all(arm.pop(name) >= 0 for name in drop)
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_parts_of_two_machines_merge_into_the_whole(runs: Runs, tmp_path: Path) -> None:
    """Seed 1 is run again in a folder of its own, seed 0 comes as files alone."""
    run_study(tiny(tmp_path / "one", cells=":1", report=False))
    assert set(cells_of(tmp_path / "one")) == {"1-sft", "1-filtered-bc", "1-tpo"}
    assert not (tmp_path / "one" / "done.json").exists()
    for path in (runs.whole / "cells").glob("0-*.json"):
        (tmp_path / "files").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "files")
    merged = run_study(tiny(tmp_path / "merged", merge=(tmp_path / "one", tmp_path / "files"), report=False))
    assert merged["cells"] == {"done": 6, "missing": []}
    assert merged["comparisons"] == runs.summary["comparisons"]
    assert not (tmp_path / "merged" / "work").exists()
    again = run_study(tiny(tmp_path / "merged", report=False))  # a finished cell's file alone is enough
    assert again["comparisons"] == merged["comparisons"]
    assert not (tmp_path / "merged" / "work").exists()


@pytest.mark.slow
def test_merging_refuses_what_is_not_of_the_study(runs: Runs, tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError, match="other settings"):
        run_study(tiny(tmp_path / "a", updates=3, merge=(runs.whole,)))
    with pytest.raises(CompatibilityError, match="figure of merit is success on test states"):
        run_study(tiny(tmp_path / "b", merit="steps", merge=(runs.whole,)))
    with pytest.raises(DataError, match="holds no results"):
        run_study(tiny(tmp_path / "c", merge=(tmp_path,)))
    files = tmp_path / "files"
    shutil.copytree(runs.whole / "cells", files)
    text = (files / "0-tpo.json").read_text()
    (files / "0-tpo.json").write_text(text.replace('"collected":16', '"collected":17'))
    with pytest.raises(CompatibilityError, match="different results of the same cell"):
        run_study(tiny(tmp_path / "d", merge=(runs.whole, files)))
    (files / "0-tpo.json").write_text(text.replace(cells_of(runs.whole)["0-tpo"].start, "f" * 64))
    with pytest.raises(CompatibilityError, match="seed 0 have different starting policies"):
        run_study(tiny(tmp_path / "e", merge=(files,)))
    (files / "0-tpo.json").write_text(text.replace('"success"', '"sucess"').replace(",0,", ",2,"))
    with pytest.raises(DataError):
        run_study(tiny(tmp_path / "f", merge=(files,)))


@pytest.mark.slow
def test_a_seed_is_not_continued_from_another_start(runs: Runs, tmp_path: Path) -> None:
    """As on another processor, where the same commands make another policy in its last bits."""
    (tmp_path / "files").mkdir()
    text = (runs.whole / "cells" / "0-filtered-bc.json").read_text()
    start = cells_of(runs.whole)["0-filtered-bc"].start
    (tmp_path / "files" / "0-filtered-bc.json").write_text(text.replace(start, "f" * 64))
    run_study(tiny(tmp_path / "run", merge=(tmp_path / "files",), report=False))
    with pytest.raises(CompatibilityError, match="seed 0 have different starting policies"):
        run_study(tiny(tmp_path / "run", cells="tpo:0"))
    assert not (tmp_path / "run" / "work" / "seed-0" / "arms").exists()


@pytest.mark.slow
def test_a_study_begun_with_one_figure_of_merit_keeps_it(runs: Runs, tmp_path: Path) -> None:
    shutil.copytree(runs.whole, tmp_path / "run", ignore=shutil.ignore_patterns("work"))
    with pytest.raises(CompatibilityError, match="merit was"):
        run_study(tiny(tmp_path / "run", merit="steps"))


def test_the_hash_of_a_cell_knows_its_arm_and_no_other(tmp_path: Path) -> None:
    plain = tiny(tmp_path)
    more = tiny(tmp_path, arms=("tpo", "mine"), own_arms={"mine": {"train": {"beta": 0.02}}}, seeds=(5,), title="x")
    hashes = {name: cell_hash(plain, arm) for name, arm in arms_of(plain).items()}
    assert len(set(hashes.values())) == 3
    assert cell_hash(more, arms_of(more)["tpo"]) == hashes["tpo"] != cell_hash(more, arms_of(more)["mine"])
    again = replace(arms_of(plain)["tpo"], replay=1)
    assert cell_hash(plain, again) != hashes["tpo"]
    assert cell_hash(tiny(tmp_path, test_states=4), arms_of(plain)["tpo"]) != hashes["tpo"]


@pytest.mark.slow
def test_seeds_side_by_side_give_the_same(runs: Runs, tmp_path: Path) -> None:
    changed = tiny(tmp_path / "run", jobs=2, cells="filtered-bc,sft", report=False)
    run_study(changed)
    whole = cells_of(runs.whole)
    made = cells_of(tmp_path / "run")
    assert set(made) == {"0-sft", "1-sft", "0-filtered-bc", "1-filtered-bc"}
    assert all(cell.facts == whole[name].facts for name, cell in made.items())


@pytest.mark.slow
def test_iterations_go_on_from_each_arms_policy_and_one_policy_may_serve_all_seeds(tmp_path: Path) -> None:
    """Where nothing can be learned the policy stays, and the table says so."""
    own = {
        "impossible": {"base": "tpo", "pair": {"margin": 1e9}, "replay": 1},
        "rloo-replay": {"base": "rloo", "replay": 1},
    }
    settings = tiny(
        tmp_path / "run",
        arms=("rloo", "impossible", "rloo-replay"),
        baselines=("rloo",),
        own_arms=own,
        iterations=2,
        shared_start=True,
    )
    summary = run_study(settings)
    cells = cells_of(tmp_path / "run")
    assert len({cell.start for cell in cells.values()}) == 1
    for seed in (0, 1):
        first, second = cells[f"{seed}-rloo"].rounds
        assert (first.iteration, second.iteration) == (1, 2)
        assert first.rollouts != second.rollouts
        assert len({first.policy_hash, second.policy_hash, cells[f"{seed}-rloo"].start}) == 3
        replayed = cells[f"{seed}-rloo-replay"].rounds
        assert replayed[0].policy_hash == first.policy_hash
        assert replayed[1].rollouts == second.rollouts
        assert replayed[1].policy_hash != second.policy_hash
        stopped = cells[f"{seed}-impossible"].rounds
        assert all(item.updates == 0 and "margin" in item.stopped for item in stopped)
        assert {item.policy_hash for item in stopped} == {cells[f"{seed}-impossible"].start}
        assert first.rollouts == stopped[0].rollouts
    idle = sum(bool(item.stopped) for cell in cells.values() for item in cell.rounds)
    assert any(f"nothing to learn in {idle} iterations" in warning for warning in summary["warnings"])
    assert "iteration 2" in (tmp_path / "run" / "study.html").read_text()


@pytest.mark.slow
def test_a_judge_may_choose_the_pairs_of_an_arm(tmp_path: Path) -> None:
    program = ROOT / "examples" / "judges" / "haste.py"
    own = {
        "stored": {
            "base": "tpo",
            "score": {"scorer": [f"haste={sys.executable} {program}"]},
            "pair": {"judge": "score:haste"},
        },
        "asked": {"base": "tpo", "pair": {"judge": f"scorer:{sys.executable} {program}"}},
    }
    settings = tiny(
        tmp_path / "run", arms=("stored", "asked"), baselines=("stored",), own_arms=own, seeds=(0,), report=False
    )
    run_study(settings)
    first, second = cells_of(tmp_path / "run").values()
    assert first.rounds[0].pairs == second.rounds[0].pairs > 0
    assert first.rounds[0].policy_hash == second.rounds[0].policy_hash != first.start
    for name in own:
        folder = tmp_path / "run" / "work" / "seed-0" / "arms" / name / "iteration-1" / "pair"
        steps = {meta.episode_id: meta.steps for meta in open_stores(recorded_stores(folder)).metas()}
        assert all(steps[pair.chosen] < steps[pair.rejected] for pair in read_pairs(folder))
