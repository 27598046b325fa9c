"""Videos of cameras that were held askew stand upright once read."""

import numpy as np
import pytest

av = pytest.importorskip("av")

from grape.store.video.decoding import decoded_images  # noqa: E402


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_images_are_turned_as_the_file_says(degrees, tmp_path):
    image = np.zeros((32, 48, 3), np.uint8)
    image[:16, :24] = 255
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        if degrees:
            stream.set_display_rotation(degrees)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    ((_, decoded, _),) = decoded_images(tmp_path / "a.mp4", "rgb24")
    expected = np.rot90(image, degrees // 90)  # counterclockwise
    assert decoded.shape == expected.shape
    assert ((decoded > 128) == (expected > 128)).mean() > 0.95
