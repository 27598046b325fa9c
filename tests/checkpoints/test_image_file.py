"""Images from files: what is converted, what is said, what is refused."""

import numpy as np
import pytest
from PIL import Image

from grape.core.errors import DataError
from grape.core.image_files import read_image


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.ppm"])
def test_lossless_formats_give_their_pixels(tmp_path, pixels, name):
    Image.fromarray(pixels).save(tmp_path / name)
    image_file = read_image(tmp_path / name)
    np.testing.assert_array_equal(image_file.pixels, pixels)
    assert image_file.pixels.dtype == np.uint8
    assert image_file.notes == ()


def test_conversions_are_said(tmp_path, pixels):
    gray = pixels[:, :, 0]
    Image.fromarray(gray).save(tmp_path / "gray.png")
    image_file = read_image(tmp_path / "gray.png")
    np.testing.assert_array_equal(image_file.pixels, np.repeat(gray[:, :, None], 3, axis=2))
    assert "grayscale" in image_file.notes[0]
    Image.fromarray(np.dstack([pixels, np.full(gray.shape, 255, np.uint8)])).save(tmp_path / "opaque.png")
    image_file = read_image(tmp_path / "opaque.png")
    np.testing.assert_array_equal(image_file.pixels, pixels)
    assert "alpha" in image_file.notes[0]
    Image.fromarray(pixels).convert("CMYK").save(tmp_path / "print.tiff")
    assert "CMYK" in read_image(tmp_path / "print.tiff").notes[0]
    Image.fromarray(pixels).quantize(8).save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png").notes == ()


def test_the_orientation_tag_is_obeyed(tmp_path, pixels):
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "turned.png", exif=exif)
    image_file = read_image(tmp_path / "turned.png")
    np.testing.assert_array_equal(image_file.pixels, pixels[::-1, ::-1])
    assert "turned" in image_file.notes[0]


def test_what_has_no_one_meaning_is_refused(tmp_path, pixels):
    alpha = np.full(pixels.shape[:2], 255, np.uint8)
    alpha[0, 0] = 254
    Image.fromarray(np.dstack([pixels, alpha])).save(tmp_path / "glass.png")
    with pytest.raises(DataError, match="transparent"):
        read_image(tmp_path / "glass.png")
    Image.fromarray(np.arange(192, dtype=np.uint16).reshape(12, 16) * 300).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match="16-bit"):
        read_image(tmp_path / "deep.png")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(DataError, match="floating-point"):
        read_image(tmp_path / "float.tiff")
    frames = [Image.fromarray(pixels), Image.fromarray(255 - pixels)]
    frames[0].save(tmp_path / "film.tiff", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="2 frames"):
        read_image(tmp_path / "film.tiff")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tiff", "a.webp", "a.gif"])
def test_truncated_images_are_refused(tmp_path, name):
    image_file = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    Image.fromarray(image_file).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    for keep in (0, 3, 20, len(data) // 2, len(data) * 9 // 10):
        (tmp_path / name).write_bytes(data[:keep])
        with pytest.raises(DataError):
            read_image(tmp_path / name)


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(DataError, match="no image"):
        read_image(tmp_path / "text.png")
    with pytest.raises(DataError, match="There is no image"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match="is a folder"):
        read_image(tmp_path)
    Image.new("1", (20000, 20000)).save(tmp_path / "bomb.png")
    with pytest.raises(DataError, match="far more pixels"):
        read_image(tmp_path / "bomb.png")
