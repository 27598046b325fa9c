import math
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from grape.core.errors import CompatibilityError, DataError, SettingsError, TrainingError
from grape.core.events import SILENT
from grape.core.files import read_json, read_jsonl, write_json
from grape.core.provenance import read_provenance
from grape.policies.openvla import compute_norm_stats, create_nano, load_policy, save_policy
from grape.store import EpisodeStore
from grape.training import TrainSettings, run_train
from grape.training.dataset import load_steps
from grape.training.logprobs import StepLogprobs, check_parity, parity_alarm
from grape.training.loop import TrainLoop
from grape.training.lora import add_adapters, save_result
from tests.training.recordings import INSTRUCTIONS, NAMES, record, snapshot, write_pairs, write_policy


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A policy, a store that it recorded and pairs of its episodes."""
    root = tmp_path_factory.mktemp("world")
    policy = write_policy(root / "policy")
    store = record(root / "store", policy)
    return TrainSettings(
        pairs=write_pairs(root / "pairs", store),
        policy=policy,
        out=root / "unused",
        pairs_per_update=2,
        epochs=2,
        lr=1e-3,
        micro_batch=8,
        checkpoint_every=1,
    )


def weights(folder):
    return load_file(folder / "policy" / "model.safetensors")


def test_training_prefers_the_chosen_side(world, tmp_path):
    settings = replace(world, out=tmp_path / "run", epochs=30, lr=1e-2, anchor=0.0, checkpoint_every=0)
    summary = run_train(settings)
    rows = read_jsonl(settings.out / "metrics.jsonl")
    assert [row["update"] for row in rows] == list(range(1, 61))
    assert {"rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins"} <= rows[0].keys()
    assert {"logps/chosen", "logps/rejected", "saturation", "grad_norm", "lr", "loss/nll"} <= rows[0].keys()
    # The policy is its own reference at first: d = 0, the loss is log 2 and nothing is preferred yet.
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert rows[0]["saturation"] == pytest.approx(0.5, abs=1e-5)
    assert rows[-1]["rewards/accuracies"] == 1.0
    assert rows[-1]["rewards/margins"] > 1.0
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert summary["parity"]["mean_abs"] < 1e-4
    assert read_provenance(settings.out / "policy").collected == {"toy": {"task": frozenset({0, 1, 2})}}
    trained = load_policy(settings.out / "policy")
    assert trained.spec.policy_hash == summary["policy_hash"] != summary["start_policy_hash"]
    assert trained.spec.preprocessing_hash == load_policy(world.policy).spec.preprocessing_hash


def test_logged_sums_are_those_of_the_saved_policy(world, tmp_path):
    """What the trainer calls logps/chosen is what the saved policy says of the recorded tokens."""
    settings = replace(world, out=tmp_path / "first", max_updates=1, pairs_per_update=3)
    run_train(settings)
    second = replace(settings, out=tmp_path / "second", max_updates=2)
    run_train(second)
    logged = read_jsonl(second.out / "metrics.jsonl")[1]["logps/chosen"]
    policy, store = load_policy(settings.out / "policy"), EpisodeStore.open(world.pairs.parent / "store")
    sums = []
    for name in ("toy-0", "toy-2", "toy-4"):
        episode = store.read(name)
        inputs = policy.encode_images(episode.frames[:-1], [episode.meta.instruction] * episode.steps)
        with torch.no_grad():
            logps = policy.model.action_logps(inputs, torch.from_numpy(episode.action_tokens.astype(np.int64)))
        sums.append(float(logps.double().sum()))
    assert logged == pytest.approx(np.mean(sums), rel=1e-5)


def test_a_complete_run_is_returned_at_once_and_other_settings_are_refused(world, tmp_path):
    settings = replace(world, out=tmp_path / "run")
    summary = run_train(settings)
    before = snapshot(settings.out)
    assert run_train(settings) == summary
    assert snapshot(settings.out) == before
    (settings.out / "done.json").unlink()  # as if killed just before the end, and a little earlier
    assert run_train(settings) == summary
    (settings.out / "done.json").unlink()
    shutil.rmtree(settings.out / "policy")
    assert run_train(settings) == summary
    assert snapshot(settings.out) == before
    with pytest.raises(CompatibilityError, match="beta was"):
        run_train(replace(settings, beta=0.2))
    again = run_train(replace(settings, out=tmp_path / "again"))
    assert again == summary | {"policy": str(tmp_path / "again" / "policy")}
    assert snapshot(tmp_path / "again") == before


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_both_gradients_lead_to_the_same_weights(world, tmp_path, lora_rank):
    weights = {}
    for mode in ("one-pass", "two-pass"):
        out = tmp_path / mode
        assert run_train(replace(world, out=out, gradient=mode, lora_rank=lora_rank))["gradient"] == mode
        file = "adapter_model.safetensors" if lora_rank else "model.safetensors"
        weights[mode] = load_file(out / "policy" / file)
    for one, two in zip(*(read_jsonl(tmp_path / mode / "metrics.jsonl") for mode in weights), strict=True):
        assert one == pytest.approx(two, rel=1e-3, abs=1e-5)
    for name, value in weights["one-pass"].items():
        if "qkv.bias" not in name:  # keys' biases have no effect: AdamW blows their rounding noise up to whole steps
            assert torch.allclose(value, weights["two-pass"][name], atol=2e-5), name


@pytest.mark.parametrize(
    "changes",
    [
        {"loss_type": "hinge"},
        {"loss_type": "ipo"},
        {"length_normalised": True},
        {"label_smoothing": 0.1},
        {"method": "step-dpo"},
        {"method": "filtered-bc"},
        {"window": 3},
        {"window": 4, "stride": 2, "lora_rank": 2},
        {"holdout": 0.4, "result": "best"},
        {"lora_rank": 2, "lora_targets": "all", "activation_checkpointing": True},
        {"dtype": "bfloat16", "parity_threshold": 1.0},
        {"reference": "recomputed"},
        {"schedule": "cosine", "warmup": 0.5, "weight_decay": 0.1},
    ],
)
def test_every_way_of_training_runs(world, tmp_path, changes):
    summary = run_train(replace(world, out=tmp_path / "run", **changes))
    assert math.isfinite(summary["metrics"]["loss"])
    changed = load_policy(tmp_path / "run" / "policy", merge=True).model.state_dict()
    start = load_file(world.policy / "model.safetensors")
    assert any(not torch.equal(changed[name], start[name]) for name in start)


def test_what_saves_memory_does_not_change_the_result(world, tmp_path):
    """Features computed anew at each call, images read again, activations computed again: the same bytes."""
    for method in ("tpo", "step-dpo"):
        plain = replace(world, out=tmp_path / method, method=method, lora_rank=2, micro_batch=4)
        frugal = replace(plain, out=tmp_path / f"{method}-frugal", picture_cache_gb=1e-6, activation_checkpointing=True)
        run_train(plain)
        run_train(frugal)
        assert snapshot(plain.out) == snapshot(frugal.out)
    plain = replace(plain, out=tmp_path / "tpo", method="tpo")
    run_train(replace(plain, out=tmp_path / "uncached", feature_cache_gb=0.0))
    for name, value in load_file(plain.out / "policy" / "adapter_model.safetensors").items():
        other = load_file(tmp_path / "uncached" / "policy" / "adapter_model.safetensors")[name]
        assert torch.allclose(value, other, atol=1e-5), name


def test_of_features_beyond_the_memory_only_the_rows_used_are_computed(world, monkeypatch):
    store = EpisodeStore.open(world.pairs.parent / "store")
    steps = load_steps([store], [store.ids()], SILENT)
    policy = load_policy(world.policy)
    policy.model.requires_grad_(False)
    computed = []
    honest = type(policy.model).image_features
    monkeypatch.setattr(
        type(policy.model), "image_features", lambda self, pixels: computed.append(len(pixels)) or honest(self, pixels)
    )
    size = honest(policy.model, policy.processor.pixels(steps.images_NHWC[np.arange(1)])).nbytes
    logps = StepLogprobs(policy, steps, 4, 10 * size)
    expected = StepLogprobs(policy, steps, 4)(torch.arange(34))
    orders = torch.split(torch.from_numpy(np.random.default_rng(0).permutation(34)), 4)
    for first, chunks in ((True, orders), (False, orders)):
        computed.clear()
        for rows in chunks:
            torch.testing.assert_close(logps(rows), expected[rows], atol=1e-5, rtol=0)
        # One row to learn its size, two blocks of four that are kept, 26 other rows in each epoch.
        assert sum(computed) == (1 + 8 + 26 if first else 26)
    # What a call gives does not depend on the calls before it.
    fresh = StepLogprobs(policy, steps, 4, 10 * size)
    assert torch.equal(fresh(orders[-2]), logps(orders[-2]))


@pytest.mark.parametrize("method", ["tpo", "step-dpo"])
def test_a_run_whose_features_do_not_fit_resumes_to_the_same_bytes(world, tmp_path, monkeypatch, method):
    settings = replace(
        world, method=method, lora_rank=2, micro_batch=4, feature_cache_gb=3e-6, checkpoint_every=1, epochs=4
    )
    run_train(replace(settings, out=tmp_path / "whole"))
    honest = TrainLoop._update

    def dying(self, update, *rest):
        if update == 3:
            raise KeyboardInterrupt
        return honest(self, update, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(TrainLoop, "_update", dying)
        with pytest.raises(KeyboardInterrupt):
            run_train(replace(settings, out=tmp_path / "run"))
    run_train(replace(settings, out=tmp_path / "run"))
    assert snapshot(tmp_path / "run") == snapshot(tmp_path / "whole")


def test_pairs_held_out_are_measured_and_never_trained_on(world, tmp_path):
    settings = replace(world, out=tmp_path / "run", holdout=0.4, epochs=3, anchor=0.0)
    summary = run_train(settings)
    rows = read_jsonl(settings.out / "metrics.jsonl")
    looked = [row for row in rows if "eval/loss" in row]
    assert [row["update"] for row in looked] == [1, 2, 3]  # two pairs an update, one pair of three held out
    assert {"eval/rewards/accuracies", "eval/rewards/margins", "eval/logps/chosen"} <= looked[0].keys()
    assert summary["pairs"] == 3
    best = min(looked, key=lambda row: row["eval/loss"])["update"]
    assert read_json(settings.out / "checkpoints" / "best" / "state.json")["update"] == best
    run_train(replace(settings, out=tmp_path / "best", result="best"))
    state = load_file(tmp_path / "best" / "checkpoints" / "best" / "state.safetensors")
    saved = weights(tmp_path / "best")
    assert all(torch.equal(state[f"parameter/{name}"], saved[name]) for name in saved if f"parameter/{name}" in state)


def test_methods_use_the_steps_they_should(world, tmp_path):
    plans = {
        method: run_train(replace(world, out=tmp_path / "none", method=method, dry_run=True, pairs_per_update=3))
        for method in ("tpo", "step-dpo", "filtered-bc")
    }
    # Lengths are 5, 9 | 3, 7 | 6, 4.
    assert plans["tpo"]["frames_per_epoch"] == 34
    assert plans["step-dpo"]["frames_per_epoch"] == 2 * (5 + 3 + 4)
    assert plans["step-dpo"]["units_per_update"] == 12
    assert plans["filtered-bc"]["frames_per_epoch"] == 5 + 3 + 6
    assert plans["filtered-bc"]["episodes"] == 3
    assert plans["tpo"]["updates"] == 2
    assert plans["tpo"]["frames"] == 2 * 34
    assert plans["tpo"]["tflop"] == pytest.approx(2 * 34 * plans["tpo"]["tflop_step_per_frame"])
    assert 0 < plans["tpo"]["peak_memory_gb"] < 0.1
    assert plans["tpo"]["trainable_parameters"] < plans["tpo"]["parameters"]  # the block that is never run
    assert not (tmp_path / "none").exists()


def test_a_plan_of_less_than_an_epoch_counts_the_frames_of_its_updates(world, tmp_path):
    settings = replace(world, out=tmp_path / "none", dry_run=True, pairs_per_update=1)
    plan = run_train(replace(settings, max_updates=1))
    assert plan["updates"] == 1
    assert plan["frames"] in {5 + 9, 3 + 7, 6 + 4}  # one pair
    assert plan["tflop"] == pytest.approx(plan["frames"] * plan["tflop_step_per_frame"])
    assert run_train(replace(settings, max_updates=3, epochs=2))["frames"] == 34


def test_a_plan_counts_four_bit_weights(world, tmp_path):
    settings = replace(world, out=tmp_path / "none", lora_rank=2, dry_run=True, memory_gb=0.02)
    plain, small = run_train(settings), run_train(replace(settings, load_in_4bit=True))
    shape = load_policy(world.policy).config.text
    linears = 4 * shape["hidden_size"] ** 2 + 3 * shape["hidden_size"] * shape["intermediate_size"]
    saved = shape["num_hidden_layers"] * linears * (4 - 0.5625) / 1e9
    assert plain["peak_memory_gb"] - small["peak_memory_gb"] == pytest.approx(saved, abs=1.1e-3)
    assert small["memory_gb"] == plain["memory_gb"] == 0.02
    assert small["largest_micro_batch"] >= plain["largest_micro_batch"] > 0


def test_filtered_bc_leaves_failures_out(world, tmp_path):
    store = EpisodeStore.open(world.pairs.parent / "store")
    settings = replace(world, out=tmp_path / "run", method="filtered-bc", dry_run=True)
    # toy-1 and toy-5 failed; toy-0 is imitated once although two pairs chose it.
    mixed = write_pairs(tmp_path / "mixed", store, ((0, 1), (0, 5), (1, 5)))
    plan = run_train(replace(settings, pairs=mixed))
    assert (plan["episodes"], plan["steps"]) == (1, 5)
    failed = write_pairs(tmp_path / "failed", store, ((1, 5),))
    with pytest.raises(DataError, match="No chosen trajectory is known to have succeeded"):
        run_train(replace(settings, pairs=failed))


def test_a_recomputed_reference_agrees_with_the_recorded_one(world, tmp_path):
    recorded = run_train(replace(world, out=tmp_path / "recorded"))
    recomputed = run_train(replace(world, out=tmp_path / "recomputed", reference="recomputed"))
    assert recomputed["parity"] is None
    assert recomputed["metrics"] == pytest.approx(recorded["metrics"], rel=1e-3, abs=1e-4)


def test_lora_leaves_the_base_alone_and_can_be_stacked(world, tmp_path):
    start = snapshot(world.policy)
    first = run_train(replace(world, out=tmp_path / "one", lora_rank=2))
    assert snapshot(world.policy) == start
    assert 0 < first["trainable_parameters"] < first["parameters"] / 2
    policy = load_policy(tmp_path / "one" / "policy")
    assert policy.spec.policy_hash == first["policy_hash"]
    with policy.adapter.disable_adapter():
        pass
    # The next iteration: the adapted policy collects and is trained again.
    store = record(tmp_path / "store", tmp_path / "one" / "policy")
    pairs = write_pairs(tmp_path / "pairs", store)
    settings = replace(world, pairs=pairs, policy=tmp_path / "one" / "policy", out=tmp_path / "two", lora_rank=2)
    second = run_train(settings)
    assert load_policy(tmp_path / "two" / "policy").spec.policy_hash == second["policy_hash"]
    assert read_json(tmp_path / "two" / "policy" / "grape_adapter.json") == {
        "base": os.path.relpath(world.policy, tmp_path / "two" / "policy")
    }
    assert not (tmp_path / "two" / "base").exists()
    full = run_train(replace(settings, out=tmp_path / "three", lora_rank=0))
    assert load_policy(tmp_path / "three" / "policy").spec.policy_hash == full["policy_hash"]


def test_the_next_iteration_trains_the_same_adapter_and_loses_no_change_in_bfloat16(world, tmp_path):
    """At lr 2e-5 nearly every change of a weight is below bfloat16's rounding: a merge would lose it."""
    plain = replace(world, lora_rank=2, lr=2e-5, dtype="bfloat16", max_updates=1)
    start = write_pairs(tmp_path / "pairs-1", record(tmp_path / "store-1", world.policy, dtype="bfloat16"))
    one = replace(plain, pairs=start, out=tmp_path / "one")
    hash_one = run_train(one)["policy_hash"]
    adapter = one.out / "policy"
    collected = load_policy(adapter, dtype="bfloat16")
    assert collected.spec.policy_hash == hash_one
    with collected.adapter.disable_adapter():
        assert collected.spec.policy_hash == load_policy(world.policy, dtype="bfloat16").spec.policy_hash != hash_one
    assert load_policy(adapter, dtype="bfloat16", merge=True).spec.policy_hash != hash_one
    pairs = write_pairs(tmp_path / "pairs-2", record(tmp_path / "store-2", adapter, dtype="bfloat16"))
    two = replace(plain, pairs=pairs, policy=adapter, out=tmp_path / "two", lr=0.0)
    assert run_train(two)["start_policy_hash"] == hash_one
    before, after = (load_file(run.out / "policy" / "adapter_model.safetensors") for run in (one, two))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(float(before[name].abs().max()) > 0 for name in before if "lora_B" in name)
    run_train(replace(two, out=tmp_path / "three", lr=2e-5))
    further = load_file(tmp_path / "three" / "policy" / "adapter_model.safetensors")
    moved = [(further[name] - before[name]).abs().max() for name in before]
    assert 0 < max(moved) < 5e-5
    for changes, flag in (({"lora_rank": 3}, "rank"), ({"lora_targets": "all"}, "targets"), ({"lora_rank": 0}, "rank")):
        for dry_run in (False, True):
            with pytest.raises(SettingsError, match=f"is an adapter.*--lora-{flag}") as caught:
                run_train(replace(two, out=tmp_path / "refused", dry_run=dry_run, **changes))
            assert "to train the adapter on" in caught.value.hint
    assert not (tmp_path / "refused").exists()
    (tmp_path / "old" / "base").mkdir(parents=True)
    shutil.copyfile(two.out / "run.json", tmp_path / "old" / "run.json")
    with pytest.raises(CompatibilityError, match=r"begun by release 0\.1, which merged the adapter"):
        run_train(replace(two, out=tmp_path / "old"))


def test_another_policy_is_refused_unless_the_reference_is_recomputed(world, tmp_path):
    other = write_policy(tmp_path / "other", seed=1)
    settings = replace(world, policy=other, out=tmp_path / "run")
    with pytest.raises(CompatibilityError, match="recorded by another policy") as caught:
        run_train(settings)
    assert "--reference recomputed" in caught.value.hint
    assert not settings.out.exists()
    first = run_train(replace(settings, reference="recomputed"))
    assert first["metrics"]["update"] == 4
    row = read_jsonl(settings.out / "metrics.jsonl")[0]
    assert row["loss/preference"] == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preprocessing_hash": "0" * 64}, "other preprocessing"),
        ({"prompt": "Do it!"}, "with the prompt 'Do it!'"),
        ({"actor": "expert"}, "played by an expert"),
    ],
)
def test_foreign_recordings_are_refused_before_any_work(world, tmp_path, changes, message):
    store = record(tmp_path / "store", world.policy, **changes)
    settings = replace(world, pairs=write_pairs(tmp_path / "pairs", store), out=tmp_path / "run")
    with pytest.raises(CompatibilityError, match=message):
        run_train(settings)
    assert not settings.out.exists()


def test_parity_alarm(world, tmp_path):
    """Right hashes but other images: the tokens' log-probabilities give it away."""
    source = EpisodeStore.open(world.pairs.parent / "store")
    store = EpisodeStore.create(tmp_path / "store", source.suite, source.contract)
    for name in source.ids():
        episode = source.read(name)
        store.write(replace(episode, frames=255 - episode.frames))
    settings = replace(world, pairs=write_pairs(tmp_path / "pairs", store), out=tmp_path / "run")
    with pytest.raises(CompatibilityError, match="Recorded and recomputed") as caught:
        run_train(settings)
    assert "preprocessing of images" in caught.value.hint
    assert not (settings.out / "policy").exists()
    run_train(replace(settings, out=tmp_path / "loose", parity_threshold=100.0))


def test_a_merge_that_rounds_differs_more_than_batches_do(tmp_path):
    """The collector's adapter beside bfloat16 weights against the same adapter merged into them."""
    actions = np.random.default_rng(7).uniform(-1, 1, size=(200, len(NAMES)))
    statistics = compute_norm_stats(actions, NAMES)
    nano = create_nano(seed=0, norm_stats=statistics, gripper="+1 closes", instructions=INSTRUCTIONS)
    save_policy(nano, tmp_path / "base")
    policy = load_policy(tmp_path / "base")
    add_adapters(policy, 16, 0.0, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:  # as after five updates at lr 2e-5
                parameter.copy_(1e-4 * torch.randn(parameter.shape, generator=generator).sign())
    save_result(policy, tmp_path / "start", tmp_path / "base")
    adapter = tmp_path / "start" / "policy"
    store = record(tmp_path / "store", adapter, dtype="bfloat16")
    steps = load_steps([store], [store.ids()], SILENT)
    collector = load_policy(adapter, dtype="bfloat16")
    alarm = parity_alarm(None, collector.module)
    assert parity_alarm(None, nano.module) < alarm == 0.05
    assert parity_alarm(0.3, collector.module) == 0.3
    kept = check_parity(StepLogprobs(collector, steps, 8), steps, 34, alarm, 0, 8, tmp_path / "kept.json")["mean_abs"]
    merged = StepLogprobs(load_policy(adapter, dtype="bfloat16", merge=True), steps, 8)
    with pytest.raises(CompatibilityError, match=r"differ by 0\.0"):
        check_parity(merged, steps, 34, 1.2 * kept, 0, 8, tmp_path / "merged.json")


def test_no_pairs_and_missing_store(world, tmp_path):
    store = EpisodeStore.open(world.pairs.parent / "store")
    with pytest.raises(DataError, match="no pairs"):
        run_train(replace(world, pairs=write_pairs(tmp_path / "empty", store, ()), out=tmp_path / "run"))
    lost = write_pairs(tmp_path / "lost", store)
    write_json(lost / "done.json", {"store": str(tmp_path / "gone")})
    with pytest.raises(DataError, match="does not exist"):
        run_train(replace(world, pairs=lost, out=tmp_path / "run"))
    stray = write_pairs(tmp_path / "stray", store, ((0, 99),))
    with pytest.raises(DataError, match="toy-99"):
        run_train(replace(world, pairs=stray, out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"lr": -1.0}, "--lr"),
        ({"beta": float("nan")}, "--beta"),
        ({"beta": 0.0}, "--beta"),
        ({"micro_batch": -1}, "--micro-batch"),
        ({"label_smoothing": 0.1, "loss_type": "ipo"}, "--label-smoothing"),
        ({"stride": 2}, "--stride"),
        ({"window": 8, "method": "step-dpo"}, "--window"),
        ({"holdout": 1.0}, "--holdout"),
        ({"load_in_4bit": True}, "4 bits"),
        ({"sharding": "full", "lora_rank": 2}, "--sharding full"),
        ({"sharding": "full", "gradient": "one-pass"}, "--sharding full"),
        ({"attention": "flash-attention-2"}, "Flash attention"),
    ],
)
def test_settings_out_of_range(world, changes, flag):
    with pytest.raises(SettingsError, match=flag):
        run_train(replace(world, **changes))


@pytest.mark.parametrize("poison", ["loss", "gradient"])
@pytest.mark.parametrize("mode", ["one-pass", "two-pass"])
def test_nonsense_stops_training_and_names_the_pair(world, tmp_path, monkeypatch, poison, mode):
    settings = replace(world, out=tmp_path / "run", gradient=mode, pairs_per_update=3)
    honest = StepLogprobs.sums
    third = settings.out / "checkpoints" / "update-000003"  # between two updates, not between two passes of one

    def poisoned(self, segments):
        logps = honest(self, segments)
        start, stop = self.steps.spans["toy-3"]
        hit = (segments.rows_F >= start) & (segments.rows_F < stop)
        if third.exists():
            if poison == "loss":
                logps = torch.where(hit, torch.nan, logps)
            elif logps.requires_grad:
                logps.register_hook(lambda gradient: torch.where(hit, torch.inf, gradient))
        return logps

    monkeypatch.setattr(StepLogprobs, "sums", poisoned)
    settings = replace(settings, epochs=6)
    with pytest.raises(TrainingError, match=f"the {poison} is not finite") as caught:
        run_train(settings)
    assert "pair pair-1" in caught.value.message
    assert "pair-0" not in caught.value.message
    rows = read_jsonl(settings.out / "metrics.jsonl")
    kept = sorted((settings.out / "checkpoints").glob("update-*"))
    assert len(kept) == 2
    assert kept[-1].name == f"update-{len(rows):06d}"
    assert not (settings.out / "policy").exists()
    # With the cause gone, the same command goes on from there, to the result of an undisturbed run.
    monkeypatch.setattr(StepLogprobs, "sums", honest)
    run_train(settings)
    run_train(replace(settings, out=tmp_path / "undisturbed"))
    assert snapshot(settings.out) == snapshot(tmp_path / "undisturbed")


def test_a_pair_of_two_instructions_is_refused(world, tmp_path):
    store = EpisodeStore.open(world.pairs.parent / "store")
    assert store.meta("toy-0").instruction != store.meta("toy-3").instruction
    mixed = write_pairs(tmp_path / "mixed", store, ((0, 3),))
    with pytest.raises(DataError, match=r"(?s)two instructions: 'open the drawer' and .*Make the pairs again"):
        run_train(replace(world, out=tmp_path / "run", pairs=mixed))


def test_instructions_that_differ_in_case_alone_are_one(world, tmp_path, monkeypatch):
    store = EpisodeStore.open(world.pairs.parent / "store")
    known = EpisodeStore.meta

    def shouting(self, name):
        meta = known(self, name)
        return replace(meta, instruction=meta.instruction.upper()) if name == "toy-1" else meta

    monkeypatch.setattr(EpisodeStore, "meta", shouting)
    pairs = write_pairs(tmp_path / "pairs", store, ((0, 1),))
    assert run_train(replace(world, out=tmp_path / "run", pairs=pairs, dry_run=True))["pairs"] == 1
