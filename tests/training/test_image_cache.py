import itertools
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grape.core.errors import DataError
from grape.core.events import SILENT
from grape.store import EpisodeStore
from grape.training.dataset import load_steps
from grape.training.image_cache import ImageCache, episodes_that_fit
from tests.training.test_sft import demonstrate

SHAPE = (2, 3, 3)
IMAGE = 18  # bytes


@dataclass
class Episodes:
    """A store whose images hold their row's number; it counts what is decoded."""

    lengths: list[int]
    decoded: Counter = field(default_factory=Counter)

    def __post_init__(self):
        self.starts = np.array([0, *itertools.accumulate(self.lengths)])

    def images(self, name, decisions, camera=""):
        self.decoded["single"] += len(decisions)
        rows = self.starts[name] + np.asarray(decisions)
        return np.broadcast_to(rows.astype(np.uint8)[:, None, None, None], (len(rows), *SHAPE))

    def read(self, name):
        self.decoded[name] += 1
        self.decoded["single"] -= self.lengths[name] + 1
        images = self.images(name, range(self.lengths[name] + 1))
        return type("Episode", (), {"frames": images.copy()})

    def cache(self, images, **options):
        names = [(self, name) for name in range(len(self.lengths))]
        return ImageCache(names, self.starts, SHAPE, images * IMAGE, **options)


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    room=st.integers(0, 30),
    scattered=st.booleans(),
    data=st.data(),
)
def test_any_rows_in_any_order_within_the_memory(lengths, room, scattered, data):
    episodes = Episodes(lengths)
    cache = episodes.cache(room, scattered=scattered)
    assert len(cache) == sum(lengths)
    for _ in range(4):
        rows = np.array(data.draw(st.lists(st.integers(0, sum(lengths) - 1), min_size=1, max_size=9)))
        images = cache[rows]
        assert images.shape == (len(rows), *SHAPE)
        assert (images == rows[:, None, None, None]).all()
        held = [len(images) for images in cache._held.values()]
        assert sum(held) <= room or (len(held) == 1 and not scattered)


def test_what_fits_is_decoded_once_and_nothing_before_it_is_needed():
    episodes = Episodes([3, 4, 5])
    cache = episodes.cache(12)
    assert not episodes.decoded
    for _ in range(3):
        cache[np.arange(12)[::-1]]
    assert {name: episodes.decoded[name] for name in range(3)} == {0: 1, 1: 1, 2: 1}


def test_scattered_rows_beyond_the_memory_are_decoded_alone():
    episodes = Episodes([4] * 10)
    cache = episodes.cache(8, scattered=True)
    order = np.random.default_rng(0).permutation(40)
    for rows in np.split(order, 10):
        cache[rows]
    whole = [name for name in range(10) if episodes.decoded[name]]
    assert len(whole) == 2  # as many as fit stay
    first = {name: int(np.flatnonzero(order // 4 == name)[0]) for name in whole}
    assert sorted(first.values())[0] == 0
    assert episodes.decoded["single"] <= 32
    episodes.decoded.clear()
    for rows in np.split(order, 10):
        cache[rows]
    assert episodes.decoded == {"single": 32}


def test_a_batch_over_the_border_of_two_groups_decodes_no_episode_twice():
    episodes = Episodes([4] * 4)
    cache = episodes.cache(8)
    cache[np.arange(8)]
    cache[np.array([8, 12, 0, 4])]  # one step of each episode: those in memory go first
    assert [episodes.decoded[name] for name in range(4)] == [1, 1, 1, 1]


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=30), images=st.integers(0, 600))
def test_any_group_of_the_chosen_size_fits(lengths, images):
    together = episodes_that_fit(lengths, SHAPE, images * IMAGE)
    if together == 0:
        assert sum(lengths) <= images
        return
    assert sum(lengths) > images
    longest = sorted(lengths, reverse=True)
    assert sum(longest[:together]) <= images or together == 1
    assert sum(longest[: together + 1]) > images


def test_nothing_is_decoded_to_load_and_single_images_are_those_of_the_episode(tmp_path, monkeypatch):
    store = EpisodeStore.open(demonstrate(tmp_path / "store", episodes=3, steps=70))
    with monkeypatch.context() as patch:
        patch.setattr("grape.store.episode_file.decode_frames", lambda *_: pytest.fail("an image was decoded"))
        steps = load_steps([store], [store.ids()], SILENT, image_bytes=0, scattered=True)
    for name, (start, stop) in steps.spans.items():
        whole = store.read(name)
        np.testing.assert_array_equal(steps.labels_TD[start:stop], whole.labels)
        np.testing.assert_array_equal(steps.images_NHWC[np.arange(start, stop)], whole.frames[:-1])
    rows = np.array([69, 0, 70, 139, 1, 69, 205])
    np.testing.assert_array_equal(
        steps.images_NHWC[rows], np.stack([store.read(f"demo-{row // 70}").frames[row % 70] for row in rows])
    )


def test_a_damaged_image_is_named_when_it_is_read(tmp_path):
    store = EpisodeStore.open(demonstrate(tmp_path / "store", episodes=1, steps=8))
    path = store.path / "episodes" / "demo-0.parquet"
    content = bytearray(path.read_bytes())
    place = content.index(b"\x28\xb5\x2f\xfd")  # the first image
    content[place + 12] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"demo-0\.parquet"):
        store.images("demo-0", [3])
    assert len(store.decisions("demo-0").labels) == 8
    with pytest.raises(DataError, match="holds 9 images"):
        EpisodeStore.open(demonstrate(tmp_path / "other", episodes=1)).images("demo-0", [9])


def test_images_of_other_sizes_are_refused(tmp_path):
    stores = [EpisodeStore.open(demonstrate(tmp_path / str(side), episodes=1, side=side)) for side in (16, 24)]
    with pytest.raises(DataError, match=r"of the shapes \[\(16, 16, 3\), \(24, 24, 3\)\]"):
        load_steps(stores, [["demo-0"], ["demo-0"]], SILENT)
