"""``grape export lerobot``: read here as LeRobot's reader reads it, by the paths and spans in meta/."""

import dataclasses
import io
import json

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from grape.cli.main import main
from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.exchange import LeRobotExportSettings, lerobot_export, run_export_lerobot
from grape.preferences import read_pairs
from grape.store import EpisodeStore, h264
from grape.store.lerobot import comparison, writer
from tests.exchange.recordings import make_recordings
from tests.store.episodes import make_episode

KEY = "observation.images.image"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    return make_recordings(tmp_path_factory.mktemp("run"), states=3, size=(16, 24))


def export(recordings, out, **options):
    return run_export_lerobot(
        LeRobotExportSettings(**({"collection": recordings[0].path, "out": out, "fps": 5} | options))
    )


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def load(folder):
    """Facts and episodes: rows of the table with their data and the images at their timestamps."""
    facts = json.loads((folder / "meta" / "info.json").read_text())
    tables = [pq.read_table(path) for path in sorted(folder.glob("data/*/*.parquet"))]
    rows = [row for table in tables for row in table.to_pylist()]
    videos = {}
    for path in folder.glob("videos/*/*/*.mp4"):
        with av.open(str(path)) as container:
            frames = [(float(f.pts * f.time_base), f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
        videos[path] = frames
    episodes = []
    for row in pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet").to_pylist():
        data = rows[row["dataset_from_index"] : row["dataset_to_index"]]
        place = {"chunk_index": row[f"videos/{KEY}/chunk_index"], "file_index": row[f"videos/{KEY}/file_index"]}
        frames = videos[folder / facts["video_path"].format(video_key=KEY, **place)]
        times = np.array([time for time, _ in frames])
        images = []
        for step in data:
            expected_time = row[f"videos/{KEY}/from_timestamp"] + step["timestamp"]
            nearest = int(np.abs(times - expected_time).argmin())
            assert abs(times[nearest] - expected_time) < 1e-4
            images.append(frames[nearest][1])
        assert row[f"videos/{KEY}/to_timestamp"] == pytest.approx(row[f"videos/{KEY}/from_timestamp"] + len(data) / 5)
        episodes.append((row, data, images))
    return facts, episodes


def closest(image, frames):
    return int(np.argmin([np.mean((image.astype(float) - frame) ** 2) for frame in frames]))


@pytest.mark.parametrize("limit", [100, 0], ids=["one-file", "a-file-an-episode"])
def test_a_collection_reads_back(recordings, tmp_path, monkeypatch, limit):
    monkeypatch.setattr(writer, "DATA_MB", limit)
    monkeypatch.setattr(writer, "VIDEO_MB", limit)
    store, _ = recordings
    summary = export(recordings, tmp_path / "out")
    assert (summary["episodes"], summary["steps"], summary["tasks"], summary["fps"]) == (6, 3 + 4 + 5 + 18, 1, 5)
    assert 8 < summary["picture_loss_db"]["worst"] <= summary["picture_loss_db"]["mean"]  # random colors
    assert any("log-probabilities" in line for line in summary["lost"])
    assert len(list((tmp_path / "out").glob("videos/*/*/*.mp4"))) == (1 if limit else 6)
    assert len(list((tmp_path / "out").glob("data/*/*.parquet"))) == (1 if limit else 6)
    facts, episodes = load(tmp_path / "out")
    assert facts["codebase_version"] == "v3.0"
    assert (facts["total_episodes"], facts["total_frames"], facts["total_tasks"]) == (6, 30, 1)
    assert facts["splits"] == {"train": "0:6"}
    assert facts["features"][KEY]["shape"] == [16, 24, 3]
    assert facts["features"]["action"]["names"][-1] == "gripper"
    assert [row["grape/episode_id"] for row, _, _ in episodes] == list(store.ids())
    index = 0
    for number, (row, data, images) in enumerate(episodes):
        expected = store.read(row["grape/episode_id"])
        assert (row["length"], row["tasks"]) == (expected.steps, [expected.meta.instruction])
        assert row["grape/success"] == expected.meta.success
        np.testing.assert_array_equal(np.array([step["action"] for step in data], np.float32), expected.labels)
        np.testing.assert_array_equal(
            np.array([step["observation.state"] for step in data], np.float32), expected.proprio[:-1]
        )
        assert [step["timestamp"] for step in data] == [float(np.float32(step / 5)) for step in range(expected.steps)]
        assert [step["index"] for step in data] == list(range(index, index + expected.steps))
        assert {(step["episode_index"], step["task_index"]) for step in data} == {(number, 0)}
        assert [step["frame_index"] for step in data] == list(range(expected.steps))
        assert [step["next.done"] for step in data] == [False] * (expected.steps - 1) + [True]
        assert data[-1]["next.reward"] == float(expected.meta.success) == float(data[-1]["next.success"])
        assert [closest(image, expected.frames) for image in images] == list(range(expected.steps))
        index += expected.steps
    statistics = json.loads((tmp_path / "out" / "meta" / "stats.json").read_text())
    every = np.concatenate([store.read(name).labels for name in store.ids()]).astype(np.float64)
    np.testing.assert_allclose(statistics["action"]["q99"], np.quantile(every, 0.99, axis=0))
    assert np.shape(statistics[KEY]["mean"]) == (3, 1, 1)
    assert set(statistics) == set(facts["features"])


def test_the_table_of_tasks_has_the_index_that_pandas_looks_for(recordings, tmp_path):
    export(recordings, tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "meta" / "tasks.parquet")
    assert table.to_pydict() == {"task_index": [0], "task": ["öffne the drawer"]}
    assert json.loads(table.schema.metadata[b"pandas"])["index_columns"] == ["task"]


def test_both_sides_of_pairs_correspond(recordings, tmp_path):
    summary = export(recordings, tmp_path / "out", collection=None, pairs=recordings[1])
    assert (summary["pairs"], summary["episodes"]) == (3, 6)
    pairs = read_pairs(recordings[1])
    for side in ("chosen", "rejected"):
        _, episodes = load(tmp_path / "out" / side)
        assert [row["grape/pair_id"] for row, _, _ in episodes] == [pair.pair_id for pair in pairs]
        assert [row["grape/episode_id"] for row, _, _ in episodes] == [getattr(pair, side) for pair in pairs]
        expected = recordings[0].read(getattr(pairs[0], side)).actions
        np.testing.assert_array_equal(np.array([step["action"] for step in episodes[0][1]], np.float32), expected)


def test_equal_exports_have_equal_bytes_and_none_is_overwritten(recordings, tmp_path):
    first = export(recordings, tmp_path / "a", only_successes=True)
    assert export(recordings, tmp_path / "a", only_successes=True) == first
    export(recordings, tmp_path / "b", only_successes=True)
    a, b = files(tmp_path / "a"), files(tmp_path / "b")
    assert a.pop("settings.yaml") != b.pop("settings.yaml")  # names the folder
    assert a == b
    with pytest.raises(CompatibilityError, match="another run"):
        export(recordings, tmp_path / "a", crf=30)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(CompatibilityError, match="there already"):
        export(recordings, tmp_path / "other")
    assert files(tmp_path / "a") | {"settings.yaml": b""} == a | {"settings.yaml": b""}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "other"]


@pytest.mark.parametrize("options", [{}, {"actions": "executed"}])
def test_several_processes_write_the_same_bytes(recordings, tmp_path, monkeypatch, options):
    monkeypatch.setattr(comparison, "EPISODES_PER_SHARD", 2)
    monkeypatch.setattr(lerobot_export, "EPISODES_PER_SHARD", 2)
    alone = export(recordings, tmp_path / "a", **options)
    assert export(recordings, tmp_path / "b", workers=2, **options) == alone
    a, b = files(tmp_path / "a"), files(tmp_path / "b")
    assert a.pop("settings.yaml") != b.pop("settings.yaml")
    assert a == b


def test_videos_of_other_settings_are_not_joined(tmp_path):
    videos = []
    for crf, size in ((18, (16, 16)), (18, (16, 16)), (18, (32, 16))):
        target = io.BytesIO()
        with h264.VideoWriter(target, size, 5, crf, key_frame_every=2) as video:
            video.add(np.random.default_rng(len(videos)).integers(0, 256, (3, *size, 3), dtype=np.uint8))
        videos.append(target.getvalue())
    with h264.VideoJoiner(tmp_path / "all.mp4", 5) as joiner:
        joiner.add(videos[0])
        joiner.add(videos[1])
        with pytest.raises(ValueError, match="different encoders"):
            joiner.add(videos[2])
    joined = list(comparison.read_video(tmp_path / "all.mp4"))
    (tmp_path / "second.mp4").write_bytes(videos[1])
    alone = list(comparison.read_video(tmp_path / "second.mp4"))
    assert [round(seconds, 6) for seconds, _ in joined] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    for (_, ours), (_, theirs), (_, sought) in zip(
        joined[3:], alone, comparison.read_video(tmp_path / "all.mp4", 0.6), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(ours, sought)


def test_a_higher_crf_loses_more(recordings, tmp_path):
    smooth = EpisodeStore.create(tmp_path / "store", "toy", {})
    episode = make_episode(size=(16, 16))
    episode.frames[:] = (np.arange(16) * 10)[None, None, :, None]
    smooth.write(episode)
    loss = [export((smooth, None), tmp_path / f"out-{crf}", crf=crf)["picture_loss_db"]["mean"] for crf in (0, 20, 45)]
    assert loss[0] >= loss[1] > loss[2]
    assert loss[0] > 40


def test_episodes_without_robot_state_have_no_column_for_it(tmp_path):
    store = EpisodeStore.create(tmp_path / "store", "toy", {})
    store.write(dataclasses.replace(make_episode(), proprio=np.zeros((6, 0), np.float32)))
    export((store, None), tmp_path / "out")
    facts, episodes = load(tmp_path / "out")
    assert "observation.state" not in facts["features"]
    assert "observation.state" not in episodes[0][1][0]
    assert facts["features"]["action"]["names"] == [f"action_{index}" for index in range(7)]


@pytest.mark.parametrize("damage", ["action", "picture", "count"])
def test_data_that_comes_back_altered_is_not_published(recordings, tmp_path, monkeypatch, damage):
    honest = writer.StepTables.add

    def lying(self, columns):
        columns = dict(columns)
        columns["action"] = columns["action"] + 1
        honest(self, columns)

    if damage == "action":
        monkeypatch.setattr(writer.StepTables, "add", lying)
    elif damage == "picture":
        monkeypatch.setattr(
            h264.VideoWriter, "add", lambda self, images, add=h264.VideoWriter.add: add(self, images[1:])
        )
    else:
        monkeypatch.setattr(comparison, "read_json", lambda path: json.loads(path.read_text()) | {"total_frames": 7})
    with pytest.raises(DataError, match=r"come back|no image of step|came back"):
        export(recordings, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"collection": None}, "either --pairs or --collection"),
        ({"crf": 52}, "--crf is 52"),
        ({"fps": 0}, "does not say the number of control steps a second"),
        ({"fps": -1}, "--fps is -1"),
    ],
)
def test_settings_that_make_no_sense(recordings, tmp_path, options, words):
    with pytest.raises(SettingsError, match=words):
        export(recordings, tmp_path / "out", **options)
    with pytest.raises(SettingsError, match="for collections only"):
        export(recordings, tmp_path / "out", collection=None, pairs=recordings[1], actions="executed")
    assert not list(tmp_path.iterdir())


def test_episodes_that_do_not_fit(tmp_path):
    store = EpisodeStore.create(tmp_path / "store", "toy", {})
    store.write(make_episode("a", size=(8, 8)))
    store.write(make_episode("b", size=(8, 10)))
    with pytest.raises(CompatibilityError, match="Episode b has images"):
        export((store, None), tmp_path / "out")
    odd = EpisodeStore.create(tmp_path / "odd", "toy", {})
    odd.write(make_episode("a", size=(8, 9)))
    with pytest.raises(CompatibilityError, match="even numbers"):
        export((odd, None), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_line(recordings, tmp_path, capsys):
    words = ["export", "lerobot", "--collection", str(recordings[0].path), "--out", str(tmp_path / "out"), "--fps", "5"]
    assert main([*words, "--dry-run"]) == 0
    assert "steps     30" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert main(words) == 0
    assert "not in this format" in capsys.readouterr().out
