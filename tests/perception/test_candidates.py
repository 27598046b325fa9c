"""Candidates, their numbers on the image, and the files that hold them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from grape.core.cameras import Camera
from grape.core.errors import DataError
from grape.perception import (
    CandidateSettings,
    ImageKeypoint,
    draw_numbers,
    find_candidates,
    read_keypoint_file,
    write_keypoint_file,
)
from grape.perception.candidates import k_means

CAMERA = Camera(np.array([[60.0, 0, 30], [0, 60, 20], [0, 0, 1]]), np.eye(4), (40, 60))


def scene():
    """Two colored squares 1 m away before a gray wall at 2 m."""
    image = np.full((40, 60, 3), 128, np.uint8)
    depth = np.full((40, 60), 2.0, np.float32)
    for place, color in (((8, 8), (250, 20, 20)), ((20, 40), (20, 20, 250))):
        image[place[0] : place[0] + 9, place[1] : place[1] + 9] = color
        depth[place[0] : place[0] + 9, place[1] : place[1] + 9] = 1.0
    return image, depth


def features(image):
    return image.astype(np.float32) / 255


def test_each_thing_becomes_a_candidate_numbered_from_the_top():
    image, depth = scene()
    chosen = CandidateSettings(clusters=2, region=(-5.0, -5.0, 0.5, 5.0, 5.0, 1.5))
    candidates = find_candidates(features(image), depth, CAMERA, settings=chosen)
    assert [item.number for item in candidates] == [0, 1]
    np.testing.assert_allclose([item.pixel for item in candidates], [(12.5, 12.5), (44.5, 24.5)])
    np.testing.assert_allclose(candidates[0].point, CAMERA.lift(candidates[0].pixel, 1.0))
    assert [item.size for item in candidates] == [81, 81]
    assert candidates == find_candidates(features(image), depth, CAMERA, settings=chosen)


def test_masks_are_clustered_apart_and_close_candidates_merged():
    image, depth = scene()
    masks = [depth < 1.5, (image == [20, 20, 250]).all(axis=-1)]
    candidates = find_candidates(features(image), depth, CAMERA, masks, CandidateSettings(clusters=2, apart=0.05))
    assert len(candidates) == len({item.pixel for item in candidates})
    points = np.array([item.point for item in candidates])
    apart = np.linalg.norm(points[:, None] - points, axis=-1) + np.eye(len(points))
    assert apart.min() >= 0.05
    many = CandidateSettings(clusters=8, apart=0.0, most=3)
    assert len(find_candidates(features(image), depth, CAMERA, masks, many)) == 3


def test_nothing_without_depth_or_outside_the_region():
    image, depth = scene()
    assert find_candidates(features(image), np.zeros_like(depth), CAMERA) == ()
    far = CandidateSettings(region=(0.0, 0.0, 10.0, 1.0, 1.0, 11.0))
    assert find_candidates(features(image), depth, CAMERA, settings=far) == ()


def test_coarse_features_cover_the_image():
    image, depth = scene()
    coarse = features(image)[::4, ::4]
    candidates = find_candidates(coarse, depth, CAMERA, settings=CandidateSettings(clusters=3))
    assert len(candidates) >= 2


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 100))
def test_clusters_partition_the_vectors(count, clusters, seed):
    vectors = np.random.default_rng(seed).normal(size=(count, 3))
    labels, centers = k_means(vectors, clusters)
    assert len(centers) <= min(clusters, count)
    assert set(labels.tolist()) == set(range(len(centers)))
    for label, center in enumerate(centers):
        np.testing.assert_allclose(center, vectors[labels == label].mean(axis=0), atol=1e-9)


def test_clusters_that_are_plain_to_see():
    rng = np.random.default_rng(0)
    middles = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    vectors = np.repeat(middles, 50, axis=0) + rng.normal(scale=0.1, size=(150, 2))
    labels, _ = k_means(vectors, 3)
    assert [len(set(labels[start : start + 50].tolist())) for start in (0, 50, 100)] == [1, 1, 1]
    assert len(set(labels.tolist())) == 3


def test_numbers_are_drawn_large_and_alike_every_time():
    image, _ = scene()
    pixels = [(12.5, 12.5), (44.5, 24.5), (45.5, 25.5), (0.0, 0.0), (60.0, 40.0)]
    drawn = draw_numbers(image, pixels)
    assert drawn.shape == (520, 780, 3)  # 13 times
    np.testing.assert_array_equal(drawn, draw_numbers(image, pixels))
    plain = draw_numbers(image, [])
    changed = (drawn != plain).any(axis=-1)
    for column, row in pixels[:3]:
        around = changed[int(row * 13) - 40 : int(row * 13) + 40, int(column * 13) - 40 : int(column * 13) + 40]
        assert around.mean() > 0.05
    other = draw_numbers(image, pixels, [7, 8, 9, 10, 11])
    assert (other != drawn).any()
    large = np.zeros((600, 800, 3), np.uint8)
    assert draw_numbers(large, [(100.0, 100.0)]).shape == (600, 800, 3)


KEYPOINTS = (ImageKeypoint("point_0", (12.5, 12.5)), ImageKeypoint("cup", None, "a cup"))


def test_keypoint_files_round_trip(tmp_path):
    image, depth = scene()
    depth[0, :3] = [np.nan, -1.0, 70.0]
    write_keypoint_file(tmp_path, KEYPOINTS, image, depth)
    keypoint_file = read_keypoint_file(tmp_path)
    assert keypoint_file.keypoints == KEYPOINTS
    np.testing.assert_array_equal(keypoint_file.image, image)
    np.testing.assert_allclose(keypoint_file.depth[1:], depth[1:], atol=0.0005)
    assert keypoint_file.depth[0, :3].tolist() == [0.0, 0.0, 0.0]
    again = read_keypoint_file(tmp_path / "keypoints.yaml")
    assert again.digest == keypoint_file.digest
    Image.fromarray(image[::-1].copy()).save(tmp_path / "reference.png")
    assert read_keypoint_file(tmp_path).digest != keypoint_file.digest


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "no mapping"),
        ("version: 2\nkeypoints: []", "version is 2"),
        ("version: 1\nkeypoints: []", "list of 1 to"),
        ("version: 1\nkeypoint: []", r"(?s)'keypoint' is unknown. Did you mean 'keypoints'"),
        ("version: 1\nkeypoints: [cup]", r"keypoints\[0\] is 'cup': should be an object"),
        ("version: 1\nkeypoints: [{name: 'a b', phrase: x}]", "name is 'a b'"),
        ("version: 1\nkeypoints: [{name: a}]", "either pixel or phrase"),
        ("version: 1\nkeypoints: [{name: a, phrase: x, pixel: [1, 2]}]", "either pixel or phrase"),
        ("version: 1\nkeypoints: [{name: a, phrase: x}, {name: a, phrase: y}]", "'a' is there twice"),
        ("version: 1\nkeypoints: [{name: a, pixel: [1, 2]}]", "no reference image"),
        ("version: 1\nreference: {picture: r.png}\nkeypoints: [{name: a, pixel: [1, .nan]}]", r"pixel\[1\] is nan"),
        ("version: 1\nreference: {picture: no.png}\nkeypoints: [{name: a, pixel: [1, 2]}]", "no.png"),
        ("version: 1\nreference: {picture: r.png}\nkeypoints: [{name: a, pixel: [61, 2]}]", "outside"),
        (
            "version: 1\nreference: {picture: r.png, depth: d.png}\nkeypoints: [{name: a, pixel: [1, 2]}]",
            "differ in size",
        ),
        ("version: 1\nreference: {picture: r.png, depth: r.png}\nkeypoints: [{name: a, pixel: [1, 2]}]", "16-bit"),
        ("a: !!python/object:os.system {}", "cannot be read"),
        ("a: [", "cannot be read"),
        ("a: &a [1]\nb: [*a, *a]", "anchors"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, text, words):
    Image.fromarray(scene()[0]).save(tmp_path / "r.png")
    Image.fromarray(np.ones((3, 4), np.uint16)).save(tmp_path / "d.png")
    (tmp_path / "keypoints.yaml").write_text(text)
    with pytest.raises(DataError, match=words):
        read_keypoint_file(tmp_path)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="run the verb that writes it"):
        read_keypoint_file(tmp_path)
