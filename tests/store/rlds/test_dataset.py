"""Reading folders: splits, shards, workers, shuffling, and what is wrong with a folder."""

import contextlib
import gzip
import json
import shutil
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grape.core.errors import CompatibilityError, DataError, GrapeError, SettingsError
from grape.store.rlds import open_rlds, tfrecord
from grape.store.rlds.features import Tensor, read_features
from tests.store.rlds.datasets import assert_columns, make_columns, write_dataset

NAMES = {"train": [f"e{index}" for index in range(11)], "val": ["v0", "v1"]}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("rlds"), NAMES, shards=3)


@pytest.fixture
def copy(dataset, tmp_path):
    """A copy to spoil."""
    shutil.copytree(dataset.path, tmp_path / "copy" / "1.0.0")
    return tmp_path / "copy" / "1.0.0"


def names(episodes):
    return [episode.file_path for episode in episodes]


def change_json(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_episodes_come_back_in_order(dataset):
    for seed, episode in enumerate(dataset.read("train")):
        assert (episode.index, episode.length) == (seed, 3)
        assert_columns(episode, make_columns(f"e{seed}", seed=seed))
        episode.check()
    assert [shard.episodes for shard in dataset.description.splits["train"].shards] == [3, 4, 4]


def test_splits(dataset):
    assert names(dataset.read("val")) == NAMES["val"]
    assert names(dataset.read("all")) == [*NAMES["train"], *NAMES["val"]]
    assert [dataset.length(split) for split in ("train", "val", "all")] == [11, 2, 13]
    with pytest.raises(SettingsError, match="'val'"):
        list(dataset.read("vol"))


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("workers", [1, 2, 5, 20])
def test_workers_share_episodes_without_rest(dataset, workers, seed):
    parts = [names(dataset.read(worker=worker, workers=workers, shuffle_seed=seed)) for worker in range(workers)]
    assert sorted(name for part in parts for name in part) == sorted(NAMES["train"])
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_worker_out_of_range_is_refused(dataset):
    with pytest.raises(SettingsError, match="Worker 2 of 2"):
        list(dataset.read(worker=2, workers=2))


def test_shuffling_follows_the_seed(dataset):
    orders = [names(dataset.read(shuffle_seed=seed)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert all(sorted(order) == sorted(NAMES["train"]) for order in orders)
    assert names(dataset.read(shuffle_seed=0, shuffle_bytes=1)) != orders[0]  # files in random order at least


def test_memory_does_not_grow_with_the_data_set(tmp_path):
    dataset = write_dataset(tmp_path, {"train": [f"e{index}" for index in range(60)]}, steps=50)
    payload = 50 * 512 * 4  # the embedding alone
    peaks = []
    for options in ({}, {"shuffle_seed": 1, "shuffle_bytes": 3 * payload}):
        tracemalloc.start()
        for _ in dataset.read("train", **options):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] < 6 * payload
    assert peaks[1] < 14 * payload


def test_one_episode_by_its_index(dataset):
    assert [dataset.episode("train", index).file_path for index in (10, 0, 5)] == ["e10", "e0", "e5"]
    assert dataset.episode("all", 12).file_path == "v1"
    with pytest.raises(SettingsError, match="no episode 11"):
        dataset.episode("train", 11)


def test_single_episodes_in_any_order_are_found_without_passing_over_others(dataset, monkeypatch):
    fresh, heads = open_rlds(dataset.path), []
    honest = tfrecord._is_head
    monkeypatch.setattr(tfrecord, "_is_head", lambda head: heads.append(head) or honest(head))
    for index in [*reversed(range(11)), *range(11)]:
        assert fresh.episode("train", index).file_path == f"e{index}"
    assert len(heads) == 3 * 11  # to learn where each begins, and once for each that was read


def test_files_compressed_with_gzip(copy):
    for shard in copy.glob("*.tfrecord*"):
        shard.write_bytes(gzip.compress(shard.read_bytes()))
    assert names(open_rlds(copy).read()) == NAMES["train"]


def test_the_newest_version_is_taken(copy):
    shutil.copytree(copy, copy.with_name("1.0.10"))
    shutil.copytree(copy, copy.with_name("1.0.9"))
    assert open_rlds(copy.parent).path.name == "1.0.10"
    assert open_rlds(copy).path.name == "1.0.0"


def test_folders_that_are_no_data_set(tmp_path, copy):
    with pytest.raises(DataError, match="does not exist"):
        open_rlds(tmp_path / "absent")
    with pytest.raises(DataError) as caught:
        open_rlds(tmp_path)
    assert str(tmp_path / "copy") in caught.value.hint


def test_a_missing_shard_is_named(copy):
    (copy / "rlds_np_rollout-train.tfrecord-00001-of-00003").unlink()
    with pytest.raises(DataError, match=r"train\.tfrecord-00001-of-00003 does not exist"):
        list(open_rlds(copy).read())


@pytest.mark.parametrize(("change", "words"), [(-1, "more than 3 of the 3"), (1, "only 4 of the 5")])
def test_too_many_or_too_few_records_are_noticed(copy, change, words):
    def miscount(info):
        lengths = info["splits"][0]["shardLengths"]
        lengths[1] = str(int(lengths[1]) + change)

    change_json(copy / "dataset_info.json", miscount)
    with pytest.raises(DataError, match=words) as caught:
        list(open_rlds(copy).read())
    assert "00001-of-00003" in caught.value.message


def test_a_cut_between_records_is_noticed_by_every_worker(copy):
    shard = copy / "rlds_np_rollout-train.tfrecord-00002-of-00003"
    shard.write_bytes(b"")
    for worker in range(2):
        with pytest.raises(DataError, match="holds only 0 of the 4 records"):
            list(open_rlds(copy).read(worker=worker, workers=2))
    with pytest.raises(DataError, match="no record 3"):
        open_rlds(copy).episode("train", 10)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_no_damage_anywhere_in_a_shard_passes(tmp_path_factory, dataset, data):
    shard = dataset.description.splits["train"].shards[1]
    whole = shard.path.read_bytes()
    damaged = bytearray(whole)
    if data.draw(st.booleans(), label="cut"):
        del damaged[data.draw(st.integers(0, len(whole) - 1)) :]
    else:
        damaged[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        shard.path.write_bytes(damaged)
        with pytest.raises(DataError) as caught:
            list(dataset.read())
        assert str(shard.path) in caught.value.message
    finally:
        shard.path.write_bytes(whole)


@given(file=st.sampled_from(["dataset_info.json", "features.json"]), data=st.data())
@settings(max_examples=150, deadline=None)
def test_damage_of_the_descriptions_ends_in_a_sentence_or_changes_nothing(dataset, file, data):
    path = dataset.path / file
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        path.write_bytes(damaged)
        with contextlib.suppress(GrapeError):  # any other exception fails the test
            for episode in open_rlds(dataset.path).read():
                episode.check()
    finally:
        path.write_bytes(whole)


def test_another_file_format_is_refused(copy):
    change_json(copy / "dataset_info.json", lambda info: info.update(fileFormat="array_record"))
    with pytest.raises(CompatibilityError, match="array_record"):
        open_rlds(copy)


def test_files_outside_the_folder_are_refused(copy):
    change_json(copy / "dataset_info.json", lambda info: info.update(name="../../etc/x"))
    with pytest.raises(DataError, match="outside its folder"):
        open_rlds(copy)


def test_columns_that_do_not_fit(copy):
    def widen(features):
        steps = features["featuresDict"]["features"]["steps"]["sequence"]["feature"]["featuresDict"]["features"]
        steps["action"]["tensor"]["shape"]["dimensions"] = ["6"]
        steps["reward"]["tensor"]["shape"] = {"dimensions": ["3"]}
        steps["absent"] = dict(steps["discount"])
        steps["discount"] = {"pythonClassName": "tfds.Audio", "audio": {}}

    change_json(copy / "features.json", widen)
    episode = next(open_rlds(copy).read())
    for path, words in {
        "action": "no multiple of 6",
        "reward": "has 1 items, its neighbors 3",
        "absent": "missing from the record",
        "discount": "class Audio",
        "rewards": "no column 'rewards'",
    }.items():
        with pytest.raises(DataError, match=words) as caught:
            episode.steps[path]
        assert "00000-of-00003, record 0" in caught.value.message
    assert episode.steps["is_first"].tolist() == [True, False, False]


def test_features_survive_being_written(dataset, tmp_path):
    (tmp_path / "features.json").write_text(dataset.features.to_json())
    assert read_features(tmp_path / "features.json") == dataset.features


@pytest.mark.parametrize("encoding", ["bytes", "zlib"])
def test_tensors_stored_as_raw_bytes(encoding):
    numbers = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    pack = zlib.compress if encoding == "zlib" else bytes
    tensor = Tensor("float32", (3, 2), encoding)
    np.testing.assert_array_equal(tensor.decode([pack(item.tobytes()) for item in numbers], "here"), numbers)
    with pytest.raises(DataError, match="here"):
        tensor.decode([pack(numbers[0].tobytes()[:-4])], "here")


def test_a_packed_tensor_is_not_unpacked_beyond_its_size():
    packed = zlib.compress(bytes(50_000_000), 9)
    tracemalloc.start()
    with pytest.raises(DataError, match="does not unpack to 8 bytes"):
        Tensor("float32", (2,), "zlib").decode([packed], "here")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1 << 20


def test_a_description_without_shard_lengths_is_read_by_its_files(tmp_path):
    dataset = write_dataset(tmp_path, {"train": ["a", "b", "c"]}, shards=2)
    path = dataset.path / "dataset_info.json"
    info = json.loads(path.read_text())
    for described in ({"numShards": "2", "statistics": {"numExamples": "3"}}, {"numShards": "2"}, {}):
        path.write_text(json.dumps({"name": info["name"], "splits": [{"name": "train", **described}]}))
        assert [episode.file_path for episode in open_rlds(dataset.path).read("train")] == ["a", "b", "c"]
    path.write_text(json.dumps({"name": info["name"]}))
    assert open_rlds(dataset.path).length("train") == 3
