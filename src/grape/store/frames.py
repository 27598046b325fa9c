"""How images are stored: losslessly for the policy, as JPEG for people.

A recorded log-probability can only be reproduced from exactly the pixels the policy saw, so ``frames`` are lossless.
Within an episode most pixels never change, hence the codec ``zstd-first-difference``:

- blob 0 is the Zstandard compression of the first image's bytes (row-major ``(H, W, 3)``, RGB);
- blob ``t > 0`` is the compression of ``(image_t - image_0) mod 256``.

Any image needs its own blob and the first one only, and undoing the difference of a whole episode is one vectorized
addition. On Meta-World images level 3 gives 3.2 kB a frame at 64x64 (7.8 kB without the difference) and 37 kB at
256x256 (96 kB); higher levels gain 2 % for a quarter of the speed. Differences to the previous image would be smaller
still, but then an image needs all the ones before it.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import simplejpeg
import zstandard

from grape.core.errors import DataError

__all__ = ["FRAME_CODEC", "JPEG_QUALITY", "decode_display", "decode_frames", "encode_display", "encode_frames"]

FRAME_CODEC = "zstd-first-difference"
"""Name of the codec in episode files."""

JPEG_QUALITY = 90
"""Quality of display images; they are looked at, never fed to a policy."""

MAX_EPISODE_BYTES = 4 * 2**30
"""Of an episode's images, unpacked; 500 decisions at 640x480 are 0.5 GB."""

_LEVEL = 3

UInt8 = npt.NDArray[np.uint8]


def encode_frames(frames: UInt8) -> list[bytes]:
    """Compress the images of one episode.

    Args:
        frames: uint8 ``(N, H, W, 3)``.

    Returns:
        ``N`` blobs; equal images give equal bytes.
    """
    count = frames.shape[0]
    rows = np.ascontiguousarray(frames).reshape(count, int(np.prod(frames.shape[1:])))
    difference = np.subtract(rows[1:], rows[:1])  # uint8 wraps around, which the decoder's addition undoes
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True)
    return [compressor.compress(row.tobytes()) for part in (rows[:1], difference) for row in part]


def decode_frames(blobs: Sequence[bytes], shape: tuple[int, int, int]) -> UInt8:
    """Undo :func:`encode_frames`.

    Args:
        blobs: One blob an image, the episode's first image first.
        shape: ``(H, W, 3)``.

    Returns:
        uint8 ``(N, H, W, 3)``, writable.

    Raises:
        DataError: A blob is no such compression or has another size.
    """
    size = _bounded_size(len(blobs), shape)
    decompressor = zstandard.ZstdDecompressor()
    try:
        # The size is checked before anything is allocated: a hostile blob may announce terabytes.
        if any(zstandard.frame_content_size(blob) != size for blob in blobs):
            raise DataError(f"An image's size is not that of {shape[0]}x{shape[1]} pixels.")
        joined = b"".join([decompressor.decompress(blob) for blob in blobs])
        rows = np.frombuffer(joined, dtype=np.uint8).reshape(len(blobs), size).copy()
    except (zstandard.ZstdError, ValueError) as error:
        raise DataError(f"An image cannot be decompressed: {error}.") from error
    rows[1:] += rows[:1]
    return rows.reshape(len(blobs), *shape)


def _bounded_size(count: int, shape: tuple[int, int, int]) -> int:
    """Bytes of one image, once it is known that all of them are few enough to be unpacked.

    Raises:
        DataError: Together they have more than :data:`MAX_EPISODE_BYTES`.
    """
    size = math.prod(shape)
    if count * size > MAX_EPISODE_BYTES:
        raise DataError(f"{count} images of {shape[0]}x{shape[1]} pixels are more than an episode may hold.")
    return size


def encode_display(images: UInt8) -> list[bytes]:
    """Images for people, uint8 ``(N, H, W, 3)``, as one JPEG each."""
    return [
        simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=JPEG_QUALITY, colorspace="RGB") for image in images
    ]


def decode_display(blobs: Sequence[bytes], shape: tuple[int, int, int]) -> UInt8:
    """Undo :func:`encode_display` up to JPEG's losses.

    Args:
        blobs: One JPEG an image.
        shape: ``(H, W, 3)``.

    Raises:
        DataError: A blob is no JPEG or has another size.
    """
    _bounded_size(len(blobs), shape)
    images = np.empty((len(blobs), *shape), dtype=np.uint8)
    for index, blob in enumerate(blobs):
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(blob)
            if (height, width) != shape[:2]:
                raise DataError(f"Display image {index} is {height}x{width}, not {shape[0]}x{shape[1]}.")
            images[index] = simplejpeg.decode_jpeg(blob, colorspace="RGB")
        except ValueError as error:
            raise DataError(f"Display image {index} cannot be decoded: {error}.") from error
    return images
