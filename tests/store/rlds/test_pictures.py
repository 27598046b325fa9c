"""Pictures of a column."""

import numpy as np
import pytest

from grape.core.errors import DataError
from grape.store.rlds.pictures import EncodedPictures, encode_picture

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (3, 10, 12, 3), dtype=np.uint8)


def encoded(kind, shape=(10, 12, 3)):
    return EncodedPictures([encode_picture(picture, kind) for picture in PIXELS], shape, "file, record 7")


def test_png_is_lossless_and_jpeg_nearly():
    np.testing.assert_array_equal(encoded("png").decode(), PIXELS)
    smooth = np.repeat(np.arange(120, dtype=np.uint8).reshape(10, 12, 1), 3, axis=2)
    there = EncodedPictures([encode_picture(smooth, "jpeg")], (10, 12, 3))[0]
    assert np.abs(there.astype(int) - smooth).max() < 8


def test_one_and_some():
    pictures = encoded("png")
    np.testing.assert_array_equal(pictures[-1], PIXELS[2])
    np.testing.assert_array_equal(pictures.part(slice(1, 3)).decode(), PIXELS[1:])
    with pytest.raises(IndexError):
        pictures[3]


def test_open_sides_take_what_comes():
    assert encoded("png", (None, None, 3)).decode().shape == PIXELS.shape
    assert EncodedPictures([], (None, 4, 3)).decode().shape == (0, 0, 4, 3)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_what_is_no_such_picture_is_named(kind):
    blob = encode_picture(PIXELS[0], kind)
    for bad, words in [(blob[:40], "cannot be decoded"), (b"", "cannot be decoded"), (b"GIF89a", "cannot be decoded")]:
        with pytest.raises(DataError, match=words) as caught:
            EncodedPictures([blob, bad], (10, 12, 3), "file, record 7").decode()
        assert "file, record 7, step 1" in caught.value.message
    with pytest.raises(DataError, match="promises"):
        encoded(kind, (10, 13, 3)).decode()
    mixed = EncodedPictures([blob, encode_picture(PIXELS[0, :5], kind)], (None, 12, 3))
    with pytest.raises(DataError, match="several sizes"):
        mixed.decode()


def test_grey_pictures():
    grey = EncodedPictures([encode_picture(PIXELS[0], "png")], (10, 12, 1)).decode()
    assert grey.shape == (1, 10, 12, 1)
    assert EncodedPictures([encode_picture(PIXELS[0], "jpeg")], (10, 12, 1))[0].shape == (10, 12, 1)
