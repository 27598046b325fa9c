"""RLDS data sets read like an episode store."""

import numpy as np
import pytest
from PIL import Image

from grape.core.errors import DataError, SettingsError
from grape.store.rlds.demonstrations import RldsDemonstrations, is_rlds_location
from tests.store.rlds.datasets import make_columns, write_dataset
from tests.store.rlds.golden import FOLDER, expected, golden, needs_golden

SETS = {"modified_libero_rlds/libero_spatial_no_noops": 5, "oxe/bridge_orig": 4}


def test_a_plain_set(tmp_path):
    write_dataset(tmp_path, {"train": ["a", "b"]}, name="mine")
    store = RldsDemonstrations(f"rlds+plain:{tmp_path}/mine")
    assert store.ids() == ("open-the-drawer-000000", "open-the-drawer-000001")
    assert [meta.steps for meta in store.metas()] == [3, 3]
    trajectory = store.read(store.ids()[1])
    expected = make_columns("b", seed=1)
    np.testing.assert_array_equal(trajectory.frames[:-1], expected["steps/observation/image"])
    np.testing.assert_array_equal(trajectory.labels, expected["steps/action"])
    assert trajectory.meta == store.meta(store.ids()[1])
    assert store.read(store.ids()[0], frames=False).frames.shape == (4, 0, 0, 3)
    assert store.digest() == RldsDemonstrations(f"rlds+plain:{tmp_path}/mine").digest()
    with pytest.raises(DataError, match="no episode 'x'"):
        store.read("x")


def test_locations(tmp_path):
    assert is_rlds_location("rlds:/a/b")
    assert is_rlds_location("rlds+libero:/a/b")
    assert not is_rlds_location("runs/demos")
    assert not is_rlds_location("rlds")
    write_dataset(tmp_path, name="mine")
    with pytest.raises(SettingsError, match="No rule is known"):
        RldsDemonstrations(f"rlds:{tmp_path}/mine")
    with pytest.raises(SettingsError, match="no RLDS location"):
        RldsDemonstrations(str(tmp_path))


@needs_golden
@pytest.mark.parametrize("name", SETS)
def test_images_are_those_of_the_published_loader(name):
    store = RldsDemonstrations(f"rlds:{golden(name)}")
    assert len(store) == SETS[name]
    due = expected("loader_expected.json")[name]
    assert store.norm_stats()["num_transitions"] == due["statistics"]["num_transitions"]
    group, base = name.split("/")
    for index in (0, 1):
        trajectory, facts = store.read(store.ids()[index]), due["episodes"][index]
        assert trajectory.steps == facts["num_steps"]
        assert trajectory.frames[:-1].mean() == pytest.approx(facts["frames_mean"], abs=1e-3)
        frame = np.asarray(Image.open(FOLDER / "loader_frames" / f"{base}_{group}_{index}.png")).astype(int)
        assert np.abs(frame - trajectory.frames[0]).max() <= 1  # TensorFlow's lanczos3, rounded
