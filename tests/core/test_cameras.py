"""Projection and lifting are inverse to each other, whatever the camera."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from grape.core.cameras import Camera, camera_from_dict
from grape.core.errors import DataError

NUMBER = st.floats(-2.0, 2.0)


@st.composite
def cameras(draw):
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec([draw(NUMBER) for _ in range(3)]).as_matrix()
    pose[:3, 3] = [draw(NUMBER) for _ in range(3)]
    focal = draw(st.floats(50.0, 2000.0))
    intrinsic = np.array(
        [
            [draw(st.sampled_from([-1.0, 1.0])) * focal, draw(st.floats(-5.0, 5.0)), draw(st.floats(0.0, 640.0))],
            [0.0, draw(st.floats(50.0, 2000.0)), draw(st.floats(0.0, 480.0))],
            [0.0, 0.0, 1.0],
        ]
    )
    return Camera(intrinsic, pose, (480, 640))


@given(cameras(), st.lists(st.tuples(st.floats(0, 640), st.floats(0, 480), st.floats(0.05, 10.0)), min_size=1))
def test_lifting_then_projecting_gives_pixel_and_depth_back(camera, seen):
    seen = np.array(seen)
    pixels, depth = camera.project(camera.lift(seen[:, :2], seen[:, 2]))
    np.testing.assert_allclose(pixels, seen[:, :2], atol=1e-6)
    np.testing.assert_allclose(depth, seen[:, 2], rtol=1e-9)


@given(cameras(), st.lists(st.tuples(NUMBER, NUMBER, NUMBER), min_size=1))
def test_projecting_then_lifting_gives_the_point_back_where_it_is_in_front(camera, points):
    points = np.array(points)
    pixels, depth = camera.project(points)
    lifted = camera.lift(pixels, depth)
    front = depth > 1e-3
    np.testing.assert_allclose(lifted[front], points[front], atol=1e-6)
    assert np.isnan(lifted[depth <= 0]).all()


@given(cameras(), st.tuples(st.floats(0.1, 5.0), st.floats(0, 640), st.floats(0, 480)), st.integers(1, 4))
def test_a_resized_camera_sees_the_same_point_at_the_same_share_of_the_image(camera, seen, factor):
    point = camera.lift(seen[1:], seen[0])
    resized = camera.resized(480 * factor, 640 * factor)
    pixel, depth = resized.project(point)
    np.testing.assert_allclose(pixel, np.array(seen[1:]) * factor, atol=1e-5)
    assert depth == pytest.approx(seen[0])


def test_a_point_by_hand():
    """Camera at the origin that looks along the world's x axis, its image upright: z is up."""
    pose = np.eye(4)
    pose[:3, :3] = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]]).T
    camera = Camera(np.array([[100.0, 0, 50], [0, 100, 50], [0, 0, 1]]), pose, (100, 100))
    pixel, depth = camera.project([2.0, 0.5, 0.25])  # two meters away, half a meter to the left, a quarter up
    np.testing.assert_allclose(pixel, [25.0, 37.5])
    assert depth == pytest.approx(2.0)
    mirrored = Camera(np.array([[-100.0, 0, 50], [0, 100, 50], [0, 0, 1]]), pose, (100, 100))
    np.testing.assert_allclose(mirrored.project([2.0, 0.5, 0.25])[0], [75.0, 37.5])


def test_nothing_behind_the_camera_is_seen():
    camera = Camera(np.diag([100.0, 100.0, 1.0]), np.eye(4), (10, 10))
    pixels, depth = camera.project([[0.0, 0.0, -1.0], [np.nan, 0.0, 1.0]])
    assert np.isnan(pixels[0]).all()
    assert depth[0] == -1.0
    assert not camera.sees(pixels).any()
    assert np.isnan(camera.lift([[1.0, 1.0]] * 3, [0.0, -1.0, np.nan])).all()


def test_json_round_trip_and_one_number_for_the_size():
    camera = Camera(np.array([[-300.0, 0, 128], [0, 300, 128], [0, 0, 1]]), np.eye(4), (256, 256), "front")
    again = camera_from_dict(camera.to_dict() | {"size": 256})
    assert (again.size, again.name) == ((256, 256), "front")
    np.testing.assert_array_equal(again.intrinsic, camera.intrinsic)
    np.testing.assert_array_equal(again.pose, camera.pose)


GOOD = {"size": [4, 6], "intrinsic": [[5, 0, 3], [0, 5, 2], [0, 0, 1]], "pose": np.eye(4).tolist()}
MIRROR = np.diag([1.0, 1.0, -1.0, 1.0]).tolist()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": [4]}, "size is"),
        ({"size": [4.5, 6]}, "size is"),
        ({"intrinsic": [[5, 0, 3], [0, 5, 2]]}, "3 x 3"),
        ({"intrinsic": [[5, 0, 3], [0, 0, 2], [0, 0, 1]]}, "pinhole"),
        ({"intrinsic": [[5, 0, 3], [0, 5, 2], [0, 0, 2]]}, "pinhole"),
        ({"pose": MIRROR}, "rigid"),
        ({"pose": (np.eye(4) * 1000).tolist()}, "rigid"),
        ({"pose": [[1, 0, 0, float("nan")], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, "4 x 4"),
        ({"pose": "front"}, "pose"),
    ],
)
def test_what_is_no_camera_is_refused(change, words):
    camera_from_dict(GOOD)
    with pytest.raises(DataError, match=words):
        camera_from_dict(GOOD | change)


def test_missing_fields_are_named():
    with pytest.raises(DataError, match="lacks intrinsic, pose"):
        camera_from_dict({"size": 4})
    with pytest.raises(DataError, match="no mapping"):
        camera_from_dict([1, 2])
