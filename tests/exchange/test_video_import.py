"""``grape import video``: what does not fit is refused in plain words, before anything is written."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from grape.core.cameras import Camera
from grape.core.errors import CompatibilityError
from grape.core.events import SilentReporter
from grape.exchange import ImportVideoSettings, run_import_video
from grape.store import EpisodeStore
from tests.exchange.short_video import (
    ENTRY,
    FPS,
    GRIPPER,
    SIZE,
    STATES,
    camera,
    images,
    log_rows,
    read,
    refused,
    relist,
    run,
)
from tests.perception.recording_fixtures import ACTIONS, write_camera, write_list, write_log, write_video

av = pytest.importorskip("av")


def test_a_sound_recording(folder):
    summary = run(folder)
    episode = read(folder)
    assert (summary["episodes"], summary["successes"], summary["steps"], summary["actions"]) == (1, 1, STATES - 1, True)
    assert "absent" in summary["r_self"]
    assert episode.meta.initial_state == 3
    np.testing.assert_allclose(episode.keypoints["gripper"][:, 0], 0.4 + 0.01 * np.arange(STATES), atol=1e-6)
    np.testing.assert_allclose(episode.signals["gripper_opening"], 0.5, atol=1e-6)
    assert episode.signals["success"].tolist() == [0, 0, 0, 0, 0, 1]
    np.testing.assert_allclose(episode.actions[:, 0], 0.1 * np.arange(STATES - 1), atol=1e-6)
    # State t goes with image 2 t: twenty images and ten rows a second.
    np.testing.assert_allclose(episode.frames.mean(axis=(1, 2, 3)), images()[::2].mean(axis=(1, 2, 3)), atol=4)
    assert episode.proprio.shape == (STATES, 4)
    store = EpisodeStore.open(folder.parent / "out" / "store")
    assert store.contract["control_hz"] == 10.0
    assert store.contract["action_space"] == {"names": list(ACTIONS)}
    assert run(folder) == summary  # done: nothing to do


def test_a_killed_import_goes_on_to_the_same_bytes(folder):
    run(folder)
    out = folder.parent / "out"
    whole = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for name in ("done.json", "files.jsonl"):
        (out / name).unlink()
    run(folder)
    assert {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()} == whole
    relist(folder, outcome="failure")
    with pytest.raises(CompatibilityError, match="another run"):
        run(folder)


def test_tasks_whose_names_read_alike_stay_apart(folder):
    tasks = ("open_drawer", "open drawer", "open-drawer", "開ける", "閉める")
    write_list(folder / "episodes.yaml", [ENTRY | {"task": task} for task in tasks], robot_log=GRIPPER)
    assert run(folder)["episodes"] == len(tasks)
    store = EpisodeStore.open(folder.parent / "out" / "store")
    assert sorted(store.read(name).meta.task for name in store.ids()) == sorted(tasks)
    assert "open-drawer-0003-00" in store.ids(), "a name that needs no change keeps its id"


@pytest.mark.parametrize("name", ["success", "gripper_opening"])
def test_a_column_does_not_replace_a_signal_of_the_import(folder, name):
    write_log(folder / "log.csv", [row | {name: 1.0} for row in log_rows()])
    relist(folder, robot_log={"signals": [name]})
    refused(folder, f"signals names '{name}'")


def test_a_keypoint_does_not_replace_the_gripper(folder):
    text = "version: 1\nkeypoints:\n  - {name: gripper, phrase: the gripper}\n"
    (folder / "keypoints.yaml").write_text(text)
    refused(folder, "called 'gripper'", keypoints=folder / "keypoints.yaml")


def test_depth_images_are_read_in_the_order_of_their_numbers(folder):
    from grape.store.video import read_episode_list, read_recording

    (folder / "depth").mkdir()
    for number in range(2 * STATES - 1):
        Image.fromarray(np.full(SIZE, 700 + number, np.uint16)).save(folder / "depth" / f"d435-{number}.png")
    (episode,) = read_episode_list(relist(folder, depth="depth")).episodes
    depth = read_recording(episode, 64, range(2 * STATES - 1)).depth
    np.testing.assert_allclose(depth[:, 0, 0], 0.7 + 0.001 * np.arange(2 * STATES - 1), atol=1e-6)
    (folder / "depth" / "d435-3.png").rename(folder / "depth" / "last.png")
    refused(folder, "last.png has no number in its name")
    (folder / "depth" / "last.png").rename(folder / "depth" / "d435-04.png")
    refused(folder, "same number")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_other_formats_of_logs_give_the_same_episode(folder, kind):
    run(folder)
    expected = read(folder)
    if kind == "jsonl":
        (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log_rows()))
    else:
        pq.write_table(pa.Table.from_pylist(log_rows()), folder / "log.parquet")
    relist(folder, log=f"log.{kind}")
    run_import_video(ImportVideoSettings(folder / "episodes.yaml", folder.parent / "again"))
    imported = EpisodeStore.open(folder.parent / "again" / "store").read("push-puck-0003-00")
    np.testing.assert_array_equal(imported.keypoints["gripper"], expected.keypoints["gripper"])
    np.testing.assert_array_equal(imported.actions, expected.actions)


def test_units_columns_rotations_and_time_of_success(folder):
    rows = []
    for row in log_rows():
        position = {f"tcp_{axis}": 1000 * row[axis] for axis in "xyz"}
        quaternion = {"qw": -np.sqrt(0.5), "qx": 0.0, "qy": 0.0, "qz": -np.sqrt(0.5)}  # a quarter turn about z
        rows.append({"stamp": 1000 * row["time"], "gripper": 0.0, "force": 2.5} | position | quaternion)
    write_log(folder / "log.csv", rows)
    columns = {"time": "stamp", "x": "tcp_x", "y": "tcp_y", "z": "tcp_z"}
    form = {"time": "ms", "length": "mm", "columns": columns, "actions": [], "signals": ["force"], "gripper": [255, 0]}
    relist(folder, form, solved_at=5250)
    assert run(folder)["actions"] is False
    episode = read(folder)
    np.testing.assert_allclose(episode.keypoints["gripper"][:, 0], 0.4 + 0.01 * np.arange(STATES), atol=1e-6)
    np.testing.assert_allclose(episode.proprio[:, 3:6], np.tile([0, 0, np.pi / 2], (STATES, 1)), atol=1e-6)
    assert episode.signals["force"].tolist() == [2.5] * STATES
    assert episode.signals["gripper_opening"].tolist() == [1.0] * STATES
    assert episode.signals["success"].tolist() == [0, 0, 0, 1, 1, 1]
    assert episode.actions.shape == (STATES - 1, 0)


def test_a_faster_log_is_thinned_and_loses_its_actions(folder):
    class Listening(SilentReporter):
        def warn(self, message):
            warnings.append(message)

    warnings = []
    summary = run_import_video(
        ImportVideoSettings(folder / "episodes.yaml", folder.parent / "out", hz=5.0), Listening()
    )
    assert summary["steps"] == 3  # states at 5.0, 5.2, 5.4 and the last one
    assert summary["actions"] is False
    assert any("left out" in text for text in warnings)
    np.testing.assert_allclose(read(folder).keypoints["gripper"][:, 0], [0.40, 0.42, 0.44, 0.45], atol=1e-6)


def test_larger_images_are_shrunk_and_the_camera_with_them(folder):
    write_video(folder / "take.mp4", np.repeat(np.repeat(images(), 2, axis=1), 2, axis=2), FPS)
    np.save(folder / "depth.npy", np.full((2 * STATES - 1, 64, 96), 700, np.uint16))
    write_camera(folder / "camera.yaml", camera().resized(64, 96))
    run(folder, longest=48)
    episode = read(folder)
    assert episode.frames.shape[1:3] == SIZE
    np.testing.assert_allclose(episode.meta.extra["camera"]["intrinsic"], camera().intrinsic)


def test_depth_as_folder_and_without_camera_or_depth(folder):
    (folder / "depth").mkdir()
    for number in range(2 * STATES - 1):
        Image.fromarray(np.full(SIZE, 700, np.uint16)).save(folder / "depth" / f"{number:04d}.png")
    relist(folder, depth="depth")
    run(folder)
    relist(folder, depth=None, camera=None)
    run_import_video(ImportVideoSettings(folder / "episodes.yaml", folder.parent / "bare"))
    bare = EpisodeStore.open(folder.parent / "bare" / "store").read("push-puck-0003-00")
    assert set(bare.keypoints) == {"gripper"}
    assert "camera" not in bare.meta.extra


KEYPOINTS = "version: 1\nkeypoints:\n  - {name: cup, phrase: a cup}\n"


def test_keypoints_need_camera_and_depth(folder):
    (folder / "keypoints.yaml").write_text(KEYPOINTS)
    for name in ("camera", "depth"):
        relist(folder, **{name: None})
        refused(folder, f"has no {name}", keypoints=folder / "keypoints.yaml")


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def scramble(path: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = data.find(b"mdat") + 8
    data[middle + 700 : middle + 1100] = np.random.default_rng(0).bytes(400)
    path.write_bytes(bytes(data))


def test_corrupt_video(folder):
    noise = np.random.default_rng(0).integers(0, 255, (2 * STATES - 1, *SIZE, 3)).astype(np.uint8)
    write_video(folder / "take.mp4", noise, FPS)
    scramble(folder / "take.mp4")
    refused(folder, "corrupt|of 11 images")
    write_video(folder / "take.mp4", noise, FPS)
    cut(folder / "take.mp4", 0.6)
    refused(folder, "corrupt or no video|images")
    (folder / "take.mp4").write_text("no video at all")
    refused(folder, "corrupt or no video")


def test_missing_frames(folder):
    with av.open(str(folder / "take.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for number, image in enumerate(images()):
            if number in (5, 6):
                continue
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    text = refused(folder, "images are missing")
    assert "after image 4" in text


def test_times_that_do_not_match(folder):
    relist(folder, offset=0.0)
    assert "offset" in refused(folder, "do not overlap")
    relist(folder, offset=4.8)
    refused(folder, "has no image")
    assert run(folder, tolerance=0.21)["episodes"] == 1


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"length": "mm"}, "0.00"),
        ({"time": "ms"}, "moves at"),
        ({"gripper": [0.0, 0.01]}, "beyond"),
        ({"gripper": [0.5, 0.5]}, "same number"),
        ({"length": "furlong"}, "length"),
        ({"columns": {"tim": "time"}}, "none of ours"),
        ({"columns": {"x": "xx"}}, "no column 'xx'"),
        ({"actions": ["dx", "dw"]}, "no column 'dw'"),
        ({"signals": ["force"]}, "no column 'force'"),
    ],
)
def test_wrong_units_and_columns(folder, form, words):
    relist(folder, form)
    refused(folder, words)


def change_rows(folder, change):
    rows = log_rows()
    change(rows)
    write_log(folder / "log.csv", rows)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[3].update(time=5.0), "row 4: time goes"),
        (lambda rows: rows[2].update(x=""), "row 3: x is no number"),
        (lambda rows: rows[2].update(dx=""), "row 3: the action is incomplete"),
        (lambda rows: rows[2].update(x=2.0), "row 3: the gripper moves"),
        (lambda rows: [row.update(x=400.0 + row["x"]) for row in rows], "up to 40"),
        (lambda rows: [row.update(qw=0.5, qx=0.0, qy=0.0, qz=0.0) for row in rows], "quaternion has length"),
        (lambda rows: [row.update(qw=1.0) for row in rows], "only some"),
        (lambda rows: rows.__delitem__(slice(1, None)), "1 row"),
    ],
)
def test_logs_that_cannot_be_right(folder, change, words):
    change_rows(folder, change)
    refused(folder, words)


def test_logs_that_cannot_be_read(folder):
    for name, content in (("log.jsonl", "{}\nnot json"), ("log.parquet", "no"), ("log.txt", "x"), ("log.csv", "")):
        (folder / name).write_text(content)
        relist(folder, log=name)
        refused(folder, "log")


def test_depth_that_does_not_fit(folder):
    relist(folder, depth_unit=1.0)
    refused(folder, "depth is 700 m")
    relist(folder)
    np.save(folder / "depth.npy", np.full((STATES, *SIZE), 700, np.uint16))
    refused(folder, "6 depth images, the video 11")
    np.save(folder / "depth.npy", np.full((11, 16, 24), 700, np.uint16))
    refused(folder, "aligned|height, width")
    np.save(folder / "depth.npy", np.zeros((11, *SIZE), np.uint16))
    refused(folder, "measured nothing")
    (folder / "depth.npy").write_bytes(b"\x93NUMPY nothing")
    refused(folder, r"is no \.npy file")
    np.save(folder / "depth.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refused(folder, "cannot be read as an array")


def test_cameras_that_do_not_fit(folder):
    write_camera(folder / "camera.yaml", Camera(camera().intrinsic, np.eye(4), SIZE))  # looks up, from the base
    assert "invert" in refused(folder, "do not fit")
    write_camera(folder / "camera.yaml", camera().resized(480, 640))
    refused(folder, r"\(480, 640\)")
    data = camera().to_dict()
    (folder / "camera.yaml").write_text(yaml.safe_dump(data | {"distortion": [0.1, 0, 0, 0]}))
    assert "Rectify" in refused(folder, "distortion")
    (folder / "camera.yaml").write_text(yaml.safe_dump(data | {"pixel_origin": "middle"}))
    refused(folder, "pixel_origin")
    (folder / "camera.yaml").unlink()
    refused(folder, "camera.yaml does not exist")


def test_opencvs_pixel_origin_is_half_a_pixel_away(folder):
    (folder / "camera.yaml").write_text(json.dumps(camera().to_dict()))
    run(folder)
    intrinsic = np.array(read(folder).meta.extra["camera"]["intrinsic"])
    np.testing.assert_allclose(intrinsic[:2, 2], camera().intrinsic[:2, 2] + 0.5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"outcome": "maybe"}, "outcome is 'maybe'"),
        ({"outcome": None}, "lacks outcome"),
        ({"initial_state": None}, "lacks initial_state"),
        ({"video": "other.mp4"}, "other.mp4 does not exist"),
        ({"solved_at": 9.0}, "solved_at"),
        ({"depth_unit": -1.0}, "depth_unit"),
        ({"movie": "x"}, "Unknown setting"),
    ],
)
def test_lists_that_cannot_be_used(folder, change, words):
    relist(folder, **change)
    refused(folder, words)


def test_lists_of_another_kind(folder):
    for text, words in (
        ("[]", "no mapping"),
        ("version: 2\nepisodes: [{}]", "version"),
        ("version: 1", "no episodes"),
        ("a: &a 1\nb: *a", "aliases"),
    ):
        (folder / "episodes.yaml").write_text(text)
        refused(folder, words)


def test_settings_out_of_range(folder):
    for options in ({"hz": -1.0}, {"tolerance": float("nan")}, {"longest": 8}, {"confidence": 0.0}):
        refused(folder, next(iter(options)), **options)


def test_rates_must_agree(folder):
    rows = log_rows()
    slow = [row | {"time": 5.0 + 0.2 * number} for number, row in enumerate(rows[:3])]
    with (folder / "slow.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(slow)
    entries = [dict(ENTRY), dict(ENTRY), ENTRY | {"log": "slow.csv"}]
    write_list(folder / "episodes.yaml", entries, robot_log=GRIPPER)
    refused(folder, "episode 3: its log has 5 states a second, the others 10")
