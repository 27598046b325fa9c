"""The writer of videos."""

import io

import numpy as np
import pytest

from grape.store.h264 import VideoWriter


@pytest.mark.parametrize(("key_frame_every", "height", "width"), [(2, 48, 64), (30, 48, 64), (30, 32, 96)])
def test_equal_images_give_equal_bytes(key_frame_every: int, height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    images = np.cumsum(rng.integers(0, 9, (23, height, width, 3), dtype=np.uint8), 0).astype(np.uint8)
    files = set()
    for _ in range(60):  # the macroblock tree gave other bytes once in about twenty files
        _ = [rng.integers(0, 255, rng.integers(1, 10**5), dtype=np.uint8) for _ in range(20)]  # what memory holds
        file = io.BytesIO()
        with VideoWriter(file, (height, width), 10, 23, key_frame_every=key_frame_every) as video:
            video.add(images)
        files.add(file.getvalue())
        assert video.frames == len(images)
    assert len(files) == 1
