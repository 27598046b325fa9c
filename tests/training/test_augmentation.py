import json
from pathlib import Path

import numpy as np
import pytest

from grape.training.augmentation import augment, openvla_recipe

IMAGES = np.random.default_rng(0).integers(0, 256, size=(5, 12, 10, 3), dtype=np.uint8)
TENSORFLOW = json.loads((Path(__file__).parent / "tensorflow_augmentation.json").read_text())["cases"]


def rng():
    return np.random.default_rng(1)


def smooth(side=32):
    down, right = np.mgrid[:side, :side]
    return np.stack([8 * right // 2 + 40, 200 - 4 * down, 4 * (right + down) // 2 + 30], axis=-1).astype(np.uint8)


def test_nothing_to_do_changes_nothing():
    assert augment(IMAGES, "none", 0, 0.0, rng()) is IMAGES


def test_shifted_images_are_shifted_copies():
    moved = augment(IMAGES, "none", 2, 0.0, rng())
    assert moved.dtype == np.uint8
    inner = slice(4, -4)
    for before, after in zip(IMAGES, moved, strict=True):
        shifts = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if np.array_equal(np.roll(before, (-down, -right), (0, 1))[inner, inner], after[inner, inner])
        ]
        assert len(shifts) == 1
    assert np.array_equal(moved, augment(IMAGES, "none", 2, 0.0, rng()))
    assert not np.array_equal(moved, augment(IMAGES, "none", 2, 0.0, np.random.default_rng(2)))


def test_brightness_is_one_bounded_factor_a_image():
    gray = np.full((50, 2, 2, 3), 100, dtype=np.uint8)
    changed = augment(gray, "none", 0, 0.2, rng())
    assert changed.min() >= 80
    assert changed.max() <= 120
    assert (changed == changed[:, :1, :1, :1]).all()
    assert len(np.unique(changed)) > 10
    assert augment(np.full((9, 1, 1, 3), 255, dtype=np.uint8), "none", 0, 1.0, rng()).dtype == np.uint8


@pytest.mark.parametrize("case", TENSORFLOW)
def test_the_recipe_computes_what_tensorflow_computes(case):
    before, expected = (np.frombuffer(bytes.fromhex(case[key]), np.uint8).reshape(case["shape"]) for key in _KEYS)
    changed = openvla_recipe(before[None], np.array([case["draws"]]))[0]
    apart = np.abs(changed.astype(int) - expected)
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.01


_KEYS = ("before", "after")


def test_the_recipe_depends_on_the_generator_alone_and_on_each_image_by_itself():
    changed = augment(IMAGES, "openvla", 0, 0.0, rng())
    assert changed.shape == IMAGES.shape
    assert changed.dtype == np.uint8
    assert np.array_equal(changed, augment(IMAGES, "openvla", 0, 0.0, rng()))
    assert not np.array_equal(changed, augment(IMAGES, "openvla", 0, 0.0, np.random.default_rng(2)))


def test_a_crop_in_the_middle_is_what_evaluation_cuts_out():
    from grape.core.images import center_crop

    # Offsets in the middle, and every change of color at its neutral point.
    neutral = [0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    middle = openvla_recipe(smooth()[None], np.array([neutral]))[0]
    apart = np.abs(middle.astype(int) - center_crop(smooth(), 0.9))
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.01


def test_crops_keep_nine_tenths_of_the_area_anywhere_and_reach_the_corners():
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (200, 200, 3))
    sides, corners = [], []
    for left in (0.0, 0.3, 1.0):
        changed = openvla_recipe(ramp[None], np.array([[0.5, left, 0.5, 0.5, 0.5, 0.5]]))[0][100, :, 0].astype(float)
        sides.append((changed[-1] - changed[0]) / 199)
        corners.append((changed[0], changed[-1]))
    assert sides == pytest.approx([0.9**0.5] * 3, abs=0.01)
    assert corners[0][0] == 0
    assert corners[2][1] == 199


def test_colors_stay_within_the_recipe():
    gray = np.full((200, 4, 4, 3), 128, dtype=np.uint8)
    levels = augment(gray, "openvla", 0, 0.0, rng())[:, 0, 0, 0].astype(float)
    assert levels.min() >= 128 - 0.2 * 255 - 2
    assert levels.max() <= 128 + 0.2 * 255 + 2
    assert levels.std() > 20
    # Gray has no color to saturate or turn.
    assert (np.ptp(augment(gray, "openvla", 0, 0.0, rng())[:, 0, 0].astype(int), axis=-1) == 0).all()


@pytest.mark.parametrize("recipe", [("openvla", 0, 0.0), ("none", 2, 0.3)])
def test_a_part_of_a_batch_gets_the_numbers_it_has_in_the_batch(recipe):
    whole = augment(IMAGES, *recipe, rng())
    parts = [augment(IMAGES[part], *recipe, rng(), (part.start, 5)) for part in (slice(0, 2), slice(2, 5))]
    assert np.array_equal(np.concatenate(parts), whole)
