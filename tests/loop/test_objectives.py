"""Loops that replay earlier iterations, and loops without pairs, on the toy suite."""

from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from grape.cli.main import main
from grape.core.errors import NoPairsError, SettingsError
from grape.core.events import SILENT
from grape.core.files import read_json, read_jsonl
from grape.core.settings import read_yaml, settings_from_dict
from grape.loop import LoopSettings, loop, run_loop
from grape.loop.stages import Stages
from grape.loop.trainings import Trainings
from grape.training.settings import TrainSettings, check_train

SMALLEST = read_yaml(Path(__file__).parent / "smallest.yaml") | {"compare_cloning": False, "gate": False}


def settings_of(out: Path, **changes: Any) -> LoopSettings:
    changed = {**SMALLEST, **changes, "train": SMALLEST["train"] | changes.get("train", {})}
    return settings_from_dict(LoopSettings, changed, LoopSettings(out=out))


def test_an_iteration_gets_the_folders_of_those_before_it() -> None:
    stages = Stages(settings_of(Path("run"), replay=2))
    assert stages.train(1, Path("policy")).data == (Path("run/iteration-1/pair"),)
    assert stages.train(4, Path("policy")).data == tuple(Path(f"run/iteration-{k}/pair") for k in (4, 2, 3))
    unpaired = Stages(settings_of(Path("run"), replay=1, train={"method": "kto"})).train(2, Path("policy"))
    assert unpaired.data == (Path("run/iteration-2/score"), Path("run/iteration-1/score"))
    assert unpaired.pairs is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"replay": 1, "train": {"reference": "recomputed"}}, r"--replay 1 takes the recorded(.|\n)*--train.reference"),
        ({"replay": -1}, "--replay is -1"),
        ({"train": {"scores": "somewhere"}}, "--train.scores is decided by the loop"),
        ({"train": {"replay": ["somewhere"]}}, "--train.replay is decided by the loop"),
        ({"train": {"method": "kto", "loss_type": "ipo"}}, "--train.loss-type has no meaning"),
        ({"compare_cloning": True, "train": {"clip_range": 0.1}}, "--train.clip-range has no meaning"),
    ],
)
def test_contradictions_are_refused_before_the_first_stage(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SettingsError, match=sentence):
        run_loop(settings_of(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_the_baseline_beside_an_unpaired_loop_has_its_own_settings(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path / "run", compare_cloning=True, dry_run=True, train={"method": "kto", "desirable_weight": 1.2}
    )
    assert run_loop(settings)["dry_run"]
    filtered_bc = Stages(settings).filtered_bc_train(Path("policy"))
    assert filtered_bc.method == "filtered-bc"
    assert filtered_bc.desirable_weight == 1.0


def test_the_baseline_takes_no_settings_of_the_preference(tmp_path: Path) -> None:
    preference = {
        "beta": 0.05,
        "anchor": 2.0,
        "chosen_floor": 0.3,
        "loss_type": "hinge",
        "length_normalised": True,
        "reference": "recomputed",
    }
    train = {**preference, "lr": 2e-4, "epochs": 3}
    settings = settings_of(tmp_path / "run", compare_cloning=True, dry_run=True, train=train)
    assert run_loop(settings)["dry_run"]
    filtered_bc = Stages(settings).filtered_bc_train(Path("policy"))
    check_train(filtered_bc)
    defaults = TrainSettings(policy=Path("policy"), out=Path("run"))
    assert all(getattr(filtered_bc, name) == getattr(defaults, name) for name in preference)
    assert (filtered_bc.lr, filtered_bc.epochs) == (2e-4, 3)


def test_without_pairs_an_unpaired_loop_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise NoPairsError("No pair.")

    monkeypatch.setattr(loop, "run_collect", lambda *_: {})
    monkeypatch.setattr(loop, "run_score", lambda *_: {})
    monkeypatch.setattr(loop, "run_pair", fail)
    monkeypatch.setattr("grape.training.run_train", lambda settings, _: seen.append(settings.scores) or stop())
    seen: list[Path | None] = []

    def stop() -> None:
        raise NoPairsError("Nothing to tell apart.")

    settings = settings_of(Path("run"), train={"method": "rloo"})
    start = loop._Incumbent("SFT", Path("policy"), Path("evaluation"))
    result = loop._iterate(settings, Stages(settings), 1, start, Trainings(), SILENT)
    assert seen == [Path("run/iteration-1/score")]
    assert result == (None, False, "Nothing to tell apart.")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["tpo", "kto", "rloo"])
def test_two_iterations_with_replay(tmp_path: Path, method: str) -> None:
    settings = settings_of(tmp_path / "run", replay=1, train={"method": method})
    summary = run_loop(settings)
    first, second = (read_json(settings.out / f"iteration-{number}" / "train" / "done.json") for number in (1, 2))
    assert second["episodes"] > first["episodes"]
    assert second["start_policy_hash"] == first["policy_hash"]
    assert second["parity"]["mean_abs"] < 1e-4
    assert (settings.out / "iteration-1" / "pair").exists() == (method == "tpo")
    assert [entry["label"] for entry in summary["policies"]] == ["SFT", "iteration 1", "iteration 2"]
    if method != "tpo":
        rows = (settings.out / "iteration-2" / "train" / "metrics.jsonl").read_text()
        assert '"logps/chosen"' in rows
    assert run_loop(settings) == summary  # nothing is done again


def run(*words: object) -> None:
    assert main([*map(str, words), "--quiet"]) == 0


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a policy of middling success on the toy suite, and its scored rollouts."""
    root = tmp_path_factory.mktemp("recorded")
    toy = ("--suite", "toy", "--tasks", 0, "--lanes", 4, "--workers", 1)
    run("collect", *toy, "--policy", "expert", "--initial-states", "0-15", "--operators", "clean:16",
        "--out", root / "demonstrations")  # fmt: skip
    run("sft", "--data", root / "demonstrations" / "store", "--epochs", 60, "--batch-size", 16, "--out", root / "sft")
    run("collect", *toy, "--policy", root / "sft" / "policy", "--initial-states", "0-7", "--samples", 4,
        "--temperature", 1.0, "--out", root / "collect")  # fmt: skip
    run("score", "--store", root / "collect", "--out", root / "scores")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("method", ["kto", "rloo"])
def test_on_the_toy_suite_worse_episodes_become_less_likely_and_better_ones_do_not(
    recorded: Path, tmp_path: Path, method: str
) -> None:
    out = tmp_path / method
    chosen = ("--length-normalised",) if method == "kto" else ("--reward", "success")
    run("train", "--method", method, "--scores", recorded / "scores", "--policy", recorded / "sft" / "policy",
        "--out", out, "--epochs", 6, "--pairs-per-update", 4, "--lr", 1e-4, *chosen)  # fmt: skip
    rows = read_jsonl(out / "metrics.jsonl")
    assert rows[0]["parity/mean_abs"] < 1e-4
    last = rows[-len(rows) // 6 :]  # the last epoch
    better, worse = (mean(row[f"rewards/{side}"] for row in last) for side in ("chosen", "rejected"))
    assert worse < -0.05
    assert better - worse > 0.1
    # Nothing anchors rloo, so better ones may fall a little; how far depends on a processor's last bits.
    assert better > worse / 2 if method == "rloo" else better > 0.02
