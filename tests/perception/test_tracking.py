"""The tracker of patches on drawn images whose motion is known to a fraction of a pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, map_coordinates

from grape.core.cameras import Camera
from grape.perception import PatchTracker, Tracks, aligning_shift, lift_tracks, mask_point, seen_points
from grape.perception.patches import color_pyramid, own_pixels, patch_offsets, sample

SIZE = 128


def texture(seed=0, size=SIZE, blur=2.0):
    noise = np.random.default_rng(seed).normal(size=(size, size, 3))
    smooth = gaussian_filter(noise, (blur, blur, 0), mode="wrap")
    return 128 + 50 * smooth / smooth.std()


def moved(image, column, row):
    """The image moved to the right and down, between pixels."""
    rows, columns = np.indices(image.shape[:2])
    planes = [map_coordinates(image[..., c], [rows - row, columns - column], order=3, mode="wrap") for c in range(3)]
    return np.stack(planes, axis=-1)


def as_image(image):
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def test_sampling_by_hand_and_at_the_edge():
    image = np.arange(12, dtype=np.float32).reshape(3, 4, 1)
    places = np.array([[0.5, 0.5], [1.0, 0.5], [1.0, 1.0], [3.5, 2.5], [9.0, 9.0], [-5.0, 0.5]])
    np.testing.assert_allclose(sample(image, places)[:, 0], [0.0, 0.5, 2.5, 11.0, 11.0, 0.0])


def test_pyramid_keeps_continuous_coordinates():
    image = as_image(texture())
    pyramid = color_pyramid(image, 3)
    assert [level.shape[:2] for level in pyramid] == [(128, 128), (64, 64), (32, 32)]
    np.testing.assert_allclose(pyramid[1][3, 5], image[6:8, 10:12].reshape(-1, 3).mean(axis=0))


@settings(max_examples=15, deadline=None)
@given(st.floats(-6.0, 6.0), st.floats(-6.0, 6.0), st.integers(0, 3))
def test_motion_between_pixels_is_found(column, row, seed):
    image = texture(seed)
    images = np.stack([as_image(image), as_image(moved(image, column, row))])
    points = np.array([[40.0, 50.5], [64.2, 64.8], [80.5, 33.1]])
    tracks = PatchTracker().track(images, points)
    assert (tracks.confidence[1] > 0.7).all()
    np.testing.assert_allclose(tracks.pixels[1] - points, np.tile([column, row], (3, 1)), atol=0.15)


def test_far_motion_is_found_by_searching():
    image = texture(blur=1.2)
    images = np.stack([as_image(image), as_image(moved(image, 27.0, -21.0))])
    tracks = PatchTracker().track(images, np.array([[50.0, 70.0]]))
    np.testing.assert_allclose(tracks.pixels[1, 0], [77.0, 49.0], atol=0.2)
    assert tracks.confidence[1, 0] > 0.7


def scene(steps, place, occluder=None):
    """A small textured square (16 pixels, 1 m away) before a textured wall (2 m), and perhaps a near disc (0.5 m)."""
    wall, thing = as_image(texture(1)), as_image(texture(2, 16, 1.5))
    images, depths = [], []
    for step in range(steps):
        image, depth = wall.copy(), np.full((SIZE, SIZE), 2.0, np.float32)
        column, row = place(step)
        image[row : row + 16, column : column + 16], depth[row : row + 16, column : column + 16] = thing, 1.0
        if occluder is not None and (covers := occluder(step)) is not None:
            rows, columns = np.indices((SIZE, SIZE))
            disc = (rows - covers[1]) ** 2 + (columns - covers[0]) ** 2 < 18**2
            image[disc], depth[disc] = (200, 40, 40), 0.5
        images.append(image)
        depths.append(depth)
    return np.stack(images), np.stack(depths)


def test_a_small_thing_is_followed_and_not_the_wall_behind_it():
    images, depth = scene(12, lambda step: (30 + 4 * step, 50 + step))
    points = np.array([[38.0, 58.0], [34.5, 54.5], [100.0, 20.0]])  # middle of the thing, near its corner; the wall
    tracks = PatchTracker().track(images, points, depth)
    there = points + np.array([[44, 11], [44, 11], [0, 0]])
    np.testing.assert_allclose(tracks.pixels[-1], there, atol=0.3)
    assert (tracks.confidence > 0.5).all()


def test_what_is_hidden_is_lost_and_found_again_where_it_was():
    covered = range(3, 8)
    images, depth = scene(12, lambda step: (60, 60), lambda step: (68, 68) if step in covered else None)
    tracks = PatchTracker().track(images, np.array([[68.0, 68.0]]), depth)
    lost = tracks.confidence[:, 0] < 0.5
    assert lost.tolist() == [step in covered for step in range(12)]
    np.testing.assert_allclose(tracks.pixels[:, 0], np.tile([68.0, 68.0], (12, 1)), atol=0.2)
    camera = Camera(np.array([[128.0, 0, 64], [0, 128, 64], [0, 0, 1]]), np.eye(4), (SIZE, SIZE))
    lifted = lift_tracks(tracks, depth, camera)
    assert np.isnan(lifted.points[:, 0]).all(axis=1).tolist() == lost.tolist()
    assert lifted.losses(0) == {"unsure": 5}
    np.testing.assert_allclose(lifted.points[-1, 0], [4 / 128, 4 / 128, 1.0], atol=2e-3)


def test_no_points_and_equal_results():
    images, depth = scene(3, lambda step: (60 + step, 60))
    assert PatchTracker().track(images, np.zeros((0, 2)), depth).pixels.shape == (3, 0, 2)
    points = np.array([[68.0, 68.0], [20.0, 20.0]])
    one, other = PatchTracker().track(images, points, depth), PatchTracker().track(images, points, depth)
    np.testing.assert_array_equal(one.pixels, other.pixels)
    np.testing.assert_array_equal(one.confidence, other.confidence)


def test_weights_tell_object_from_what_is_before_and_behind():
    depth = np.full((9, 9), 1.0, np.float32)
    depth[:, :3], depth[:, 6:], depth[0, :] = 2.0, 0.5, np.nan
    weights = own_pixels(depth, np.array([[4.5, 4.5]]), patch_offsets(4), 0.03).reshape(9, 9)
    assert (weights[1:, 3:6] == 1.0).all()
    assert ((weights[1:, :3] > 0) & (weights[1:, :3] < 0.5)).all()
    assert (weights[1:, 6:] == 0.0).all()
    unknown = own_pixels(depth, np.array([[4.5, 0.5]]), patch_offsets(1), 0.03)
    assert (unknown == 1.0).all()


CAMERA = Camera(np.array([[100.0, 0, 8], [0, 100, 8], [0, 0, 1]]), np.eye(4), (16, 16))


def lift(pixels, depth, confidence=None):
    pixels = np.asarray(pixels, dtype=np.float64)[:, None, :]
    sure = np.ones(pixels.shape[:2]) if confidence is None else np.asarray(confidence, float)[:, None]
    return lift_tracks(Tracks(pixels, sure), np.asarray(depth, np.float32), CAMERA)


def test_each_way_of_losing_a_point_is_told_apart_and_none_leaves_a_number():
    flat = np.ones((5, 16, 16))
    flat[2] = 0.0  # nothing measured
    flat[3] = 0.5  # something nearer
    pixels = [[8.5, 8.5], [8.5, 8.5], [8.5, 8.5], [8.5, 8.5], [20.0, 8.5]]
    lifted = lift(pixels, flat, [1, 0.4, 1, 1, 1])
    assert lifted.losses(0) == {"unsure": 1, "no depth": 1, "hidden": 1, "out of view": 1}
    assert np.isfinite(lifted.points[0, 0]).all()
    assert np.isnan(lifted.points[1:, 0]).all()


def test_at_an_edge_the_points_own_depth_is_taken():
    depth = np.full((2, 16, 16), 2.0)
    depth[:, :, :9] = 1.0
    depth[1, :, 8] = 2.0  # the edge came a pixel nearer
    lifted = lift([[8.5, 8.5], [8.2, 8.5]], depth)
    np.testing.assert_allclose(lifted.points[:, 0, 2], [1.0, 1.0])


def test_depth_may_follow_real_motion_but_not_jump():
    depth = np.ones((3, 16, 16))
    depth[1], depth[2] = 1.02, 1.3
    assert lift([[8.5, 8.5]] * 3, depth).losses(0) == {"hidden": 1}
    sideways = lift([[8.5, 8.5], [8.5, 8.5], [1.5, 8.5]], np.stack([depth[0], depth[0], depth[0] + 0.08]))
    assert sideways.losses(0) == {}  # seven centimeters to the side allow eight away


@pytest.mark.parametrize("hole", [False, True])
def test_the_middle_of_a_mask_is_on_the_thing(hole):
    rows, columns = np.indices((16, 16))
    away = np.hypot(rows - 8, columns - 6)
    mask = (away < 5) & ((away > 2.5) | (not hole))
    depth = np.where(mask, 1.0, 2.0).astype(np.float32)
    middle = mask_point(mask, depth, CAMERA)
    assert mask[int(middle[1]), int(middle[0])]
    if not hole:
        np.testing.assert_allclose(middle, [6.5, 8.5])


def test_a_mask_without_depth_has_no_middle():
    mask = np.ones((16, 16), bool)
    assert mask_point(mask, np.zeros((16, 16), np.float32), CAMERA) is None
    assert mask_point(~mask, np.ones((16, 16), np.float32), CAMERA) is None


def test_what_is_seen_in_part_is_laid_upon_what_was_seen_whole():
    """A cup's near half; then only its right part is seen. Its middle has moved, the cup has not turned."""
    around, up = np.meshgrid(np.linspace(0.0, np.pi, 30), np.linspace(0.0, 0.1, 15))
    radius = 0.03 + 0.2 * up
    before = np.stack([radius * np.cos(around), radius * np.sin(around), up], axis=-1).reshape(-1, 3)
    moved_by = np.array([0.12, -0.05, 0.03])
    part = before[before[:, 0] > 0.01]
    assert np.linalg.norm(np.median(part, axis=0) - np.median(before, axis=0)) > 0.02
    shift, left = aligning_shift(before, part + moved_by)
    np.testing.assert_allclose(shift, moved_by, atol=4e-3)
    assert left < 2e-3
    _, left = aligning_shift(before, before[:, [2, 1, 0]] + moved_by)  # lies on its side
    assert left > 6e-3


def test_seen_points_are_thinned_and_need_depth():
    depth = np.ones((64, 64), np.float32)
    depth[:32] = 0.0
    camera = Camera(np.array([[64.0, 0, 32], [0, 64, 32], [0, 0, 1]]), np.eye(4), (64, 64))
    points = seen_points(np.ones((64, 64), bool), depth, camera)
    assert 300 < len(points) <= 600
    assert (points[:, 1] > 0).all()
