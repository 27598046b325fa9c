"""``grape export rerun``: read here by Rerun's own reader."""

import dataclasses
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grape.cli.main import main
from grape.collect import CollectSettings, run_collect
from grape.core.cameras import Camera
from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.exchange import RerunExportSettings, run_export_rerun
from grape.preferences import ScoreSettings, read_scores, run_score, with_curves
from grape.store import EpisodeStore
from tests.exchange.recordings import make_recordings
from tests.store.episodes import make_chunked_episode, make_episode

pytestmark = pytest.mark.needs("rerun")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pushes by experts of the toy world, with scores."""
    root = tmp_path_factory.mktemp("run")
    run_collect(
        CollectSettings(out=root / "rollouts", suite="toy", tasks="push-block", initial_states="0-1", workers=1)
    )
    run_score(ScoreSettings(store=root / "rollouts", out=root / "scores"))
    return root


def export(out: Path, **options: object) -> dict:
    return dict(run_export_rerun(RerunExportSettings(out=out, **options)))


def load(path: Path) -> dict:
    """What a recording holds: by entity, its columns over time and what holds throughout."""
    from rerun.chunk import RrdReader

    entities: dict = {}
    for chunk in RrdReader(path).stream():
        columns = chunk.to_record_batch().to_pydict()
        kept = entities.setdefault(chunk.entity_path, {}).setdefault("static" if chunk.is_static else "rows", {})
        kept |= {name: values for name, values in columns.items() if not name.startswith("rerun.controls")}
    return entities


def pixels(blob: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(bytes(blob))))


def images_of(rows: dict) -> list[bytes]:
    return [bytes(row[0]) for row in rows["EncodedImage:blob"]]


def test_a_scored_episode_reads_back(run: Path, tmp_path: Path) -> None:
    store = EpisodeStore.open(run / "rollouts")
    scores = with_curves(run / "scores", read_scores(run / "scores").values())
    summary = export(tmp_path / "out", scores=run / "scores")
    assert (summary["episodes"], summary["scored"], summary["hz"]) == (2, 2, 10.0)
    files = sorted((tmp_path / "out" / "recordings").glob("*.rrd"))
    assert [path.stem for path in files] == list(store.ids())
    for path in files:
        expected, score, recording = store.read(path.stem, display=True), scores[path.stem], load(path)
        steps = list(range(expected.steps + 1))
        rows = recording["/world/cameras/main"]["rows"]
        assert rows["step"] == steps
        assert [time.total_seconds() for time in rows["time"]] == pytest.approx([step / 10 for step in steps])
        assert rows["EncodedImage:media_type"] == [["image/png"]] * len(steps)
        np.testing.assert_array_equal([pixels(blob) for blob in images_of(rows)], expected.frames)
        assert images_of(recording["/display"]["rows"]) == list(store.display_files(path.stem))
        assert pixels(images_of(recording["/display"]["rows"])[0]).shape == (128, 128, 3)
        for name, points in expected.keypoints.items():
            stored_points = recording[f"/world/keypoints/{name}"]
            assert stored_points["static"]["Points3D:labels"] == [[name]]
            np.testing.assert_array_equal(np.array(stored_points["rows"]["Points3D:positions"])[:, 0], points)
        actions = recording["/robot/action"]
        np.testing.assert_array_equal(np.float32(actions["rows"]["Scalars:scalars"]), expected.actions)
        assert actions["static"]["SeriesLines:names"] == [["dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"]]
        assert "/policy/logp" not in recording  # an expert's
        assert sum(entity.startswith("/costs/") for entity in recording) > 3
        entered = [stage for stage in score.stages if stage.reached]
        assert len(entered) > 1
        stages = recording["/stages"]["rows"]
        lane = dict(zip(stages["step"], stages["StateChange:state"], strict=True))
        assert [lane[stage.start] for stage in entered] == [[stage.name] for stage in entered]
        for stage in entered:
            for constraint in stage.constraints:
                curve = recording[f"/costs/{stage.name}/{constraint.name}"]
                values = np.array(curve["rows"]["Scalars:scalars"])
                np.testing.assert_array_equal(values[:, 0], constraint.curve)
                assert set(values[:, 1]) == {constraint.threshold}
                assert curve["rows"]["step"][-1] == stage.end
                assert len(curve["rows"]["step"]) in (stage.end - stage.start, stage.end - stage.start + 1)
        solved = [state > 0.5 for state in expected.signals["success"]]
        success = recording["/success"]["rows"]
        assert success["step"] == [0, solved.index(True)]
        assert success["StateChange:state"] == [["not solved"], ["solved"]]
        facts = recording["/__properties/episode"]["static"]
        assert facts["instruction"] == [["push the block right"]]
        assert facts["gcpg"] == [[pytest.approx(score.gcpg)]]
        name = f"push-block, state {expected.meta.initial_state}, sample 0: success"
        assert recording["/__properties"]["static"]["RecordingInfo:name"] == [[name]]
        assert "push the block right" in recording["/episode"]["static"]["TextDocument:text"][0][0]


def test_chunks_cameras_and_points_that_were_lost(tmp_path: Path) -> None:
    from rerun.chunk import RrdReader

    turn = np.array([[1.0, 0, 0, 0.1], [0, -1, 0, 0.2], [0, 0, -1, 0.9], [0, 0, 0, 1]])
    camera = Camera(np.array([[-20.0, 0, 8], [0, 20, 8], [0, 0, 1]]), turn, (16, 16))  # mirrored, as LIBERO's
    episode = make_chunked_episode(display=True)
    keypoints = {name: points.copy() for name, points in episode.keypoints.items()}
    keypoints["object"][2:4] = np.nan
    meta = dataclasses.replace(episode.meta, extra={"camera": camera.to_dict()}, instruction="open | *it*\n# now")
    store = EpisodeStore.create(tmp_path / "store", "toy", {})
    store.write(dataclasses.replace(episode, keypoints=keypoints, meta=meta))
    summary = export(tmp_path / "one.rrd", store=store.path, hz=5)
    assert (summary["images"], summary["scored"], summary["curves"]) == (3 * 4, 0, 0)
    recording = load(tmp_path / "one.rrd")
    for entity, frames in (("main", episode.frames), ("wrist", episode.cameras["wrist"])):
        rows = recording[f"/world/cameras/{entity}"]["rows"]
        assert rows["step"] == [0, 3, 6, 7]
        np.testing.assert_array_equal([pixels(blob) for blob in images_of(rows)], frames)
    points = recording["/world/keypoints/object"]["rows"]["Points3D:positions"]
    assert [len(row or ()) for row in points] == [1, 1, 0, 0, 1, 1, 1, 1]
    assert recording["/robot/state"]["rows"]["step"] == list(range(8))
    np.testing.assert_allclose(
        np.ravel(recording["/policy/logp"]["rows"]["Scalars:scalars"]), episode.token_logps.sum(axis=1), rtol=1e-5
    )
    static = recording["/world/cameras/main"]["static"]
    matrix = np.array(static["Transform3D:mat3x3"][0][0]).reshape(3, 3).T  # Rerun stores columns
    intrinsic = np.array(static["Pinhole:image_from_camera"][0][0]).reshape(3, 3).T
    world = np.array([0.13, 0.17, 0.2])
    local = np.linalg.solve(matrix, world - np.array(static["Transform3D:translation"][0][0]))
    expected, depth = camera.resized(8, 8).project(world)
    np.testing.assert_allclose((intrinsic @ local)[:2] / local[2], expected, rtol=1e-5)
    assert local[2] == pytest.approx(float(depth))
    assert intrinsic[0, 0] > 0
    assert r"# open \| \*it\* \# now" in recording["/episode"]["static"]["TextDocument:text"][0][0]
    assert [entry.recording_id for entry in RrdReader(tmp_path / "one.rrd").recordings()] == [
        f"{meta.episode_id}-{store.checksum(meta.episode_id)[:8]}"
    ]


def test_without_seconds_cameras_or_outcome(tmp_path: Path) -> None:
    episode = make_episode(success=None)
    signals = {**episode.signals, "success": np.full(6, np.nan, np.float32)}
    meta = dataclasses.replace(episode.meta, extra={"camera": {"size": 8}})  # no pinhole camera
    store = EpisodeStore.create(tmp_path / "store", "toy", {})
    store.write(dataclasses.replace(episode, signals=signals, meta=meta))
    assert export(tmp_path / "out", store=store.path)["hz"] is None
    recording = load(next((tmp_path / "out" / "recordings").glob("*.rrd")))
    assert "time" not in recording["/robot/action"]["rows"]
    assert recording["/robot/action"]["static"]["SeriesLines:names"] == [[f"action {index}" for index in range(7)]]
    assert "/success" not in recording
    assert "static" not in recording["/world/cameras/main"]
    assert recording["/__properties/episode"]["static"]["outcome"] == [["outcome unknown"]]


def test_selections(run: Path, tmp_path: Path) -> None:
    store, pairs = make_recordings(tmp_path / "made", states=3)
    names = store.ids()

    def chosen(**options: object) -> list[str]:
        out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        export(out, **options)
        return sorted(path.stem for path in out.glob("recordings/*.rrd"))

    assert chosen(store=store.path, episodes=(names[4], names[1])) == [names[1], names[4]]
    assert chosen(pairs=pairs, limit=3) == list(names[:3])
    assert chosen(store=store.path, only_successes=True, tasks=("drawer-open",)) == list(names[::2])
    before = set(tmp_path.iterdir())
    for options, error, words in (
        ({}, SettingsError, "No episodes are named"),
        ({"store": store.path, "episodes": ("nobody",)}, SettingsError, "Unknown episode 'nobody'"),
        ({"store": store.path, "tasks": ("drawer-opne",)}, SettingsError, "Unknown task"),
        ({"store": store.path, "scores": run / "scores"}, DataError, "has a score of none"),
        ({"store": run / "rollouts", "pairs": pairs}, DataError, "lacks 6 episodes of the pairs"),
        ({"store": store.path, "pairs": pairs, "limit": -1}, SettingsError, "--limit is -1"),
    ):
        with pytest.raises(error, match=words):
            export(tmp_path / "refused", **options)
    with pytest.raises(SettingsError, match="holds one episode; 6 are chosen"):
        export(tmp_path / "all.rrd", store=store.path)
    assert set(tmp_path.iterdir()) == before


def test_nothing_is_overwritten(run: Path, tmp_path: Path) -> None:
    options = {"scores": run / "scores", "limit": 1}
    first = export(tmp_path / "out", **options)
    file = next((tmp_path / "out" / "recordings").glob("*.rrd"))
    before = file.read_bytes()
    assert export(tmp_path / "out", **options) == first
    with pytest.raises(CompatibilityError, match="another run"):
        export(tmp_path / "out", scores=run / "scores", limit=2)
    assert file.read_bytes() == before
    (tmp_path / "one.rrd").write_bytes(b"mine")
    with pytest.raises(CompatibilityError, match="there already"):
        export(tmp_path / "one.rrd", **options)
    assert (tmp_path / "one.rrd").read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.rrd", "out"]


@pytest.mark.parametrize("name", ["out", "one.rrd"])
def test_a_recording_that_lost_something_is_not_published(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from rerun.chunk import LazyChunkStream

    honest = LazyChunkStream.from_iter
    monkeypatch.setattr(LazyChunkStream, "from_iter", staticmethod(lambda chunks: honest(list(chunks)[:-1])))
    with pytest.raises(DataError, match="came back altered"):
        export(tmp_path / name, scores=run / "scores", limit=1)
    assert not list(tmp_path.iterdir())


def test_the_layout_is_a_blueprint_of_the_same_application(run: Path, tmp_path: Path) -> None:
    from rerun.chunk import RrdReader

    export(tmp_path / "out", scores=run / "scores", limit=1)
    folder = tmp_path / "out" / "recordings"
    (layout,) = RrdReader(folder / "layout.rbl").blueprints()
    (recording,) = RrdReader(next(folder.glob("*.rrd"))).recordings()
    assert layout.application_id == recording.application_id == "grape"


def test_the_command_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", "rerun", "--scores", str(run / "scores"), "--out", str(tmp_path / "out")]
    assert main([*words, "--dry-run"]) == 0
    assert not list(tmp_path.iterdir())
    assert main(words) == 0
    assert "episodes  2" in capsys.readouterr().out


def test_without_the_extra(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "rerun"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["export", "rerun", "--scores", str(run / "scores"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "rerun-sdk, which is not installed" in error
    assert "pip install 'grape-vla[rerun]'" in error
    assert not list(tmp_path.iterdir())
