"""Images from outside."""

import io

import pytest
from PIL import Image

from grape.core.errors import DataError
from grape.core.image_files import FORMATS, open_image


@pytest.mark.parametrize("kind", FORMATS)
def test_common_formats_are_read(tmp_path, kind) -> None:
    Image.new("RGB", (6, 4), (9, 8, 7)).save(tmp_path / "image", kind)
    image = open_image(tmp_path / "image")
    assert image.size == (6, 4)


def test_what_could_run_or_fill_the_memory_is_refused(tmp_path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(DataError, match="no image in a format"):
        open_image(path)
    image = io.BytesIO()
    Image.new("1", (9000, 9000)).save(image, "PNG")
    path.write_bytes(image.getvalue())
    with pytest.raises(DataError, match="far more pixels"):
        open_image(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="no image"):
        open_image(path)
