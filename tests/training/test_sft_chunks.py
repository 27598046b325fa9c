"""Fine-tuning of policies that decide in chunks: from demonstrations to a policy that acts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from grape.collect import CollectSettings, run_collect
from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.core.files import read_json, read_jsonl
from grape.core.trajectories import Observation
from grape.evaluation import EvaluateSettings, run_evaluate
from grape.policies.registry import open_policy
from grape.policies.types import OpeningOptions
from grape.store import EpisodeStore
from grape.training import SftSettings, run_sft
from grape.training.augmentation import augment, augment_observations
from grape.training.loop import TrainLoop
from tests.openvla_oft.conftest import LIBERO, golden, make_nano
from tests.training.recordings import record_chunks, snapshot, write_policy
from tests.training.test_sft import demonstrate

__all__ = ["golden"]

CHUNK = 4


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("chunks")


@pytest.fixture(scope="module")
def demonstrations(root):
    """Expert episodes of format version 1: every control step has an image."""
    run_collect(CollectSettings(out=root / "demos", suite="toy", policy="expert", initial_states="0-7", workers=1))
    return root / "demos" / "store"


@pytest.fixture(scope="module")
def trained(root, demonstrations):
    """A nano policy that decides on four actions at once and reads the robot's state, and its settings."""
    chosen = SftSettings(
        data=(demonstrations,),
        out=root / "sft",
        chunk=CHUNK,
        proprio=True,
        max_updates=30,
        batch_size=16,
        checkpoint_every=10,
        holdout=0.1,
    )
    return chosen, run_sft(chosen)


def test_single_steps_teach_chunks(trained, demonstrations):
    chosen, summary = trained
    rows = read_jsonl(chosen.out / "metrics.jsonl")
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]
    assert rows[-1]["token_accuracy"] > rows[0]["token_accuracy"] + 0.2
    assert summary["holdout"]["loss"] < rows[0]["holdout/loss"]
    assert summary["held_out_episodes"] == 2
    store = EpisodeStore.open(demonstrations)
    assert summary["steps"] == sum(meta.steps for meta in store.metas())
    assert "decisions" not in summary
    policy = open_policy(summary["policy"])
    assert (policy.spec.chunk, policy.spec.action_dim, policy.spec.proprio_dim) == (CHUNK, 7, 4)
    assert policy.spec.policy_hash == summary["policy_hash"]
    assert policy.spec.gripper == "+1 closes"
    assert policy.spec.support == "window"
    assert policy.facts()["layout"]["placeholders"] == "per-action"


def test_it_acts_better_than_one_that_learned_nothing(trained, tmp_path):
    chosen, _ = trained
    rates = {}
    for updates in (1, 200):
        summary = run_sft(replace(chosen, out=tmp_path / f"sft-{updates}", max_updates=updates, checkpoint_every=0))
        evaluation = EvaluateSettings(
            policy=summary["policy"], out=tmp_path / f"evaluation-{updates}", suite="toy", initial_states="0-7",
            workers=1,
        )  # fmt: skip
        rates[updates] = run_evaluate(evaluation)["successes"]
    assert rates[200] >= rates[1] + 4


def test_a_run_resumes_to_the_same_bytes(trained, tmp_path):
    chosen, _ = trained
    honest = TrainLoop._update

    def dying(self, update, *rest):
        if update == 15:
            raise KeyboardInterrupt
        return honest(self, update, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainLoop, "_update", dying)
        with pytest.raises(KeyboardInterrupt):
            run_sft(replace(chosen, out=tmp_path / "again"))
    run_sft(replace(chosen, out=tmp_path / "again"))
    assert snapshot(tmp_path / "again") == snapshot(chosen.out)
    with pytest.raises(CompatibilityError, match="chunk was 4, now 3"):
        run_sft(replace(chosen, out=tmp_path / "again", chunk=3))


def test_a_checkpoint_goes_on_as_it_was_made(trained, demonstrations, tmp_path):
    policy = Path(trained[1]["policy"])
    going_on = SftSettings(data=(demonstrations,), out=tmp_path / "on", policy=policy, max_updates=1, batch_size=8)
    summary = run_sft(going_on)
    before, after = open_policy(policy).spec, open_policy(summary["policy"]).spec
    assert (after.chunk, after.proprio_dim, after.preprocessing_hash) == (CHUNK, 4, before.preprocessing_hash)
    assert after.policy_hash != before.policy_hash
    named = run_sft(replace(going_on, out=tmp_path / "named", norm_key="other"))
    opened = open_policy(named["policy"])
    assert (opened.spec.unnorm_key, opened.unnorm_key, named["norm_key"]) == ("other", "other", "other")
    assert np.array_equal(opened.norm_proprio.low, open_policy(policy).norm_proprio.low)
    assert open_policy(named["policy"], OpeningOptions(unnorm_key="toy")).unnorm_key == "toy"


def test_a_camera_that_shows_what_matters_is_read(tmp_path):
    store = demonstrate(tmp_path / "store", side=64, camera="wrist")
    chosen = SftSettings(
        data=(store,), out=tmp_path / "both", cameras="agentview,wrist", max_updates=100, batch_size=16
    )
    both, one = run_sft(chosen), run_sft(replace(chosen, out=tmp_path / "one", cameras=""))
    assert both["loss"] < one["loss"] - 0.15
    policy = open_policy(both["policy"])
    assert policy.spec.cameras == ("agentview", "wrist")
    episode = EpisodeStore.open(store).read("demo-1")
    seen = [
        Observation(episode.frames[0], episode.proprio[0], episode.meta.instruction, {"wrist": image})
        for image in episode.cameras["wrist"][[0, 1]]
    ]
    logps = policy.act(seen).logps
    assert not np.array_equal(logps[0], logps[1])
    assert policy.spec.chunk == 1
    chunks = run_sft(replace(chosen, out=tmp_path / "chunks", chunk=2, max_updates=1, augment="openvla"))
    opened = open_policy(chunks["policy"])
    assert (opened.spec.chunk, opened.spec.cameras, opened.conventions.center_crop) == (2, ("agentview", "wrist"), True)


def test_decisions_of_another_policy_serve_as_demonstrations(tmp_path):
    """A store of chunks: its images are before decisions, the labels are those of control steps."""
    other = make_nano(chunk=3)
    store = record_chunks(tmp_path / "store", other)
    chosen = SftSettings(data=(store.path,), out=tmp_path / "run", chunk=5, max_updates=1, batch_size=4)
    summary = run_sft(chosen)
    executed = [store.read(name).chunks.executed for name in store.ids()]
    assert summary["decisions"] == sum(map(len, executed))
    assert summary["steps"] == sum(int(counts.sum()) for counts in executed)
    assert open_policy(summary["policy"]).spec.chunk == 5
    plan = run_sft(replace(chosen, out=tmp_path / "plan", dry_run=True, max_updates=0))
    assert (plan["steps"], plan["decisions"]) == (summary["steps"], summary["decisions"])
    assert run_sft(replace(chosen, out=tmp_path / "single", chunk=0))["decisions"] == summary["decisions"]


def test_a_published_checkpoint_is_fine_tuned(golden, tmp_path):
    store = demonstrate(tmp_path / "store", episodes=2, steps=3)
    chosen = SftSettings(
        data=(store,), out=tmp_path / "run", policy=golden.checkpoint(), preset="simplevla-rl",
        unnorm_key="libero_spatial", max_updates=1, batch_size=2, lr=1e-2, augment="openvla",
    )  # fmt: skip
    summary = run_sft(chosen)
    assert summary["norm_key"] == LIBERO
    start, policy = golden.policy("simplevla-rl"), open_policy(summary["policy"])
    assert policy.spec.policy_hash == summary["policy_hash"]
    assert policy.conventions == replace(start.conventions, center_crop=True)
    assert (policy.spec.chunk, policy.unnorm_key) == (8, LIBERO)
    assert set(policy.config.norm_stats) == set(start.config.norm_stats)
    inputs = [one.encode_images([golden.images[:1]], ["open the drawer"], crop=False) for one in (start, policy)]
    tokens = torch.from_numpy(start.decide(inputs[0]).tokens).long()
    with torch.no_grad():
        before, after = (one.token_logps(some, tokens) for one, some in zip((start, policy), inputs, strict=True))
    assert not torch.equal(before, after)
    own = run_sft(replace(chosen, out=tmp_path / "own", unnorm_key=""))
    assert own["norm_key"] == open_policy(own["policy"]).unnorm_key == "toy"


def test_adapters_of_a_published_checkpoint_train(golden, tmp_path):
    store = demonstrate(tmp_path / "store", episodes=2, steps=3)
    chosen = SftSettings(
        data=(store,),
        out=tmp_path / "run",
        policy=golden.checkpoint(),
        preset="openvla-oft",
        lora_rank=2,
        unnorm_key=LIBERO,
        max_updates=1,
        batch_size=2,
    )
    summary = run_sft(chosen)
    assert summary["trainable_parameters"] < summary["parameters"] / 2
    adapter = load_file(Path(summary["policy"]) / "adapter_model.safetensors")
    assert any(float(value.abs().max()) > 0 for name, value in adapter.items() if "lora_B" in name)
    opened = open_policy(summary["policy"])
    assert (opened.spec.policy_hash, opened.spec.chunk) == (summary["policy_hash"], 8)
    plan = run_sft(replace(chosen, out=tmp_path / "plan", dry_run=True))
    assert plan["trainable_parameters"] == summary["trainable_parameters"]


def test_the_first_loss_is_the_likelihood_of_the_labels(golden, tmp_path):
    """Cross-entropy of one-hot labels is what the policy's own log-probabilities say, at temperature 1."""
    store = demonstrate(tmp_path / "store", episodes=1, steps=3)
    chosen = SftSettings(
        data=(store,), out=tmp_path / "run", policy=golden.checkpoint(), preset="simplevla-rl", lr=0.0,
        convention=("temperature=1",), unnorm_key=LIBERO, max_updates=1, batch_size=3,
    )  # fmt: skip
    summary = run_sft(chosen)
    policy, episode = golden.policy("simplevla-rl", changes=("temperature=1",)), EpisodeStore.open(store).read("demo-0")
    total = []
    for start in range(3):
        labels = np.pad(episode.labels[start:], ((0, 8 - (3 - start)), (0, 0)))
        tokens = torch.from_numpy(policy.action_tokens(labels)[None]).long()
        inputs = policy.encode([Observation(episode.frames[start], episode.proprio[0], episode.meta.instruction)])
        with torch.no_grad():
            total.append(-float(policy.token_logps(inputs, tokens)[0, : 3 - start].mean()))
    assert summary["loss"] == pytest.approx(np.mean(total), abs=1e-4)


def test_plans_know_chunks(trained, demonstrations, tmp_path):
    chosen, summary = trained
    plan = run_sft(replace(chosen, out=tmp_path / "plan", dry_run=True))
    assert not (tmp_path / "plan").exists()
    for name in ("episodes", "steps", "updates", "held_out_episodes", "parameters"):
        assert plan[name] == summary[name], name
    longer = run_sft(replace(chosen, out=tmp_path / "plan", dry_run=True, chunk=8))
    assert longer["tflop_forward_per_frame"] > 1.05 * plan["tflop_forward_per_frame"]
    going_on = SftSettings(data=(demonstrations,), out=tmp_path / "plan", policy=Path(summary["policy"]), dry_run=True)
    assert run_sft(going_on)["tflop_forward_per_frame"] == plan["tflop_forward_per_frame"]


def test_what_cannot_be_trained_is_refused_before_anything_is_written(golden, trained, demonstrations, tmp_path):
    out, policy = tmp_path / "out", Path(trained[1]["policy"])
    new = SftSettings(data=(demonstrations,), out=out, chunk=CHUNK, max_updates=1)
    going_on = replace(new, policy=policy, chunk=0)
    narrow = demonstrate(tmp_path / "narrow", episodes=2, steps=3, side=64)
    oft = replace(new, chunk=0, data=(narrow,), policy=golden.checkpoint("libero/action_head--1_checkpoint.pt"))
    for settings_, error, words in [
        (replace(new, cameras="agentview,wrist"), CompatibilityError, "has none of wrist, but of the main camera"),
        (replace(new, cameras="agentview,agentview"), SettingsError, "a name of its own"),
        (replace(going_on, chunk=6), CompatibilityError, "chunk of 6 actions is asked for; the checkpoint decides 4"),
        (replace(going_on, cameras="agentview,wrist"), CompatibilityError, "Images of 2 cameras"),
        (replace(going_on, cameras="front"), SettingsError, "reads agentview"),
        (replace(going_on, data=(narrow,)), CompatibilityError, "reads 4 numbers of the robot's state.* have 1"),
        (replace(new, preset="rlinf"), SettingsError, "--preset rlinf is for --policy"),
        (replace(new, chunk=0, convention=("attention=causal",)), SettingsError, "--convention is for policies"),
        (replace(new, convention=("attention=both",)), SettingsError, "attention"),
        (replace(new, policy=write_policy(tmp_path / "plain")), SettingsError, "taken for plain OpenVLA"),
        (replace(oft, unnorm_key=LIBERO), SettingsError, "regression head.* no token head"),
    ]:
        for dry_run in (True, False):
            with pytest.raises(error, match=words):
                run_sft(replace(settings_, dry_run=dry_run))
    assert not out.exists()
    store = demonstrate(tmp_path / "store", side=64, camera="wrist")
    with pytest.raises(CompatibilityError, match="first camera is 'wrist', which is a further camera"):
        run_sft(replace(new, data=(store,), cameras="wrist"))
    with pytest.raises(DataError, match=r"has 4 numbers in episode .*, 1 in episode"):
        run_sft(replace(new, data=(demonstrations, narrow), proprio=True))


def test_settings_that_release_0_1_did_not_have_count_only_where_they_are_given(trained, demonstrations, tmp_path):
    plain = SftSettings(data=(demonstrations,), out=tmp_path / "run", max_updates=1, batch_size=4)
    run_sft(plain)
    identity = read_json(tmp_path / "run" / "run.json")["settings"]
    assert identity["preset"] == "nano"
    assert not {"chunk", "cameras", "convention", "proprio"} & identity.keys()
    (tmp_path / "run" / "done.json").unlink()
    assert run_sft(replace(plain, preset="nano"))["updates"] == 1
    chunked = read_json(trained[0].out / "run.json")["settings"]
    assert chunked["chunk"] == CHUNK


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), batch=st.integers(1, 4), recipe=st.sampled_from(["none", "openvla"]))
def test_all_cameras_of_an_observation_change_alike(seed, batch, recipe):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (batch, 16, 16, 3), dtype=np.uint8)
    other = rng.integers(0, 256, (batch, 16, 16, 3), dtype=np.uint8)
    observations = [
        Observation(image, np.zeros(1, np.float32), "go", {"wrist": image, "other": apart})
        for image, apart in zip(images, other, strict=True)
    ]

    def change(some):
        shift, brightness = (3, 0.2) if recipe == "none" else (0, 0.0)
        return augment(some, recipe, shift, brightness, np.random.default_rng(seed))

    changed = augment_observations(observations, change)
    for row, observation in enumerate(changed):
        np.testing.assert_array_equal(observation.image, change(images)[row])
        np.testing.assert_array_equal(observation.image, observation.cameras["wrist"])
        np.testing.assert_array_equal(observation.cameras["other"], change(other)[row])
        assert observation.instruction == "go"
