"""Exports of episodes whose policy decided on several actions at once: one row a control step."""

import json
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from grape.exchange import LeRobotExportSettings, RldsExportSettings, run_export_lerobot, run_export_rlds
from grape.store import EpisodeStore
from grape.store.rlds import open_rlds
from tests.exchange.recordings import CONTRACT, loader_actions
from tests.reporters import Hearing
from tests.store.episodes import make_chunked_episode, make_episode

EXECUTED = ((3, 3, 1), (4, 2))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    store = EpisodeStore.create(tmp_path_factory.mktemp("run") / "store", "toy", CONTRACT)
    for number, executed in enumerate(EXECUTED):
        store.write(make_chunked_episode(executed, episode_id=f"e{number}", seed=number))
    return store


def latest(number: int) -> list[int]:
    """Image of each control step: that of the decision on its action."""
    return [decision for decision, count in enumerate(EXECUTED[number]) for _ in range(count)]


def test_rlds_repeats_the_image_that_an_action_was_decided_on(store: EpisodeStore, tmp_path: Path) -> None:
    settings = RldsExportSettings(out=tmp_path / "out", collection=store.path, name="chunks", val_fraction=0.0)
    assert run_export_rlds(settings)["steps"] == 13
    for episode in open_rlds(tmp_path / "out" / "chunks").read("all"):
        recorded = store.read(episode.file_path)
        images = episode.steps["observation/image"].decode()  # type: ignore[union-attr]
        np.testing.assert_array_equal(images, recorded.frames[latest(int(episode.file_path[1:]))])
        np.testing.assert_allclose(episode.steps["action"], loader_actions(recorded.labels), atol=1e-6)
        np.testing.assert_array_equal(episode.steps["observation/state"], recorded.proprio[:-1])


def test_lerobot_has_as_many_images_as_control_steps(store: EpisodeStore, tmp_path: Path) -> None:
    summary = run_export_lerobot(LeRobotExportSettings(collection=store.path, out=tmp_path / "out", fps=5))
    assert summary["steps"] == 13
    assert json.loads((tmp_path / "out" / "meta" / "info.json").read_text())["total_frames"] == 13
    (table,) = (tmp_path / "out").glob("data/*/*.parquet")
    actions = np.array(pq.read_table(table).column("action").to_pylist())
    assert actions.shape == (13, 7)
    (video,) = (tmp_path / "out").glob("videos/*/*/*.mp4")
    with av.open(str(video)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 13


def test_lerobot_says_that_further_cameras_are_left_out(store: EpisodeStore, tmp_path: Path) -> None:
    assert store.read("e0").cameras
    summary = run_export_lerobot(LeRobotExportSettings(collection=store.path, out=tmp_path / "out", fps=5))
    assert any("further cameras" in sentence for sentence in summary["lost"])


def test_images_that_are_repeated_are_warned_of(store: EpisodeStore, tmp_path: Path) -> None:
    plain = EpisodeStore.create(tmp_path / "plain", "toy", CONTRACT)
    plain.write(make_episode(episode_id="e0"))
    for source, count in ((store, 1), (plain, 0)):
        rlds = RldsExportSettings(out=tmp_path / f"rlds-{count}", collection=source.path, val_fraction=0.0)
        lerobot = LeRobotExportSettings(out=tmp_path / f"lerobot-{count}", collection=source.path, fps=5)
        for run, settings in ((run_export_rlds, rlds), (run_export_lerobot, lerobot)):
            hearing = Hearing()
            run(settings, hearing)  # type: ignore[operator]
            assert sum("up to 4 control steps apart" in warning for warning in hearing.warnings) == count
