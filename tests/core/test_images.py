"""Image operations against TensorFlow's own results, and on images made here."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grape.core.images import (
    area_average,
    center_crop,
    jpeg_round_trip,
    lanczos3,
    libero_openvla_v1,
    rotate_180,
    simpler_openvla_v1,
)

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "openvla"
SHARE = 1e-4  # of the values may differ, by one level


@pytest.fixture(scope="module")
def tensorflow():
    if not (GOLDEN / "tf_image_ops.npz").is_file():
        pytest.skip(f"golden fixtures are not at {GOLDEN}")
    return np.load(GOLDEN / "tf_image_ops.npz")


@pytest.fixture(scope="module")
def images(tensorflow):
    return [np.asarray(Image.open(GOLDEN / f"images/img{i}.png").convert("RGB")) for i in range(4)]


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)


def _assert_close(ours, theirs):
    assert ours.shape == theirs.shape
    assert ours.dtype == np.uint8
    difference = np.abs(ours.astype(int) - theirs.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < SHARE


def test_jpeg_is_exact(tensorflow, images):
    np.testing.assert_array_equal(jpeg_round_trip(images[0]), tensorflow["jpeg_0"])


@pytest.mark.parametrize("i", range(4))
def test_lanczos(tensorflow, images, i):
    _assert_close(lanczos3(images[i], 224, 224), tensorflow[f"lanczos_{i}"])


@pytest.mark.parametrize("i", range(4))
def test_crops(tensorflow, i):
    _assert_close(center_crop(tensorflow[f"lanczos_{i}"]), tensorflow[f"crop_{i}"])
    _assert_close(center_crop(tensorflow[f"libero_{i}"]), tensorflow[f"libero_crop_{i}"])


@pytest.mark.parametrize("i", range(4))
def test_the_whole_preprocessing_of_libero(tensorflow, images, i):
    road = libero_openvla_v1(images[i])
    _assert_close(road, tensorflow[f"libero_{i}"])
    _assert_close(center_crop(road), tensorflow[f"libero_crop_{i}"])


def test_pil_would_not_do(tensorflow, images):
    """Why the resize is our own: PIL's filter of the same name is another one."""
    theirs = np.asarray(Image.fromarray(images[0]).resize((224, 224), Image.Resampling.LANCZOS))
    assert np.abs(theirs.astype(int) - tensorflow["lanczos_0"].astype(int)).max() > 1


@pytest.mark.parametrize(("height", "width"), [(480, 640), (256, 256), (230, 300), (224, 224)])
def test_areas_are_opencvs(height, width):
    cv2 = pytest.importorskip("cv2")
    pixels = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = cv2.resize(pixels, (224, 224), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(area_average(pixels, 224, 224), expected)
    np.testing.assert_array_equal(simpler_openvla_v1(pixels), expected)


def test_areas_by_hand():
    row = np.array([0, 90, 210], dtype=np.uint8)
    pixels = np.repeat(row[None, :, None], 3, axis=2)
    halves = area_average(pixels, 1, 2)  # a pixel and a half each
    assert halves[0, :, 0].tolist() == [30, 170]
    with pytest.raises(ValueError, match="only shrinks"):
        area_average(pixels, 2, 2)


def test_half_a_turn_is_not_a_flip(noise):
    turned = rotate_180(noise)
    np.testing.assert_array_equal(turned[0, 0], noise[-1, -1])
    np.testing.assert_array_equal(turned[0, -1], noise[-1, 0])
    np.testing.assert_array_equal(rotate_180(turned), noise)
    assert turned.base is None


def test_same_size_and_whole_area_change_nothing(noise):
    np.testing.assert_array_equal(lanczos3(noise, 40, 64), noise)
    np.testing.assert_array_equal(center_crop(noise, 1.0), noise)


def test_flat_images_stay_flat():
    for level in (0, 1, 127, 254, 255):
        flat = np.full((30, 50, 3), level, dtype=np.uint8)
        assert (lanczos3(flat, 17, 90) == level).all()
        assert (center_crop(flat) == level).all()
        assert (jpeg_round_trip(flat) == level).all()


def test_a_crop_enlarges_the_middle():
    pixels = np.zeros((100, 100, 3), dtype=np.uint8)
    pixels[:, 50:] = 200
    pixels[:, :2] = 255  # lies outside 90 % of the area
    cropped = center_crop(pixels)
    assert cropped.max() == 200
    assert (cropped[:, 60:] == 200).all()


def test_images_are_not_changed_and_read_only_ones_are_taken(noise):
    noise.setflags(write=False)
    before = noise.copy()
    for operation in (rotate_180, jpeg_round_trip, center_crop, libero_openvla_v1, lambda image: lanczos3(image, 9, 9)):
        operation(noise)
        operation(noise[::-1, ::-1])
    np.testing.assert_array_equal(noise, before)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3), (1, 4, 4, 3)])
def test_other_shapes_are_refused(shape):
    for operation in (rotate_180, jpeg_round_trip, center_crop, libero_openvla_v1):
        with pytest.raises(ValueError, match="uint8"):
            operation(np.zeros(shape, dtype=np.uint8))
    with pytest.raises(ValueError, match="float"):
        center_crop(np.zeros((4, 4, 3)))


def test_a_crop_of_nothing_is_refused(noise):
    with pytest.raises(ValueError, match="share"):
        center_crop(noise, 0.0)
    with pytest.raises(ValueError, match="share"):
        center_crop(noise, 1.5)
