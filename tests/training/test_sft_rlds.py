"""Fine-tuning on RLDS data sets: the same verb, statistics as the published loader's, images read when needed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from grape.cli.main import main
from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.core.files import read_json
from grape.exchange import RldsExportSettings, run_export_rlds
from grape.policies.openvla import load_policy, read_policy_config
from grape.store.rlds.demonstrations import RldsDemonstrations
from grape.training import SftSettings, run_sft
from tests.store.rlds.golden import expected, golden, needs_golden
from tests.training.recordings import snapshot, write_policy
from tests.training.test_sft import demonstrate


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Settings that continue a tiny policy on demonstrations exported as RLDS."""
    root = tmp_path_factory.mktemp("rlds")
    store = demonstrate(root / "store", episodes=5, steps=6)
    run_export_rlds(RldsExportSettings(root / "rlds", collection=store, name="demos", val_fraction=0))
    return SftSettings(
        data=(Path(f"rlds+plain:{root / 'rlds' / 'demos'}"),),
        out=root / "unused",
        policy=write_policy(root / "policy"),
        epochs=2,
        batch_size=8,
        lr=1e-2,
    )


def test_an_export_is_learnt_from(world, tmp_path):
    summary = run_sft(replace(world, out=tmp_path / "run", epochs=30))
    assert (summary["episodes"], summary["steps"], summary["norm_key"]) == (5, 30, "demos")
    assert summary["token_accuracy"] > 0.8
    policy = load_policy(tmp_path / "run" / "policy")
    assert (policy.unnorm_key, policy.config.gripper) == ("demos", "1 opens, 0 closes")
    exported = read_json(Path(str(world.data[0]).partition(":")[2]) / "1.0.0" / "dataset_statistics.json")
    assert policy.config.norm_stats["demos"] == exported["demos"]


def test_the_command_line_and_its_plan(world, tmp_path, capsys):
    words = ["sft", "--data", str(world.data[0]), "--out", str(tmp_path / "run"), "--max-updates", "2", "--json"]
    words += ["--policy", str(world.policy), "--batch-size", "4"]
    assert main([*words, "--dry-run"]) == 0
    assert '"steps": 30' in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    assert main(words) == 0
    assert '"updates": 2' in capsys.readouterr().out


def test_images_beyond_the_memory_are_read_when_needed(world, tmp_path, monkeypatch):
    whole, single = [], []
    read, images = RldsDemonstrations.read, RldsDemonstrations.images
    monkeypatch.setattr(RldsDemonstrations, "read", lambda self, name: whole.append(name) or read(self, name))
    monkeypatch.setattr(
        RldsDemonstrations, "images", lambda self, name, rows, camera: single.extend(rows) or images(self, name, rows)
    )
    run_sft(replace(world, out=tmp_path / "all", shuffle_episodes=1))
    assert (len(whole), len(single)) == (5, 0)
    run_sft(replace(world, out=tmp_path / "few", shuffle_episodes=1, picture_cache_gb=1e-6))
    assert (len(whole) - 5, len(single)) == (10, 0)  # two epochs
    assert snapshot(tmp_path / "few" / "policy") == snapshot(tmp_path / "all" / "policy")
    run_sft(replace(world, out=tmp_path / "scattered", shuffle_episodes=0))
    whole.clear()
    run_sft(replace(world, out=tmp_path / "scattered-few", shuffle_episodes=0, picture_cache_gb=1e-6))
    assert (len(whole), len(single)) == (0, 2 * 30)
    assert snapshot(tmp_path / "scattered-few" / "policy") == snapshot(tmp_path / "scattered" / "policy")


def test_single_images_are_those_of_the_whole_episode(world):
    store = RldsDemonstrations(world.data[0])
    for name in store.ids():
        decisions, whole = store.decisions(name), store.read(name)
        assert decisions.image_shape == whole.frames.shape[1:]
        np.testing.assert_array_equal(decisions.labels, whole.labels)
        np.testing.assert_array_equal(store.images(name, [4, 0, 4]), whole.frames[[4, 0, 4]])
    with pytest.raises(CompatibilityError, match="has images of the main camera"):
        store.images(name, [0], "wrist")


@needs_golden
@pytest.mark.parametrize("name", ["modified_libero_rlds/libero_spatial_no_noops", "oxe/bridge_orig"])
def test_statistics_of_the_result_are_those_of_the_published_loader(tmp_path, name):
    policy = write_policy(tmp_path / "policy")
    data = (Path(f"rlds:{golden(name)}"),)
    run_sft(SftSettings(data, out=tmp_path / "run", policy=policy, max_updates=1, batch_size=2))
    statistics = read_policy_config(tmp_path / "run" / "policy").norm_stats[name.split("/")[1]]
    due = expected("loader_expected.json")[name]["statistics"]
    assert statistics["num_transitions"] == due["num_transitions"]
    for key in ("mean", "std", "min", "max", "q01", "q99"):
        np.testing.assert_allclose(statistics["action"][key], due["action"][key], atol=1e-6, err_msg=key)
    assert statistics["action"]["mask"] == due["action"].get("mask", [True] * 6 + [False])


def test_mistakes(world, tmp_path):
    place, out = str(world.data[0]).partition(":")[2], tmp_path / "run"
    for location, error, message in (
        (f"rlds:{tmp_path}/nowhere", DataError, "does not exist"),
        (f"rlds:{tmp_path}", DataError, "no RLDS data set"),
        (f"rlds+libreo:{place}", SettingsError, "'libero'"),
        (f"rlds:{place}", SettingsError, "No rule is known"),
    ):
        with pytest.raises(error) as caught:
            run_sft(replace(world, data=(Path(location),), out=out))
        assert message in str(caught.value), location
    other = demonstrate(tmp_path / "store", episodes=2)
    with pytest.raises(CompatibilityError, match="'\\+1 closes' and '1 opens, 0 closes'"):
        run_sft(replace(world, data=(*world.data, other), norm_key="both", out=out))
    assert not out.exists()


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_files_are_named_before_any_work(world, tmp_path, damage):
    run_export_rlds(
        RldsExportSettings(
            tmp_path / "rlds", collection=world.out.parent / "store", name="demos", val_fraction=0, shards=2
        )
    )
    file = sorted((tmp_path / "rlds" / "demos" / "1.0.0").glob("*tfrecord*"))[1]
    data = bytearray(file.read_bytes())
    if damage == "cut":
        del data[-40:]
    else:
        data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match=r"00001-of-00002.*record"):
        run_sft(replace(world, data=(Path(f"rlds+plain:{tmp_path}/rlds/demos"),), out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_demonstrations_of_unknown_outcome_are_no_failures(world, tmp_path):
    with pytest.raises(DataError, match="known to have succeeded") as caught:
        run_sft(replace(world, out=tmp_path / "run", successful_only=True))
    assert "leave out --successful-only" in caught.value.hint
