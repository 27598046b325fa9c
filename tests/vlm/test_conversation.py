"""Images without what cameras write beside them, and keys that stand for questions."""

import base64
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grape.core.errors import DataError, SettingsError
from grape.vlm import ChatImage, Message, Request, request_key

PIXELS = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)


def test_only_upright_pixels_remain_of_a_photograph(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    exif[0x010E] = "taken at home"
    Image.fromarray(PIXELS).save(tmp_path / "photo.png", exif=exif)
    image = ChatImage.read(tmp_path / "photo.png")
    np.testing.assert_array_equal(image.pixels, np.rot90(PIXELS, -1))
    assert b"taken at home" in (tmp_path / "photo.png").read_bytes()
    assert b"taken at home" not in base64.b64decode(image.data_url().partition(",")[2])


def test_large_images_become_smaller_and_small_ones_stay() -> None:
    assert ChatImage.of(np.zeros((512, 4096, 3), dtype=np.uint8)).pixels.shape == (128, 1024, 3)
    np.testing.assert_array_equal(ChatImage.of(PIXELS).pixels, PIXELS)


@pytest.mark.parametrize("pixels", [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_image_is_refused(pixels: np.ndarray) -> None:
    with pytest.raises(SettingsError, match="must be uint8"):
        ChatImage.of(pixels)


def test_files_that_are_no_images_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(DataError, match="is no image"):
        ChatImage.read(tmp_path / "a.png")
    with pytest.raises(DataError, match="There is no image"):
        ChatImage.read(tmp_path / "b.png")
    Image.new("1", (9000, 9000)).save(tmp_path / "bomb.png")
    with pytest.raises(DataError, match="9,000 x 9,000 pixels"):
        ChatImage.read(tmp_path / "bomb.png")


def test_a_key_changes_with_everything_that_is_asked() -> None:
    request = Request((Message("user", "a", (ChatImage.of(PIXELS),)),), {"type": "object"})
    other = PIXELS.copy()
    other[0, 0, 0] += 1
    changes = (
        {"messages": (Message("user", "b", (ChatImage.of(PIXELS),)),)},
        {"messages": (Message("system", "a", (ChatImage.of(PIXELS),)),)},
        {"messages": (Message("user", "a", (ChatImage.of(other),)),)},
        {"messages": (Message("user", "a", (ChatImage.of(PIXELS.reshape(4, 6, 3)),)),)},
        {"messages": (Message("user", "a"),)},
        {"schema": None},
        {"schema": {"type": "array"}},
        {"max_tokens": 5},
        {"temperature": 0.5},
        {"seed": 1},
    )
    keys = [request_key(dataclasses.replace(request, **change), "m") for change in changes]
    keys += [request_key(request, "m"), request_key(request, "n")]
    assert len(set(keys)) == len(keys)
    same = Request((Message("user", "a", (ChatImage.of(PIXELS.copy()),)),), {"type": "object"})
    assert request_key(same, "m") == request_key(request, "m")
