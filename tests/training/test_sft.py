import math
import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from safetensors.torch import load_file

from grape.core.errors import CompatibilityError, DataError, SettingsError, TrainingError
from grape.core.events import SilentReporter
from grape.core.files import read_json, read_jsonl
from grape.core.provenance import read_provenance
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.policies.openvla import OpenVLAPolicy, load_policy
from grape.store import EpisodeStore
from grape.training import SftSettings, run_sft
from grape.training.loop import TrainLoop
from tests.training.recordings import INSTRUCTIONS, NAMES, SIDE, snapshot, write_policy


def demonstrate(path, episodes=6, steps=8, side=SIDE, labels=None, camera=""):
    """Store of demonstrations whose right action can be read off the image and the instruction.

    With ``camera`` the image is that camera's, and the main camera shows nothing.
    """
    store = EpisodeStore.create(path, "toy", {"action_space": {"names": list(NAMES), "gripper": "+1 closes"}})
    for index in range(episodes):
        rng = np.random.default_rng(index)
        bright = rng.uniform(0, 1, size=steps + 1)
        frames = np.broadcast_to((255 * bright).astype(np.uint8)[:, None, None, None], (steps + 1, side, side, 3))
        right = np.zeros((steps, 7), np.float32)
        right[:, 0] = 2 * bright[:-1] - 1
        right[:, 6] = 1.0 if index % 2 else -1.0
        store.write(
            Trajectory(
                meta=EpisodeMeta(
                    episode_id=f"demo-{index}",
                    suite="toy",
                    task="task",
                    task_index=0,
                    instruction=INSTRUCTIONS[index % 2],
                    initial_state=index,
                    sample=0,
                    seed=index,
                    success=index != 0,
                    steps=steps,
                    actor="expert",
                    operator="clean" if index % 3 else "sloppy",
                ),
                frames=np.zeros_like(frames) if camera else frames.copy(),
                cameras={camera: frames.copy()} if camera else {},
                proprio=np.zeros((steps + 1, 1), np.float32),
                actions=right + rng.normal(0, 0.3, right.shape).astype(np.float32),  # executed with noise
                labels=right if labels is None else labels(right),
                action_tokens=np.full((steps, 7), -1, np.int32),
                token_logps=np.full((steps, 7), np.nan, np.float32),
                keypoints={},
                signals={"success": np.zeros(steps + 1, np.float32)},
            )
        )
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Settings that continue a tiny policy on tiny demonstrations."""
    root = tmp_path_factory.mktemp("world")
    return SftSettings(
        data=(demonstrate(root / "store"),),
        out=root / "unused",
        policy=write_policy(root / "policy"),
        epochs=3,
        batch_size=16,
        micro_batch=16,
        lr=1e-2,
        checkpoint_every=4,
        unnorm_key="grape",
    )


def test_it_learns_the_labels_and_not_the_executed_actions(world, tmp_path):
    settings = replace(world, out=tmp_path / "run", epochs=60, soft_bins=0.0, weight_decay=0.0, checkpoint_every=0)
    summary = run_sft(settings)
    rows = read_jsonl(settings.out / "metrics.jsonl")
    assert rows[-1]["token_accuracy"] > 0.9
    assert rows[-1]["loss"] < 0.3 < rows[0]["loss"]
    assert summary["steps"] == 48
    assert summary["updates"] == 180
    assert read_provenance(settings.out / "policy").collected == {"toy": {"task": frozenset(range(6))}}
    policy = load_policy(settings.out / "policy")
    assert policy.spec.policy_hash == summary["policy_hash"]
    episode = EpisodeStore.open(world.data[0]).read("demo-1")
    from grape.core.trajectories import Observation

    decided = policy.act([Observation(f, episode.proprio[0], episode.meta.instruction) for f in episode.frames[:-1]])
    assert np.abs(decided.actions[:, 0, 0] - episode.labels[:, 0]).mean() < 0.25
    assert (decided.actions[:, 0, 6] > 0.5).all()


def test_a_new_nano_policy_fits_the_store(world, tmp_path):
    store = demonstrate(tmp_path / "store", episodes=3, steps=4, side=64)
    settings = replace(world, data=(store,), policy=None, unnorm_key="", out=tmp_path / "run", epochs=1, max_updates=2)
    summary = run_sft(settings)
    policy = load_policy(tmp_path / "run" / "policy")
    assert policy.spec.gripper == "+1 closes"
    assert policy.spec.unnorm_key == "toy"
    assert 500_000 < summary["parameters"] < 1_500_000
    assert policy.config.norm_stats["toy"]["action"]["mask"] == [True] * 6 + [False]
    assert math.isfinite(summary["metrics"]["loss"])
    # A store's folder of 'grape collect' will do as well, and the same seed gives the same weights.
    again = run_sft(replace(settings, out=tmp_path / "again"))
    assert again | {"policy": ""} == summary | {"policy": ""}
    assert summary["policy"] == str(tmp_path / "run" / "policy")
    assert snapshot(tmp_path / "again") == snapshot(tmp_path / "run")
    other = run_sft(replace(settings, out=tmp_path / "other", seed=1))
    assert other["policy_hash"] != summary["policy_hash"]


def test_a_complete_run_is_returned_and_other_settings_are_refused(world, tmp_path):
    settings = replace(world, out=tmp_path / "run")
    summary = run_sft(settings)
    assert run_sft(settings) == summary
    with pytest.raises(CompatibilityError, match="epochs was 3, now 4"):
        run_sft(replace(settings, epochs=4))


def test_micro_batches_add_up_to_the_batch(world, tmp_path):
    for size in (16, 5):
        run_sft(replace(world, out=tmp_path / str(size), micro_batch=size))
    for one, two in zip(*(read_jsonl(tmp_path / str(size) / "metrics.jsonl") for size in (16, 5)), strict=True):
        assert one == pytest.approx(two, rel=1e-3)


def test_options(world, tmp_path):
    run_sft(replace(world, out=tmp_path / "plain"))
    augmented = run_sft(replace(world, out=tmp_path / "augmented", augment_shift=2, augment_brightness=0.1))
    assert augmented["metrics"]["loss"] != read_jsonl(tmp_path / "plain" / "metrics.jsonl")[-1]["loss"]
    successful = run_sft(replace(world, out=tmp_path / "successful", successful_only=True))
    assert successful["episodes"] == 5
    held = run_sft(replace(world, out=tmp_path / "held", holdout=0.34))
    assert held["held_out_episodes"] == 2
    assert math.isfinite(held["holdout"]["loss"])
    rows = read_jsonl(tmp_path / "held" / "metrics.jsonl")
    assert [row["update"] for row in rows if "holdout/loss" in row] == [1, 3, 5]
    longer = run_sft(replace(world, out=tmp_path / "longer", max_updates=20))
    assert longer["updates"] == 20
    two_stores = run_sft(replace(world, out=tmp_path / "two", data=(*world.data, *world.data)))
    assert two_stores["episodes"] == 12


def test_adapters(world, tmp_path):
    summary = run_sft(replace(world, out=tmp_path / "run", lora_rank=2))
    assert summary["trainable_parameters"] < summary["parameters"] / 2
    adapter = load_file(tmp_path / "run" / "policy" / "adapter_model.safetensors")
    assert all(".lora_" in name for name in adapter)
    assert any(float(value.abs().max()) > 0 for name, value in adapter.items() if "lora_B" in name)
    assert load_policy(tmp_path / "run" / "policy").spec.policy_hash == summary["policy_hash"]
    assert read_json(tmp_path / "run" / "policy" / "adapter_config.json")["peft_type"] == "LORA"
    with pytest.raises(SettingsError, match="needs --policy"):
        run_sft(replace(world, out=tmp_path / "new", lora_rank=2, policy=None, unnorm_key=""))


def test_bad_input_is_named_before_any_work(world, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(DataError, match="does not exist"):
        run_sft(replace(world, data=(tmp_path / "nowhere",), out=out))
    empty = EpisodeStore.create(tmp_path / "empty", "toy", {})
    with pytest.raises(DataError, match="no episode"):
        run_sft(replace(world, data=(empty.path,), out=out))
    failed = demonstrate(tmp_path / "failed", episodes=1)
    with pytest.raises(DataError, match="no episode that is known to have succeeded"):
        run_sft(replace(world, data=(failed,), out=out, successful_only=True))
    with pytest.raises(SettingsError, match="--data"):
        run_sft(replace(world, data=(), out=out))
    with pytest.raises(SettingsError, match="--holdout"):
        run_sft(replace(world, holdout=1.0, out=out))
    assert not out.exists()
    broken = demonstrate(tmp_path / "broken", episodes=2, labels=lambda right: np.where(right == 0, np.nan, right))
    with pytest.raises(DataError, match="Episode demo-0 has labels that are not finite"):
        run_sft(replace(world, data=(broken,), out=out))


def test_a_loss_that_is_not_finite_names_the_episode(world, tmp_path, monkeypatch):
    from grape.training import sft

    honest = sft._Trainer._losses

    def poisoned(self, rows, images, **options):
        loss, right = honest(self, rows, images, **options)
        start, stop = self.steps.spans["demo-2"]
        loss = loss.masked_fill(loss.new_tensor((rows >= start) & (rows < stop)).bool(), float("nan"))
        return loss, right

    monkeypatch.setattr(sft._Trainer, "_losses", poisoned)
    with pytest.raises(TrainingError, match=r"the loss is not finite \(episode demo-2\)"):
        run_sft(replace(world, out=tmp_path / "run"))
    assert not (tmp_path / "run" / "policy").exists()


def test_the_plan_touches_nothing_and_is_what_happens(world, tmp_path):
    settings = replace(world, out=tmp_path / "run", holdout=0.34)
    plan = run_sft(replace(settings, dry_run=True))
    assert not settings.out.exists()
    summary = run_sft(settings)
    for name in ("episodes", "steps", "updates", "held_out_episodes", "parameters", "trainable_parameters"):
        assert plan[name] == summary[name], name
    assert plan["tflop"] > 0
    assert run_sft(replace(settings, policy=None, unnorm_key="", dry_run=True))["parameters"] > 500_000


def test_trackers_get_each_update_and_change_nothing(world, tmp_path, monkeypatch):
    from grape.training import metrics_logger

    heard = []

    class Ear:
        def log(self, metrics, step):
            heard.append((step, metrics["loss"]))

        def close(self):
            heard.append("closed")

    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))
    monkeypatch.setattr(metrics_logger, "open_trackers", lambda names, *rest: heard.append(names) or Ear())
    run_sft(replace(world, out=tmp_path / "heard", report_to=("wandb",)))
    rows = read_jsonl(tmp_path / "heard" / "metrics.jsonl")
    assert heard == [("wandb",), *((row["update"], row["loss"]) for row in rows), "closed"]


def test_few_episodes_in_memory_give_the_same_policy(world, tmp_path):
    settings = replace(world, shuffle_episodes=2)
    run_sft(replace(settings, out=tmp_path / "all"))
    run_sft(replace(settings, out=tmp_path / "few", picture_cache_gb=1e-6))
    assert snapshot(tmp_path / "few" / "policy") == snapshot(tmp_path / "all" / "policy")


def test_a_checkpoint_learns_the_published_tokens_and_an_explicit_width_wins(world, tmp_path, monkeypatch):
    seen = []
    honest = OpenVLAPolicy.bin_targets

    def watched(self, actions, width):
        seen.append((width, honest(self, actions, width)))
        return seen[-1][1]

    monkeypatch.setattr(OpenVLAPolicy, "bin_targets", watched)
    store = demonstrate(tmp_path / "store", labels=lambda right: np.full_like(right, 9.0))  # beyond q99: +1
    settings = replace(world, data=(store,), max_updates=1)
    run_sft(replace(settings, out=tmp_path / "one-hot"))
    width, targets = seen[-1]
    assert width == 0.0
    assert (targets[..., -1] == 1.0).all()  # np.digitize(+1) is the last bin
    policy = load_policy(world.policy)
    assert policy.action_token_ids[-1] == policy.config.text_vocab - policy.config.action_bins
    run_sft(replace(settings, out=tmp_path / "soft", soft_bins=0.5))
    assert seen[-1][0] == 0.5
    assert "soft_bins: 0.5" in (tmp_path / "soft" / "settings.yaml").read_text()
    side = demonstrate(tmp_path / "larger", episodes=2, steps=2, side=64)
    run_sft(replace(settings, data=(side,), policy=None, unnorm_key="", out=tmp_path / "new"))
    assert seen[-1][0] == 0.5


def test_a_folder_of_release_0_1_goes_on_with_its_spread_labels(world, tmp_path):
    explicit = replace(world, out=tmp_path / "run", soft_bins=0.5)
    summary = run_sft(explicit)
    (tmp_path / "run" / "done.json").unlink()
    assert run_sft(replace(explicit, soft_bins=None)) == summary
    with pytest.raises(CompatibilityError, match=r"soft_bins was 0\.5, now 0"):
        run_sft(replace(explicit, soft_bins=0.0))


class Heard(SilentReporter):
    """Keeps what a user is told."""

    def __init__(self):
        self.lines = []

    def info(self, message):
        self.lines.append(message)


def cache_for(episodes, steps=8):
    return {"picture_cache_gb": episodes * steps * SIDE * SIDE * 3 / 1e9}


def test_data_beyond_the_memory_is_shuffled_within_as_many_episodes_as_fit(world, tmp_path):
    heard = Heard()
    assert run_sft(replace(world, out=tmp_path / "dry", dry_run=True), heard)["shuffle_episodes"] == 0
    assert not heard.lines
    grouped = replace(world, out=tmp_path / "grouped", **cache_for(2.5))
    assert run_sft(replace(grouped, dry_run=True), heard)["shuffle_episodes"] == 2
    assert "groups of 2 episodes" in heard.lines[0]
    run_sft(grouped)
    run_sft(replace(world, out=tmp_path / "asked", shuffle_episodes=2))
    assert snapshot(tmp_path / "grouped") == snapshot(tmp_path / "asked")
    # The folder goes on as it began, with whatever memory.
    summary = read_json(tmp_path / "grouped" / "done.json")
    (tmp_path / "grouped" / "done.json").unlink()
    assert run_sft(replace(grouped, picture_cache_gb=4.0))["policy_hash"] == summary["policy_hash"]
    with pytest.raises(CompatibilityError, match="shuffle_episodes was 2, now 0"):
        run_sft(replace(grouped, shuffle_episodes=0))


def test_a_folder_of_release_0_1_goes_on_shuffling_all_steps(world, tmp_path):
    old = replace(world, out=tmp_path / "run", shuffle_episodes=0)  # what 0.1 wrote where nothing was asked for
    run_sft(replace(old, out=tmp_path / "whole"))
    with pytest.MonkeyPatch.context() as patch:
        honest = TrainLoop._update

        def dying(self, update, *rest):
            if update == 5:
                raise KeyboardInterrupt
            return honest(self, update, *rest)

        patch.setattr(TrainLoop, "_update", dying)
        with pytest.raises(KeyboardInterrupt):
            run_sft(old)
    run_sft(replace(old, shuffle_episodes=None, **cache_for(2.5)))
    assert snapshot(old.out) == snapshot(tmp_path / "whole")
