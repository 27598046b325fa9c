"""``grape import lerobot``: LeRobotDatasets become episode stores, and what was exported comes back."""

import json

import numpy as np
import pytest

from grape.cli.main import main
from grape.core.errors import CompatibilityError, DataError
from grape.core.files import read_jsonl
from grape.exchange import (
    ImportLeRobotSettings,
    LeRobotExportSettings,
    run_export_lerobot,
    run_import_lerobot,
)
from grape.store import EpisodeStore
from grape.training import SftSettings, run_sft
from tests.exchange.recordings import make_recordings
from tests.store.lerobot.written_by_hand import actions_of, assert_images, write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("lerobot") / "pick", "v3.0", lengths=(5, 6, 4))


def test_the_command(dataset, tmp_path, capsys):
    words = ["import", "lerobot", "--data", str(dataset), "--out", str(tmp_path / "out"), "--cameras", "wrist,front"]
    assert main([*words, "--gripper", "+1 closes", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    expected = {"episodes": 3, "steps": 15, "tasks": 2, "successes": 2, "unknown_outcomes": 0, "left_out": 0, "fps": 10}
    assert summary.items() >= {**expected, "version": "v3.0", "cameras": ["wrist", "front"], "proprio": 4}.items()
    store = EpisodeStore.open(tmp_path / "out")
    assert not store.verify()
    assert store.contract["action_space"]["gripper"] == "+1 closes"
    rows = read_jsonl(tmp_path / "out" / "files.jsonl")
    assert [(row["episode_index"], row["rows"], row["success"]) for row in rows] == [
        (0, [0, 5], True), (1, [0, 6], False), (2, [0, 4], True),
    ]  # fmt: skip
    trajectory = store.read(rows[1]["episode_id"])
    np.testing.assert_array_equal(trajectory.actions, actions_of(1, 6))
    assert_images(trajectory.frames[:-1], 1, range(6), 1)
    assert_images(trajectory.cameras["front"][:-1], 1, range(6), 0)
    with pytest.raises(CompatibilityError):
        run_import_lerobot(ImportLeRobotSettings(dataset, tmp_path / "out"))
    assert main([*words[:3], str(tmp_path), "--out", str(tmp_path / "none")]) != 0
    assert "is no LeRobotDataset" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_an_export_comes_back(tmp_path):
    store, pairs = make_recordings(tmp_path / "run", states=3, size=(32, 48))
    run_export_lerobot(LeRobotExportSettings(tmp_path / "rows", collection=store.path, fps=5, crf=0))
    run_export_lerobot(LeRobotExportSettings(tmp_path / "pairs", pairs=pairs, fps=5))
    summary = run_import_lerobot(ImportLeRobotSettings(tmp_path / "rows", tmp_path / "back"))
    back = EpisodeStore.open(tmp_path / "back")
    metas = {meta.extra["episode_id"]: meta for meta in back.metas()}
    assert (set(metas), summary["fps"]) == (set(store.ids()), 5)
    for name in store.ids():
        expected, actual = store.read(name), back.read(metas[name].episode_id)
        for actions in (actual.actions, actual.labels):
            np.testing.assert_array_equal(actions, expected.labels)
        np.testing.assert_array_equal(actual.proprio[:-1], expected.proprio[:-1])
        for fact in ("task", "instruction", "initial_state", "success", "steps"):
            assert getattr(actual.meta, fact) == getattr(expected.meta, fact), fact
        errors = np.abs(actual.frames[:-1].astype(float) - expected.frames[:-1]).mean(axis=(1, 2, 3))
        others = np.abs(actual.frames[:-1].astype(float) - np.roll(expected.frames[:-1], 1, axis=0)).mean(
            axis=(1, 2, 3)
        )
        assert (errors < 0.75 * others).all()  # random pixels: half the colors' resolution is lost
    again = run_export_lerobot(LeRobotExportSettings(tmp_path / "again", collection=tmp_path / "back"))  # fps is known
    assert (again["episodes"], again["steps"], again["fps"]) == (6, summary["steps"], 5)
    chosen = run_import_lerobot(ImportLeRobotSettings(tmp_path / "pairs" / "chosen", tmp_path / "chosen"))
    assert (chosen["episodes"], chosen["successes"]) == (3, 3)


def test_a_stopped_import_goes_on(dataset, tmp_path, monkeypatch):
    settings = ImportLeRobotSettings(dataset, tmp_path / "out")
    write, written = EpisodeStore.write, []

    def failing(store, trajectory):
        written.append(trajectory.meta.episode_id)
        if len(written) == 2:
            raise DataError("the power fails")
        write(store, trajectory)

    monkeypatch.setattr(EpisodeStore, "write", failing)
    with pytest.raises(DataError, match="power"):
        run_import_lerobot(settings)
    summary = run_import_lerobot(settings)
    assert summary["episodes"] == len(EpisodeStore.open(tmp_path / "out")) == 3
    assert written[0] not in written[1:]
    assert run_import_lerobot(settings) == summary


def test_fine_tuning_reads_the_folder(dataset, tmp_path):
    summary = run_sft(
        SftSettings((dataset,), out=tmp_path / "sft", epochs=1, batch_size=8, proprio=True, picture_cache_gb=1e-6)
    )
    assert (summary["episodes"], summary["steps"], summary["norm_key"]) == (3, 15, "pick")
    imported = run_import_lerobot(ImportLeRobotSettings(dataset, tmp_path / "imported"))
    assert imported["steps"] == summary["steps"]
    with pytest.raises(DataError, match=r"info\.json"):
        run_sft(SftSettings((write_broken(tmp_path / "broken"),), out=tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def write_broken(folder):
    (folder / "meta").mkdir(parents=True)
    (folder / "meta" / "info.json").write_text("[]")
    return folder
