import numpy as np

from grape.training.augmentation import augment

PICTURES = np.random.default_rng(0).integers(0, 256, size=(5, 12, 10, 3), dtype=np.uint8)


def rng():
    return np.random.default_rng(1)


def test_nothing_to_do_changes_nothing():
    assert augment(PICTURES, 0, 0.0, rng()) is PICTURES


def test_shifted_pictures_are_shifted_copies():
    moved = augment(PICTURES, 2, 0.0, rng())
    assert moved.dtype == np.uint8
    inner = slice(4, -4)
    for before, after in zip(PICTURES, moved, strict=True):
        shifts = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if np.array_equal(np.roll(before, (-down, -right), (0, 1))[inner, inner], after[inner, inner])
        ]
        assert len(shifts) == 1
    assert np.array_equal(moved, augment(PICTURES, 2, 0.0, rng()))
    assert not np.array_equal(moved, augment(PICTURES, 2, 0.0, np.random.default_rng(2)))


def test_brightness_is_one_bounded_factor_a_picture():
    grey = np.full((50, 2, 2, 3), 100, dtype=np.uint8)
    changed = augment(grey, 0, 0.2, rng())
    assert changed.min() >= 80
    assert changed.max() <= 120
    assert (changed == changed[:, :1, :1, :1]).all()
    assert len(np.unique(changed)) > 10
    assert augment(np.full((9, 1, 1, 3), 255, dtype=np.uint8), 0, 1.0, rng()).dtype == np.uint8
