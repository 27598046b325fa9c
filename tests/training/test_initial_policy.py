"""What a fine-tuning begins with, and that its result says so: statistics, gripper, crop."""

from dataclasses import replace

import numpy as np
import pytest

from grape.core.errors import CompatibilityError, SettingsError
from grape.core.files import read_json
from grape.policies.openvla import compute_norm_stats, load_policy, read_policy_config
from grape.store import EpisodeStore
from grape.training import SftSettings, run_sft
from tests.training.recordings import NAMES, SIDE, write_policy
from tests.training.test_sft import demonstrate


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Settings that continue a policy with statistics called "grape" on a store of suite "toy"."""
    root = tmp_path_factory.mktemp("beginnings")
    return SftSettings(
        data=(demonstrate(root / "store", episodes=3, steps=4),),
        out=root / "unused",
        policy=write_policy(root / "policy"),
        max_updates=1,
        batch_size=4,
        lr=1e-2,
    )


def labels(store):
    opened = EpisodeStore.open(store)
    return np.concatenate([opened.read(name, frames=False).labels for name in opened.ids()])


@pytest.mark.parametrize("rank", [0, 2], ids=["all-parameters", "adapters"])
def test_new_data_brings_its_own_statistics_and_puts_them_to_use(world, tmp_path, rank):
    summary = run_sft(replace(world, out=tmp_path / "run", lora_rank=rank))
    assert summary["norm_key"] == "toy"
    before, after = read_policy_config(world.policy), read_policy_config(tmp_path / "run" / "policy")
    assert after.norm_stats["toy"] == compute_norm_stats(labels(world.data[0]), NAMES, 3)
    assert after.norm_stats["grape"] == before.norm_stats["grape"]
    policy = load_policy(tmp_path / "run" / "policy")
    assert policy.unnorm_key == "toy"
    assert policy.norm.high[0] == after.norm_stats["toy"]["action"]["q99"][0]
    assert policy.spec.policy_hash == summary["policy_hash"]
    assert load_policy(tmp_path / "run" / "policy", unnorm_key="grape").unnorm_key == "grape"
    statistics = read_json(tmp_path / "run" / "policy" / "dataset_statistics.json")
    assert set(statistics) == ({"toy"} if rank else {"toy", "grape"})
    # Going on with the same data keeps what the checkpoint has, also where the data has changed.
    other = demonstrate(tmp_path / "other", episodes=2, steps=4)
    again = run_sft(replace(world, data=(other,), policy=tmp_path / "run" / "policy", out=tmp_path / "again"))
    assert again["norm_key"] == "toy"
    assert read_policy_config(tmp_path / "again" / "policy").norm_stats == after.norm_stats


def test_names_of_statistics(world, tmp_path):
    kept = run_sft(replace(world, out=tmp_path / "kept", unnorm_key="grape"))
    assert kept["norm_key"] == "grape"
    assert set(read_policy_config(tmp_path / "kept" / "policy").norm_stats) == {"grape"}
    named = run_sft(replace(world, out=tmp_path / "named", norm_key="mine"))
    assert named["norm_key"] == "mine"
    new = run_sft(replace(world, out=tmp_path / "new", norm_key="mine", policy=None, batch_size=2))
    assert new["norm_key"] == "mine"
    back = run_sft(replace(world, policy=tmp_path / "named" / "policy", out=tmp_path / "back", unnorm_key="grape"))
    assert back["norm_key"] == load_policy(tmp_path / "back" / "policy").unnorm_key == "grape"


def test_mistakes_with_names_are_found_before_any_work(world, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(SettingsError, match="Unknown unnorm_key 'grap'") as caught:
        run_sft(replace(world, out=out, unnorm_key="grap"))
    assert "'grape'" in caught.value.hint
    with pytest.raises(SettingsError, match="--norm-key names"):
        run_sft(replace(world, out=out, unnorm_key="grape", norm_key="x"))
    with pytest.raises(SettingsError, match="--unnorm-key needs --policy"):
        run_sft(replace(world, out=out, unnorm_key="grape", policy=None))
    contract = {"action_space": {"names": list(NAMES), "gripper": "+1 closes"}}
    foreign = EpisodeStore.create(tmp_path / "foreign", "toy-two", contract)
    with pytest.raises(SettingsError, match="several suites: toy, toy-two"):
        run_sft(replace(world, out=out, data=(*world.data, foreign.path)))
    assert not out.exists()


def test_another_convention_of_the_gripper_needs_statistics_of_its_own(world, tmp_path):
    opened = EpisodeStore.open(world.data[0])
    contract = {"action_space": {"names": list(NAMES), "gripper": "+1 opens"}}
    turned = EpisodeStore.create(tmp_path / "turned", "toy", contract)
    for name in opened.ids():
        turned.write(opened.read(name))
    settings = replace(world, data=(turned.path,))
    with pytest.raises(CompatibilityError, match=r"'\+1 opens', to the policy '\+1 closes'"):
        run_sft(replace(settings, out=tmp_path / "kept", unnorm_key="grape"))
    for rank in (0, 2):
        out = tmp_path / f"own-{rank}"
        run_sft(replace(settings, out=out, lora_rank=rank))
        assert load_policy(out / "policy").spec.gripper == "+1 opens"


@pytest.mark.parametrize("rank", [0, 2], ids=["all-parameters", "adapters"])
def test_random_crops_in_training_mean_a_crop_in_the_middle_afterwards(world, tmp_path, rank):
    summary = run_sft(replace(world, out=tmp_path / "run", augment="openvla", lora_rank=rank))
    policy = load_policy(tmp_path / "run" / "policy")
    assert policy.config.center_crop
    assert policy.processor.center_crop
    assert policy.spec.policy_hash == summary["policy_hash"]
    assert policy.spec.preprocessing_hash != load_policy(world.policy).spec.preprocessing_hash
    # The crop stays when training goes on without augmentation.
    run_sft(replace(world, policy=tmp_path / "run" / "policy", out=tmp_path / "again"))
    assert load_policy(tmp_path / "again" / "policy").config.center_crop


@pytest.mark.parametrize("rank", [0, 2], ids=["all-parameters", "adapters"])
def test_training_on_whole_images_is_said_wherever_the_result_is_taken(world, tmp_path, rank):
    config = read_policy_config(world.policy)
    assert config.recorded_center_crop is None
    summary = run_sft(replace(world, out=tmp_path / "run", lora_rank=rank))
    trained = tmp_path / "run" / "policy"
    (trained / "provenance.json").unlink(missing_ok=True)
    assert read_policy_config(trained).recorded_center_crop is False
    assert load_policy(trained).spec.policy_hash == summary["policy_hash"]


def test_randomly_cropped_images_are_not_cropped_again_and_held_out_ones_are(world, tmp_path, monkeypatch):
    from grape.policies.openvla.policy import OpenVLAPolicy

    honest, seen = OpenVLAPolicy.encode_images, []

    def watched(self, images, instructions, proprio=None, *, crop=True):
        seen.append((crop, self.processor.center_crop, np.asarray(images).shape[1]))
        return honest(self, images, instructions, proprio, crop=crop)

    monkeypatch.setattr(OpenVLAPolicy, "encode_images", watched)
    large = demonstrate(tmp_path / "large", episodes=2, steps=4, side=2 * SIDE)
    run_sft(replace(world, data=(large,), out=tmp_path / "run", augment="openvla", holdout=0.5))
    assert {entry for entry in seen if not entry[0]} == {(False, True, SIDE)}
    assert {entry for entry in seen if entry[0]} == {(True, True, 2 * SIDE)}


def test_contradictions(world, tmp_path):
    with pytest.raises(SettingsError, match="moves and brightens images itself"):
        run_sft(replace(world, out=tmp_path / "run", augment="openvla", augment_shift=1))
    with pytest.raises(SettingsError, match="4 bits cannot be trained as a whole"):
        run_sft(replace(world, out=tmp_path / "run", load_in_4bit=True))
