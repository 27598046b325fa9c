"""Images of a column."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from grape.core.errors import DataError
from grape.store.rlds.images import EncodedImages, encode_image

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (3, 10, 12, 3), dtype=np.uint8)


def encoded(kind, shape=(10, 12, 3)):
    return EncodedImages([encode_image(pixels, kind) for pixels in PIXELS], shape, "file, record 7")


def test_png_is_lossless_and_jpeg_nearly():
    np.testing.assert_array_equal(encoded("png").decode(), PIXELS)
    smooth = np.repeat(np.arange(120, dtype=np.uint8).reshape(10, 12, 1), 3, axis=2)
    there = EncodedImages([encode_image(smooth, "jpeg")], (10, 12, 3))[0]
    assert np.abs(there.astype(int) - smooth).max() < 8


def test_jpeg_is_stored_as_tensorflow_does_it():
    blob = encode_image(np.zeros((32, 32, 3), np.uint8), "jpeg")
    with Image.open(io.BytesIO(blob)) as image:
        sampling = [(across, down) for _, across, down, _ in image.layer]
        assert sampling == [(2, 2), (1, 1), (1, 1)]  # brightness twice as fine as colors: 4:2:0
        reference = io.BytesIO()
        Image.new("RGB", (32, 32)).save(reference, "JPEG", quality=95, subsampling="4:2:0")
        with Image.open(reference) as other:
            assert image.quantization == other.quantization


@pytest.mark.parametrize("shape", [(None, None, 3), (16, 16, 3)])
def test_a_small_file_cannot_ask_for_gigabytes(shape):
    blob = bytearray(encode_image(np.zeros((16, 16, 3), np.uint8), "jpeg"))
    start = blob.index(b"\xff\xc0")  # the frame's header: height and width from the fifth byte on
    blob[start + 5 : start + 9] = (60_000).to_bytes(2, "big") * 2
    with pytest.raises(DataError, match="60000 x 60000"):
        EncodedImages([bytes(blob)], shape)[0]
    png = encode_image(np.zeros((9000, 9000, 3), np.uint8), "png")
    with pytest.raises(DataError, match="9000 x 9000"):
        EncodedImages([png], shape)[0]


def test_one_and_some():
    images = encoded("png")
    np.testing.assert_array_equal(images[-1], PIXELS[2])
    np.testing.assert_array_equal(images.part(slice(1, 3)).decode(), PIXELS[1:])
    with pytest.raises(IndexError):
        images[3]


def test_open_sides_take_what_comes():
    assert encoded("png", (None, None, 3)).decode().shape == PIXELS.shape
    assert EncodedImages([], (None, 4, 3)).decode().shape == (0, 0, 4, 3)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_what_is_no_such_image_is_named(kind):
    blob = encode_image(PIXELS[0], kind)
    for bad, words in [(blob[:40], "cannot be decoded"), (b"", "cannot be decoded"), (b"GIF89a", "cannot be decoded")]:
        with pytest.raises(DataError, match=words) as caught:
            EncodedImages([blob, bad], (10, 12, 3), "file, record 7").decode()
        assert "file, record 7, step 1" in caught.value.message
    with pytest.raises(DataError, match="promises"):
        encoded(kind, (10, 13, 3)).decode()
    mixed = EncodedImages([blob, encode_image(PIXELS[0, :5], kind)], (None, 12, 3))
    with pytest.raises(DataError, match="several sizes"):
        mixed.decode()


def test_gray_images():
    gray = EncodedImages([encode_image(PIXELS[0], "png")], (10, 12, 1)).decode()
    assert gray.shape == (1, 10, 12, 1)
    assert EncodedImages([encode_image(PIXELS[0], "jpeg")], (10, 12, 1))[0].shape == (10, 12, 1)


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 4]))))
def test_any_image_is_a_png_that_others_read(pixels):
    with Image.open(io.BytesIO(encode_image(pixels, "png"))) as image:
        image.verify()  # checksums
    with Image.open(io.BytesIO(encode_image(pixels, "png"))) as image:
        assert image.mode == {1: "L", 3: "RGB", 4: "RGBA"}[pixels.shape[2]]
        np.testing.assert_array_equal(np.asarray(image).reshape(pixels.shape), pixels)


def test_a_image_need_not_lie_in_one_piece():
    turned = PIXELS[0, ::-1, ::-1]
    assert encode_image(turned, "png") == encode_image(turned.copy(), "png")
