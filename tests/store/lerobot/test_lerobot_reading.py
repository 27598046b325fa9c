"""LeRobotDatasets as demonstrations: both layouts, what is mapped to what, and what is refused."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.store import EpisodeStore
from grape.store.demonstrations import data_name, open_demonstrations
from grape.store.lerobot.demonstrations import LeRobotDemonstrations, Meaning
from tests.store.episodes import make_episode
from tests.store.lerobot.written_by_hand import (
    KEYS,
    NAMES,
    actions_of,
    assert_images,
    state_of,
    write_dataset,
)

LENGTHS = (5, 30, 4)


@pytest.fixture(scope="module", params=["v2.0", "v2.1", "v3.0"])
def folder(request, tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp(request.param) / "pick", request.param)


def test_what_becomes_what(folder):
    source = open_demonstrations(folder)
    assert isinstance(source, LeRobotDemonstrations)
    assert (data_name(source), source.suite, len(source)) == ("pick", "lerobot", 3)
    assert source.contract["action_space"] == {"names": NAMES, "control_hz": 10.0}
    assert (source.contract["robot"], source.contract["cameras"]) == ("so100", ["front", "wrist"])
    assert [meta.success for meta in source.metas()] == [True, False, True]
    assert [meta.instruction for meta in source.metas()] == ["open the drawer", "Öffne die Lade", "open the drawer"]
    for episode, (name, length) in enumerate(zip(source.ids(), LENGTHS, strict=True)):
        trajectory, decisions = source.read(name), source.decisions(name)
        assert trajectory.meta == source.meta(name)
        for actions in (trajectory.actions, trajectory.labels, decisions.labels):
            np.testing.assert_array_equal(actions, actions_of(episode, length))
        np.testing.assert_array_equal(trajectory.proprio[:-1], state_of(episode, length))
        np.testing.assert_array_equal(trajectory.proprio[-1], trajectory.proprio[-2])
        np.testing.assert_array_equal(decisions.proprio, state_of(episode, length))
        rows = [*range(length), length - 1]
        assert_images(trajectory.frames, episode, rows, 0)
        assert_images(trajectory.cameras["wrist"], episode, rows, 1)
        assert decisions.image_shape == trajectory.frames.shape[1:]
        assert decisions.camera_shapes == {"wrist": trajectory.cameras["wrist"].shape[1:]}
        assert trajectory.signals["success"][-1] == float(trajectory.meta.success)


def test_single_images_are_those_of_the_whole_episode(folder):
    source = LeRobotDemonstrations(folder)
    name = source.ids()[1]
    frames = source.read(name).frames
    for rows in ([3], [29, 0, 17, 17, 2], range(30)):
        np.testing.assert_array_equal(source.images(name, rows), frames[list(rows)])
    assert_images(source.images(name, [28, 5], "wrist"), 1, [28, 5], 1)
    with pytest.raises(CompatibilityError, match="no camera 'top', but front, wrist"):
        source.images(name, [0], "top")
    assert source.read(name, frames=False).frames.shape == (31, 0, 0, 3)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_images_in_the_parquet_files(tmp_path, version):
    source = LeRobotDemonstrations(write_dataset(tmp_path / "d", version, stored="image"))
    for episode, (name, length) in enumerate(zip(source.ids(), LENGTHS, strict=True)):
        trajectory = source.read(name)
        assert_images(trajectory.frames[:-1], episode, range(length), 0, exact=True)
        assert_images(trajectory.cameras["wrist"][:-1], episode, range(length), 1, exact=True)
        assert_images(source.images(name, [length - 1, 1]), episode, [length - 1, 1], 0, exact=True)


def test_an_episode_whose_task_changes_becomes_one_for_each(tmp_path):
    def task_of(episode, row):
        return int(episode == 1 and row >= 12)

    source = LeRobotDemonstrations(write_dataset(tmp_path / "d", task_of=task_of))
    assert [(meta.steps, meta.success) for meta in source.metas()] == [(5, True), (12, None), (18, False), (4, True)]
    second = source.read(source.ids()[2])
    assert second.meta.instruction == "Öffne die Lade"
    np.testing.assert_array_equal(second.actions, actions_of(1, 30)[12:])
    assert_images(second.frames, 1, [*range(12, 30), 29], 0)
    assert_images(source.images(source.ids()[2], [0]), 1, [12], 0)


def test_options(tmp_path):
    folder = write_dataset(tmp_path / "d", success=None, state=0)
    assert {meta.success for meta in LeRobotDemonstrations(folder).metas()} == {None}
    stated = f"lerobot+cameras=wrist,gripper=+1 closes,open_gripper=yes,success=yes:{folder}"
    source = open_demonstrations(stated)
    assert {meta.success for meta in source.metas()} == {True}
    assert source.contract["action_space"]["gripper"] == "1 opens, 0 closes"
    trajectory = source.read(source.ids()[0])
    np.testing.assert_array_equal(trajectory.actions[:, 2], (actions_of(0, 5)[:, 2] < 0).astype(np.float32))
    np.testing.assert_array_equal(trajectory.actions[:, :2], actions_of(0, 5)[:, :2])
    assert (trajectory.cameras, trajectory.proprio.shape) == ({}, (6, 0))
    assert_images(trajectory.frames[:-1], 0, range(5), 1)
    both = LeRobotDemonstrations(folder, Meaning(cameras=("wrist", KEYS[0])))
    assert [camera.name for camera in both.cameras] == ["wrist", "front"]
    assert len({LeRobotDemonstrations(folder).digest(), both.digest(), source.digest()}) == 3
    for options, message in (
        ("cameras=wirst", "Unknown camera"),
        ("cameras=wrist,front,wrist", "named twice"),
        ("camera=wrist", "Unknown option"),
        ("success=done", "no feature 'done'"),
        ("gripper=opens", "Unknown convention"),
        ("open_gripper=yes", "what its number means"),
        ("tolerance=much", "no number of seconds"),
    ):
        with pytest.raises(SettingsError, match=message):
            open_demonstrations(f"lerobot+{options}:{folder}")


def test_a_store_is_still_a_store(tmp_path):
    store = EpisodeStore.create(tmp_path / "store", "toy", {})
    store.write(make_episode())
    assert isinstance(open_demonstrations(tmp_path / "store"), EpisodeStore)


def change_info(folder, **values):
    path = folder / "meta" / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_rows(folder, name, values):
    """Replace a column of a data file."""
    path = sorted(folder.glob("data/*/*.parquet"))[0]
    table = pq.read_table(path)
    number = table.column_names.index(name)
    pq.write_table(table.set_column(number, name, pa.array(values(table.column(name).to_pylist()))), path)


def with_nan(rows):
    return [*rows[:2], [0.0, float("nan"), 1.0], *rows[3:]]


def shifted(rows):
    return [value + (0.003 if row == 3 else 0) for row, value in enumerate(rows)]


def cut(folder, pattern, share=0.6):
    path = sorted(folder.glob(pattern))[0]
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def features_without(folder, *names):
    features = json.loads((folder / "meta" / "info.json").read_text())["features"]
    return {name: spec for name, spec in features.items() if name not in names}


DAMAGE = {
    "a newer version": (lambda f: change_info(f, codebase_version="v4.0"), CompatibilityError, r"info\.json.*'v4\.0'"),
    "an older version": (lambda f: change_info(f, codebase_version="v1.6"), CompatibilityError, r"'v1\.6'"),
    "no version": (lambda f: change_info(f, codebase_version=None), CompatibilityError, "None"),
    "another fps": (lambda f: change_info(f, fps=20), DataError, "20.*10 images a second"),
    "no fps": (lambda f: change_info(f, fps=0), DataError, "says fps 0"),
    "an infinite fps": (lambda f: change_info(f, fps=1e308), DataError, "no number of rows a second"),
    "a path out of the folder": (lambda f: change_info(f, data_path="../../x.parquet"), DataError, "leads to no file"),
    "an absolute path": (lambda f: change_info(f, video_path="/etc/passwd"), DataError, "leads to no file"),
    "a strange field": (lambda f: change_info(f, data_path="{x.__class__}"), DataError, "leads to no file"),
    "an unknown field": (lambda f: change_info(f, data_path="{secret}"), DataError, "unknown field 'secret'"),
    "other totals": (lambda f: change_info(f, total_episodes=7), DataError, "says 7 episodes"),
    "no features": (lambda f: change_info(f, features={}), DataError, "lists no features"),
    "no actions": (lambda f: change_info(f, features=features_without(f, "action")), DataError, "no feature 'action'"),
    "no camera": (lambda f: change_info(f, features=features_without(f, *KEYS)), DataError, "no feature with RGB"),
    "no JSON": (lambda f: (f / "meta" / "info.json").write_text("{"), DataError, r"info\.json cannot be read"),
    "NaN": (lambda f: change_rows(f, "action", with_nan), DataError, "number 1 of 'action' at row 2 is not finite"),
    "no list": (lambda f: change_rows(f, "action", lambda rows: [0.5 for _ in rows]), DataError, "3 numbers a row"),
    "uneven lists": (
        lambda f: change_rows(f, "action", lambda rows: [rows[0][:2], [*rows[1], 0.0], *rows[2:]]),
        DataError,
        "does not hold 3 numbers",
    ),
    "texts": (lambda f: change_rows(f, "timestamp", lambda rows: ["now"] * len(rows)), DataError, "no numbers"),
    "an empty row": (lambda f: change_rows(f, "timestamp", lambda rows: [None, *rows[1:]]), DataError, "is empty in 1"),
    "a late row": (lambda f: change_rows(f, "timestamp", shifted), DataError, "rows 2 and 3 0.103 s go by"),
    "another order": (lambda f: change_rows(f, "frame_index", lambda rows: rows[::-1]), DataError, "has frame_index"),
    "an unknown task": (lambda f: change_rows(f, "task_index", lambda rows: [9] * len(rows)), DataError, "task 9 is"),
    "odd success": (lambda f: change_rows(f, "next.success", lambda rows: [2 for _ in rows]), DataError, "than 0 and"),
    "a truncated table": (lambda f: cut(f, "data/*/*.parquet"), DataError, r"\.parquet is truncated or no sound"),
    "no data": (lambda f: sorted(f.glob("data/*/*.parquet"))[0].unlink(), DataError, r"\.parquet.*does not exist"),
    "no video": (lambda f: sorted(f.glob("videos/**/*.mp4"))[0].unlink(), DataError, r"\.mp4.*does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_damage_is_named_before_any_image_is_read(tmp_path, version):
    """All of it in one test: writing videos is what costs."""
    sound = write_dataset(tmp_path / "sound", version)
    for name, (damage, kind, message) in DAMAGE.items():
        folder = tmp_path / name
        copy_links(sound, folder)
        damage(folder)
        with pytest.raises(kind, match=message) as caught:
            LeRobotDemonstrations(folder).metas()
        assert str(folder) in str(caught.value), name
        assert caught.value.hint, name


def copy_links(source, target):
    """A copy whose videos are hard links: they are removed here, never written."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        elif path.suffix == ".mp4":
            os.link(path, place)
        else:
            place.write_bytes(path.read_bytes())


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_rows_of_another_rate_than_the_description_says(tmp_path, version):
    source = LeRobotDemonstrations(write_dataset(tmp_path / "d", version, written_fps=5))
    with pytest.raises(DataError, match=r"are those of 5 rows a second, where .* says fps 10"):
        source.metas()


def test_damaged_videos_are_named(tmp_path):
    folder = write_dataset(tmp_path / "d", "v2.1", lengths=(30,))
    video = folder / "videos" / "chunk-000" / KEYS[0] / "episode_000000.mp4"
    sound = video.read_bytes()
    source = LeRobotDemonstrations(folder)
    (name,) = source.ids()
    video.write_bytes(sound[: len(sound) // 2])
    with pytest.raises(DataError, match=r"episode_000000\.mp4"):
        source.read(name)
    video.write_bytes((folder / "videos" / "chunk-000" / KEYS[1] / "episode_000000.mp4").read_bytes())
    assert_images(source.images(name, [4]), 0, [4], 1)  # the video is what the file holds
    short = write_dataset(tmp_path / "short", "v2.1", lengths=(10,))
    video.write_bytes((short / "videos" / "chunk-000" / KEYS[0] / "episode_000000.mp4").read_bytes())
    with pytest.raises(DataError, match=r"has no image at 1\.0000 s: the nearest is at 0\.9000 s"):
        source.read(name)
    change_info(folder, features={**features_without(folder), KEYS[0]: {"dtype": "video", "shape": [64, 64, 3]}})
    with pytest.raises(DataError, match=r"has images of 32 x 48 pixels, .*info\.json says 64 x 64"):
        LeRobotDemonstrations(folder).images(name, [0])


def test_inexact_times_are_read_where_that_is_tolerated(tmp_path):
    folder = write_dataset(tmp_path / "d", "v2.1", lengths=(5,))
    change_rows(folder, "timestamp", shifted)
    with pytest.raises(DataError, match="raise the tolerance"):
        LeRobotDemonstrations(folder).metas()
    source = LeRobotDemonstrations(f"lerobot+tolerance=0.01:{folder}")
    assert_images(source.read(source.ids()[0]).frames[:-1], 0, range(5), 0)


def test_links_out_of_the_folder_are_refused(tmp_path):
    folder = write_dataset(tmp_path / "d", "v2.1", lengths=(5,))
    for pattern in ("data/*/*.parquet", "videos/**/*.mp4"):
        path = sorted(folder.glob(pattern))[0]
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
        with pytest.raises(DataError, match="link that leads out"):
            LeRobotDemonstrations(folder).metas()
        path.unlink()
        (tmp_path / path.name).rename(path)
