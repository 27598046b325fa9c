"""``grape train`` on single episodes (KTO, group advantages), and on what earlier policies collected."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from grape.core.errors import CompatibilityError, NoPairsError, SettingsError
from grape.core.events import SilentReporter
from grape.core.files import read_json, read_jsonl
from grape.core.provenance import read_provenance
from grape.store import EpisodeStore
from grape.training import TrainSettings, run_train
from grape.training.loop import TrainLoop
from grape.training.settings import check_train
from grape.training.sources import read_data
from tests.training.recordings import record, snapshot, write_pairs, write_policy, write_scores

REWARDS = (3.0, 0.5, 2.0, 0.5, 2.5, 1.0)  # of toy-0 ... toy-5: states of a success and a failure each


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A policy, and the scores of episodes that it recorded."""
    root = tmp_path_factory.mktemp("world")
    policy = write_policy(root / "policy")
    store = record(root / "store", policy)
    return TrainSettings(
        scores=write_scores(root / "scores", store, REWARDS),
        policy=policy,
        out=root / "unused",
        method="kto",
        pairs_per_update=1,
        epochs=4,
        lr=1e-3,
        micro_batch=8,
        checkpoint_every=1,
    )


@pytest.mark.parametrize("method", ["kto", "rloo"])
def test_successes_become_likelier_than_failures(world, tmp_path, method):
    """Each update holds all episodes, and its steps are small beside rloo's clipping range (0.2 nats a token)."""
    settings = replace(world, out=tmp_path / "run", method=method, pairs_per_update=3, epochs=20, lr=3e-4)
    summary = run_train(settings)
    rows = read_jsonl(settings.out / "metrics.jsonl")
    assert summary["episodes"] == 6
    assert summary["updates"] == len(rows) == 20
    gaps = [row["logps/chosen"] - row["logps/rejected"] for row in rows]
    assert gaps[1] > gaps[0]
    # Policies of other seeds, and so other sampled episodes, reach 35 to 58 nats an episode.
    assert gaps[-1] > gaps[0] + 10
    assert rows[-1]["logps/chosen"] > rows[0]["logps/chosen"]
    assert rows[-1]["logps/rejected"] < rows[0]["logps/rejected"]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert summary["parity"]["mean_abs"] < 1e-4
    assert read_provenance(settings.out / "policy").collected == {"toy": {"task": frozenset({0, 1, 2})}}


def test_the_first_update_starts_at_the_reference(world, tmp_path):
    kto = replace(world, out=tmp_path / "kto", pairs_per_update=3, epochs=1)
    run_train(kto)
    (row,) = read_jsonl(kto.out / "metrics.jsonl")
    assert row["loss/preference"] == pytest.approx(0.5, abs=1e-5)  # half of every lambda, which are 1 on average
    assert row["grad_norm/anchor"] > 0
    assert row["kl"] == pytest.approx(0.0, abs=1e-4)
    assert row["rewards/margins"] == pytest.approx(0.0, abs=1e-5)
    rloo = replace(kto, out=tmp_path / "rloo", method="rloo")
    run_train(rloo)
    (row,) = read_jsonl(rloo.out / "metrics.jsonl")
    assert row["loss"] == pytest.approx(0.0, abs=1e-5)  # the advantages of whole states sum to 0
    assert row["ratio/mean"] == pytest.approx(1.0, abs=1e-5)
    assert row["ratio/clipped"] == 0.0


def test_clipping_holds_the_policy_near_the_one_that_collected(world, tmp_path):
    """Beyond the range only what AdamW still has in its moments moves the policy."""
    settings = replace(world, method="rloo", epochs=60, lr=3e-5, pairs_per_update=3, checkpoint_every=0)
    moved = {}
    for clip_range in (0.05, 0.5):
        run_train(replace(settings, out=tmp_path / str(clip_range), clip_range=clip_range))
        rows = read_jsonl(tmp_path / str(clip_range) / "metrics.jsonl")
        moved[clip_range] = (rows[-1]["rewards/chosen"], -rows[-1]["rewards/rejected"])
        assert rows[0]["ratio/clipped"] == 0
        assert clip_range == 0.5 or rows[-1]["ratio/clipped"] == 1
    for near, far in zip(moved[0.05], moved[0.5], strict=True):
        assert math.log(1.05) - 0.01 < near < 0.2 < far


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "kto", "reward": "gcpg", "anchor": 0.0},
        {"method": "kto", "desirable_weight": 1.3, "length_normalised": True},
        {"method": "kto", "holdout": 0.4, "result": "best"},
        {"method": "kto", "lora_rank": 2},
        {"method": "kto", "reference": "recomputed"},
        {"method": "rloo", "reward": "success"},
        {"method": "rloo", "holdout": 0.4, "lora_rank": 2, "gradient": "one-pass"},
    ],
)
def test_every_way_of_training_runs(world, tmp_path, changes):
    summary = run_train(replace(world, out=tmp_path / "run", **changes))
    assert math.isfinite(summary["metrics"]["loss"])
    if "holdout" in changes:
        rows = read_jsonl(tmp_path / "run" / "metrics.jsonl")
        assert math.isfinite(next(row for row in rows if "eval/loss" in row)["eval/logps/chosen"])


def test_both_gradients_lead_to_the_same_adapters(world, tmp_path):
    weights = {}
    for mode in ("one-pass", "two-pass"):
        out = tmp_path / mode
        run_train(replace(world, out=out, method="rloo", lora_rank=2, gradient=mode))
        weights[mode] = load_file(out / "policy" / "adapter_model.safetensors")
    for name, value in weights["one-pass"].items():
        assert float((value - weights["two-pass"][name]).abs().max()) < 2e-5, name


@pytest.mark.parametrize("method", ["kto", "rloo"])
def test_a_stopped_run_goes_on_with_the_same_bytes(world, tmp_path, monkeypatch, method):
    settings = replace(world, method=method)
    run_train(replace(settings, out=tmp_path / "whole"))
    update, done = TrainLoop._update, []

    def stop_at_the_sixth(self, *arguments):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(1)
        return update(self, *arguments)

    monkeypatch.setattr(TrainLoop, "_update", stop_at_the_sixth)
    with pytest.raises(KeyboardInterrupt):
        run_train(replace(settings, out=tmp_path / "stopped"))
    monkeypatch.undo()
    assert not (tmp_path / "stopped" / "done.json").exists()
    run_train(replace(settings, out=tmp_path / "stopped"))
    assert snapshot(tmp_path / "stopped") == snapshot(tmp_path / "whole")


def test_a_plan_counts_episodes(world, tmp_path):
    warnings = []
    reporter = SilentReporter()
    reporter.warn = warnings.append
    plan = run_train(replace(world, out=tmp_path / "none", dry_run=True), reporter)
    assert "made by release 0.1" in warnings[0]  # whose summaries say nothing of how weights were calibrated
    assert plan["episodes"] == 6
    assert plan["units_per_update"] == 2
    assert plan["updates"] == 12
    assert plan["frames_per_epoch"] == 5 + 9 + 3 + 7 + 6 + 4
    assert plan["gradient"] == "two-pass"
    assert not (tmp_path / "none").exists()


def test_episodes_of_unknown_outcome_take_no_part(world, tmp_path):
    store = record(tmp_path / "store", world.policy, success=None)
    settings = replace(world, scores=write_scores(tmp_path / "scores", store, REWARDS), out=tmp_path / "run")
    with pytest.raises(NoPairsError, match="6 unknown"):
        run_train(settings)
    assert run_train(replace(settings, method="rloo", dry_run=True))["episodes"] == 6
    assert not (tmp_path / "run").exists()


def test_equal_outcomes_are_told_with_what_to_do(world, tmp_path):
    scores = write_scores(tmp_path / "scores", EpisodeStore.open(world.scores.parent / "store"), REWARDS, success=False)
    with pytest.raises(NoPairsError, match=r"0 succeeded, 6 failed(.|\n)*--reward gcpg"):
        run_train(replace(world, scores=scores, out=tmp_path / "run"))
    assert run_train(replace(world, scores=scores, out=tmp_path / "run", reward="gcpg"))["episodes"] == 6


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"scores": None}, "--scores is missing: --method kto learns from scored episodes"),
        (
            {"pairs": "pairs", "scores": None},
            "--pairs is not for --method kto(.|\n)*--scores instead(.|\n)*tpo or step-dpo",
        ),
        ({"pairs": "pairs"}, r"--pairs is not for --method kto\.\s+-> Leave --pairs out\.$"),
        ({"method": "tpo"}, "--scores is not for --method tpo(.|\n)*--pairs instead(.|\n)*kto or rloo"),
        ({"method": "tpo", "pairs": "pairs"}, r"--scores is not for --method tpo\.\s+-> Leave --scores out\.$"),
        ({"method": "tpo", "scores": None}, "--pairs is missing"),
        ({"gradient": "one-pass"}, "needs the two-pass gradient"),
        ({"loss_type": "ipo"}, "--loss-type has no meaning for --method kto"),
        ({"clip_range": 0.1}, "--clip-range has no meaning for --method kto"),
        ({"method": "rloo", "length_normalised": True}, "--length-normalised has no meaning for --method rloo"),
        ({"method": "rloo", "clip_range": 1.0}, "--clip-range is 1.0"),
        ({"beta": 0.0}, "--beta is 0"),
        ({"method": "rloo", "anchor": 0.0}, "--anchor has no meaning for --method rloo"),
        ({"method": "rloo", "beta": 0.05}, "--beta has no meaning for --method rloo"),
        ({"replay": "scores"}, "named twice"),
        ({"replay": "pairs", "reference": "recomputed"}, "Leave one of them out"),
    ],
)
def test_contradictions_are_refused_before_anything_is_read(world, tmp_path, changes, sentence):
    if "pairs" in changes:
        changes = changes | {"pairs": tmp_path / "none"}
    if "replay" in changes:
        changes = changes | {"replay": (world.scores if changes["replay"] == "scores" else tmp_path / "none",)}
    with pytest.raises(SettingsError, match=sentence):
        run_train(replace(world, out=tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_one_folder_given_in_two_ways_is_one_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs").mkdir()
    (tmp_path / "link").symlink_to("pairs")
    settings = TrainSettings(pairs=Path("pairs"), policy=tmp_path / "none", out=tmp_path / "run")
    for again in (tmp_path / "pairs", Path("link"), Path("other/../pairs")):
        with pytest.raises(SettingsError, match="pairs is named twice"):
            check_train(replace(settings, replay=(again,)))
    check_train(replace(settings, replay=(Path("others"),)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("beta", 0.05),
        ("beta", 0.0),
        ("anchor", 0.0),
        ("chosen_floor", 0.5),
        ("loss_type", "ipo"),
        ("length_normalised", True),
        ("label_smoothing", 0.1),
        ("reference", "recomputed"),
        ("window", 8),
    ],
)
def test_filtered_bc_refuses_what_would_do_nothing(tmp_path, name, value):
    settings = TrainSettings(pairs=tmp_path / "none", policy=tmp_path / "none", out=tmp_path / "run")
    flag = f"--{name.replace('_', '-')}"
    with pytest.raises(SettingsError, match=f"{flag} has no meaning for --method filtered-bc"):
        check_train(replace(settings, method="filtered-bc", **{name: value}))
    check_train(replace(settings, method="filtered-bc", nll_weight=10.0))  # what runs of release 0.1 go on with


@pytest.fixture(scope="module")
def two_rounds(tmp_path_factory):
    """Pairs and scores of two policies: of the one to train, and of an earlier one."""
    root = tmp_path_factory.mktemp("rounds")
    folders = {}
    for seed, name in enumerate(("now", "before")):
        policy = write_policy(root / name / "policy", seed=seed)
        store = record(root / name / "store", policy, lengths=(5, 9, 3, 7) if seed else (5, 9, 3, 7, 6, 4))
        write_pairs(root / name / "pairs", store, ((0, 1), (2, 3)) if seed else ((0, 1), (2, 3), (4, 5)))
        write_scores(root / name / "scores", store, REWARDS[: 4 if seed else 6])
        folders[name] = root / name
    now, before = folders["now"], folders["before"]
    paired = TrainSettings(
        pairs=now / "pairs",
        replay=(before / "pairs",),
        policy=now / "policy",
        out=root / "unused",
        pairs_per_update=5,
        epochs=1,
        micro_batch=8,
    )
    return paired, replace(paired, pairs=None, scores=now / "scores", replay=(before / "scores",), method="kto")


def test_replayed_pairs_keep_the_references_of_their_own_policy(two_rounds, tmp_path):
    settings = replace(two_rounds[0], out=tmp_path / "run")
    summary = run_train(settings)
    (row,) = read_jsonl(settings.out / "metrics.jsonl")
    assert summary["pairs"] == 5
    assert summary["episodes"] == 10
    assert summary["parity"]["steps"] == 34  # the policy's own steps, 5 + 9 + 3 + 7 + 6 + 4, and no other
    assert summary["parity"]["mean_abs"] < 1e-4
    data = read_data(settings)
    assert data.replayed == {"1/toy-0", "1/toy-1", "1/toy-2", "1/toy-3"}
    assert read_json(settings.out / "run.json")["inputs"].keys() >= {"pairs", "replay"}
    # The starting policy is not the reference of the replayed pairs, so their log-ratios do not begin at 0.
    alone = replace(settings, out=tmp_path / "alone", replay=(), pairs_per_update=3)
    run_train(alone)
    (other,) = read_jsonl(alone.out / "metrics.jsonl")
    assert other["rewards/chosen"] == pytest.approx(0.0, abs=1e-5)
    assert abs(row["rewards/chosen"]) > 1e-3


def test_episodes_of_another_policy_are_refused_unless_they_are_replayed(two_rounds, tmp_path):
    paired, single = two_rounds
    for settings in (replace(paired, pairs=paired.replay[0]), replace(single, scores=single.replay[0])):
        with pytest.raises(CompatibilityError, match=r"recorded by another policy(.|\n)*--replay"):
            run_train(replace(settings, replay=(), out=tmp_path / "run"))


@pytest.mark.parametrize("method", ["kto", "rloo"])
def test_scored_episodes_are_replayed_too(two_rounds, tmp_path, method):
    settings = replace(two_rounds[1], method=method, out=tmp_path / "run")
    assert run_train(settings)["episodes"] == 10
    with pytest.raises(CompatibilityError, match="another run"):
        run_train(replace(settings, replay=()))


@pytest.mark.parametrize("factor", [1.0, 100.0])
def test_advantages_do_not_depend_on_the_units_of_a_replayed_folder(two_rounds, tmp_path, factor):
    """Each iteration of a loop calibrates R_GCPG by its own episodes."""
    settings = replace(two_rounds[1], method="rloo")
    store = EpisodeStore.open(settings.replay[0].parent / "store")
    replayed = write_scores(tmp_path / "scores", store, [factor * reward for reward in REWARDS[:4]])
    samples = read_data(replace(settings, replay=(replayed,))).samples
    for folder, count in (("", 6), ("1/", 4)):
        advantages = [sample.weight for sample in samples if sample.episode.startswith(folder + "toy")]
        assert len(advantages) == count
        assert math.fsum(value**2 for value in advantages) / count == pytest.approx(1.0)


def test_desirable_episodes_are_balanced_over_all_folders(two_rounds):
    samples = read_data(two_rounds[1]).samples
    assert len(samples) == 10
    assert math.fsum(sample.weight for sample in samples) == pytest.approx(0.0)
    assert {abs(sample.weight) for sample in samples} == {1.0}


def test_what_is_replayed_does_not_stand_for_a_policy_whose_own_episodes_are_all_alike(two_rounds, tmp_path):
    settings = two_rounds[1]
    store = EpisodeStore.open(settings.scores.parent / "store")
    alike = write_scores(tmp_path / "scores", store, (1.0,) * 6)
    with pytest.raises(NoPairsError, match=r"Of 6 episodes of 3 initial states \(3 succeeded, 3 failed"):
        run_train(replace(settings, method="rloo", scores=alike, out=tmp_path / "run"))


@pytest.mark.parametrize("method", ["filtered-bc", "step-dpo"])
def test_baselines_take_replayed_pairs(two_rounds, tmp_path, method):
    summary = run_train(replace(two_rounds[0], method=method, out=tmp_path / "run"))
    assert summary["episodes"] == (5 if method == "filtered-bc" else 10)
