"""Folders that release 0.1 wrote are read, resumed and give the same values; see README.md beside this file."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from grape.cli.main import main
from grape.collect.settings import CollectSettings
from grape.core.events import SILENT
from grape.core.files import read_jsonl
from grape.core.runs import identity_of
from grape.evaluation.settings import EvaluateSettings
from grape.loop.settings import UNSET, LoopSettings
from grape.policies.openvla import compute_norm_stats, create_nano, save_policy
from grape.preferences import PairSettings, ScoreSettings, read_scores, with_curves
from grape.store import EpisodeStore
from grape.training import sources
from grape.training.dataset import load_steps
from grape.training.settings import SftSettings, TrainSettings
from grape.training.tpo import run_train

RECORDED = Path(__file__).parent / "release_0_1"
COLLECT = (
    "collect --suite toy --tasks 2 --initial-states 0-5 --operators sloppy --samples 3 --max-steps 26 --out rollouts"
)
EVALUATE = (
    "evaluate --policy expert --suite toy --tasks 0 --episodes 2 --operators sloppy --no-display --out evaluation"
)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    shutil.copytree(RECORDED, tmp_path / "runs")
    monkeypatch.chdir(tmp_path / "runs")
    return tmp_path / "runs"


def contents(folder):
    skipped = {"log.jsonl", "settings.yaml", "index.jsonl"}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in skipped
    }


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        (COLLECT, "rollouts"),
        ("score --store sampled/store --out sampled-scores", "sampled-scores"),
        ("pair --scores sampled-scores --no-require-mixed-outcomes --out sampled-pairs", "sampled-pairs"),
        (EVALUATE, "evaluation"),
    ],
)
def test_a_finished_run_is_taken_as_finished(runs, command, folder):
    before = contents(runs / folder)
    assert main(command.split()) == 0
    assert contents(runs / folder) == before


def test_an_interrupted_collection_goes_on_to_the_same_episodes(runs):
    (runs / "rollouts" / "done.json").unlink()
    for path in sorted((runs / "rollouts" / "store" / "episodes").iterdir())[4:]:
        path.unlink()
    assert main(COLLECT.split()) == 0
    ours, recorded = (EpisodeStore.open(root / "rollouts" / "store") for root in (runs, RECORDED))
    for meta in recorded.metas():
        one, other = ours.read(meta.episode_id), recorded.read(meta.episode_id)
        assert one.meta == other.meta
        for name in ("frames", "proprio", "actions", "labels"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def rows(folder):
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def assert_close(ours, recorded):
    """Equal but for the last digits of numbers, which differ between processors."""
    if isinstance(recorded, dict):
        assert ours.keys() == recorded.keys()
        for name in recorded:
            assert_close(ours[name], recorded[name])
    elif isinstance(recorded, list):
        assert len(ours) == len(recorded)
        for one, other in zip(ours, recorded, strict=True):
            assert_close(one, other)
    else:
        assert ours == (pytest.approx(recorded, rel=1e-9) if isinstance(recorded, float) else recorded)


def test_the_same_costs_and_pairs_are_made_of_recorded_episodes(runs, capsys):
    assert main(["score", "--store", "sampled/store", "--price-verdict", "--out", "scores-2"]) == 0
    assert main(["pair", "--scores", "sampled-scores", "--no-require-mixed-outcomes", "--out", "pairs-2"]) == 0
    assert "were made by release 0.1" in " ".join(capsys.readouterr().err.split())
    ours, recorded = rows(runs / "scores-2"), rows(runs / "sampled-scores")
    assert len(recorded) == 16
    drawn = with_curves(runs / "scores-2", read_scores(runs / "scores-2").values())
    for row in recorded:  # 0.1 wrote the curves into its scores, five digits of them
        for stage, own in zip(row["stages"], drawn[row["episode_id"]].stages, strict=True):
            for item, other in zip(stage["constraints"], own.constraints, strict=True):
                curve = item.pop("curve")
                assert not stage["reached"] or other.curve == pytest.approx(curve, rel=1e-4)
    for row in (*ours, *recorded):
        del row["terms"], row["gcpg"]  # weights are calibrated otherwise today
        for stage in row["stages"]:
            if not stage["reached"]:
                del stage["constraints"]  # today the whole charge of a stage never entered is its completion's
    assert_close(ours, recorded)
    assert len(rows(runs / "sampled-pairs")) == 8
    pairs, old = rows(runs / "pairs-2"), rows(runs / "sampled-pairs")
    for row in (*pairs, *old):  # 0.1 named the constraint that differs most, unfinished stages aside
        row["reason"] = re.sub(r", (mostly|above all) [^;]*", "", row["reason"])
    assert_close(pairs, old)


def test_recorded_episodes_are_read_whole():
    store = EpisodeStore.open(RECORDED / "rollouts" / "store")
    metas = store.metas()
    assert len(metas) == 18
    assert 0 < sum(meta.success is True for meta in metas) < 18
    for meta in metas:
        trajectory = store.read(meta.episode_id)
        assert trajectory.frames.shape[0] == meta.steps + 1
        assert trajectory.actions.shape[0] == meta.steps


def test_training_reads_the_same_bytes_of_recorded_episodes():
    """Tokens, log-probabilities, labels and images, as release 0.1 and format version 1 have them."""
    store = EpisodeStore.open(RECORDED / "sampled" / "store")
    steps = load_steps([store], [store.ids()], SILENT)
    images = steps.images_NHWC[np.arange(len(steps))]
    digest = hashlib.sha256()
    for array in (steps.tokens_NKD[:], steps.logps_NKD[:], steps.labels_TD[:][:, None], images):
        digest.update(np.ascontiguousarray(array).tobytes())
    assert digest.hexdigest() == "56a03280ed1338994e4007fe782352d382df392f28fadbc38f1f0c6aff55c4ce"


UPDATES = {
    # losses and lengths of the gradient of two updates on the recorded episodes, as release 0.1's data model gave them
    "tpo": ({}, [(10.881314847948863, 176.85668412128703), (1.005813814293003, 58.661267875440984)]),
    "windows": (
        {"window": 4, "stride": 2},
        [(0.6931471805599453, 18.23797382133236), (1.6213790478560397, 28.786444261044085)],
    ),
    "step-dpo": (
        {"method": "step-dpo"},
        [(1.1779284094882843, 12.21276180878124), (1.0153650860863623, 6.013921587807741)],
    ),
    "filtered-bc": (
        {"method": "filtered-bc", "reference": "recorded"},
        [(7.320300656273251, 112.26243792766337), (4.061192012968517, 63.21126723800158)],
    ),
    "normalized": (
        {"length_normalised": True, "chosen_floor": 1.0},
        [(10.881314847948863, 225.73825374089742), (0.781519042887677, 36.111039443819486)],
    ),
    "adapters": (
        {"lora_rank": 2},
        [(10.881314847948863, 33.191398506311124), (0.6744175984945698, 17.467164787757675)],
    ),
    "kto": ({"method": "kto"}, [(0.2857142857142857, 124.48622924836675), (12.951809860940337, 70.74651499344687)]),
    "rloo": ({"method": "rloo"}, [(-0.24635577850452178, 27.865550316112394), (8.539694630303906, 530.3723492810564)]),
}


@pytest.mark.parametrize("case", UPDATES)
def test_the_same_updates_are_made_of_recorded_episodes(runs, tmp_path, monkeypatch, case):
    """To the last digits that processors share; on one processor they are the same bits."""
    changes, expected = UPDATES[case]
    store = EpisodeStore.open(runs / "sampled" / "store")
    actions = np.random.default_rng(7).uniform(-1, 1, (200, 7))
    policy = create_nano(
        seed=0,
        norm_stats=compute_norm_stats(actions, (*"abcdef", "gripper")),
        gripper="+1 closes",
        instructions=sorted({meta.instruction for meta in store.metas()}),
    )
    save_policy(policy, tmp_path / "policy")
    # Not the policy that collected them, which is not kept: only the arithmetic is compared.
    monkeypatch.setattr(sources, "check_preprocessing", lambda *_: None)
    unpaired = changes.get("method") in ("kto", "rloo")
    data = {"scores" if unpaired else "pairs": runs / ("sampled-scores" if unpaired else "sampled-pairs")}
    anchor = {} if changes.get("method") in ("filtered-bc", "rloo") else {"anchor": 1.0}
    given = {
        **anchor,
        "reference": "recomputed",
        "max_updates": 2,
        "epochs": 2,
        "seed": 3,
        "pairs_per_update": 2,
        **changes,
    }
    run_train(TrainSettings(policy=tmp_path / "policy", out=tmp_path / "train", **data, **given))
    rows = read_jsonl(tmp_path / "train" / "metrics.jsonl")
    for row, (loss, norm) in zip(rows, expected, strict=True):
        assert (row["loss"], row["grad_norm"]) == (pytest.approx(loss, rel=1e-3), pytest.approx(norm, rel=1e-3))


def test_settings_have_the_identity_that_recorded_runs_have():
    """What decides whether a folder is resumed: names and values of the settings that results depend on."""
    place = Path("x")
    # The defaults of release 0.1 where they were others.
    anchor, mixed = {"nll_weight": 10.0}, {"require_mixed_outcomes": True}
    precise = {"dtype": "bfloat16", "center_crop": "yes", "device": "cuda", "threads": 4}
    settings = {
        "train": TrainSettings(pairs=place, policy=place, out=place, **anchor),
        "train changed": TrainSettings(
            pairs=place, policy=place, out=place, lr=1e-5, lora_rank=32, **precise, **anchor
        ),
        "sft": SftSettings((place,), out=place),
        "collect": CollectSettings(place),
        "collect changed": CollectSettings(place, until="last-step", max_steps=3, dtype="float32", unnorm_key="a"),
        "evaluate": EvaluateSettings("x"),
        "evaluate changed": EvaluateSettings("x", protocol="libero-openvla-v1", samples=3, temperature=0.5),
        "loop": LoopSettings(
            place,
            pair=PairSettings(UNSET, UNSET, **mixed),
            train=TrainSettings(pairs=UNSET, policy=UNSET, out=UNSET, **anchor),
        ),
        "score": ScoreSettings(place, place),
        "pair": PairSettings(place, place, **mixed),
    }
    recorded = json.loads((RECORDED / "identities.json").read_text())
    assert json.loads(json.dumps({name: identity_of(value) for name, value in settings.items()})) == recorded
