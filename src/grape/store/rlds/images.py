"""Images of an RLDS column: kept encoded, decoded when asked for, bit-exactly as TensorFlow does it.

TensorFlow decodes JPEG with libjpeg's fast integer DCT, so policies trained on public RLDS data saw those pixels;
``simplejpeg`` with ``fastdct=True`` gives the same bytes, while Pillow and OpenCV differ by up to 13 levels. PNG is
lossless and every decoder agrees.
"""

import dataclasses
import io
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

from grape.core.errors import DataError

__all__ = ["JPEG_QUALITY", "EncodedImages", "encode_image"]

UInt8 = npt.NDArray[np.uint8]

JPEG_QUALITY = 95
"""Quality that TensorFlow's encoder takes by default; public RLDS sets were written with it."""

_SUBSAMPLING = "420"  # colors at half the resolution, also TensorFlow's default

_MOST_PIXELS = 50_000_000
_MOST_DECODED = 2 << 30  # all images of an episode; and the more of these two:
_ALWAYS_DECODED = 256 << 20
_MOST_RATIO = 100  # times their encoded size
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_COLORS = {1: 0, 3: 2, 4: 6}  # gray, RGB, RGB with alpha
_PNG_UP = 2  # the filter that keeps the difference to the row above


@dataclass(frozen=True, eq=False)
class EncodedImages:
    """Images of one column of one episode; indexing decodes one.

    Attributes:
        blobs: One JPEG or PNG a step.
        shape: ``(H, W, C)`` as ``features.json`` promises; None where it leaves a side open.
        where: What a message names: file, record and column.
        promised_by: Name of the file that promises the shape.
    """

    blobs: Sequence[bytes]
    shape: tuple[int | None, ...]
    where: str = "image"
    promised_by: str = "features.json"

    def __len__(self) -> int:
        return len(self.blobs)

    def __getitem__(self, index: int) -> UInt8:
        """Image of one step, uint8 ``(H, W, C)``; errors as :meth:`decode`."""
        return self._decode(range(len(self.blobs))[index])

    def part(self, steps: slice) -> "EncodedImages":
        """The images of some steps, still encoded."""
        return dataclasses.replace(self, blobs=self.blobs[steps])

    def decode(self) -> UInt8:
        """All images, uint8 ``(N, H, W, C)``.

        Raises:
            DataError: A blob is no image, or of another size than promised or than its neighbors.
        """
        height, width, channels = self.shape
        if not self.blobs:
            return np.zeros((0, height or 0, width or 0, channels or 3), dtype=np.uint8)
        packed = sum(map(len, self.blobs))
        most = min(_MOST_DECODED, max(_ALWAYS_DECODED, _MOST_RATIO * packed))
        images: list[UInt8] = []
        for index in range(len(self.blobs)):
            images.append(self._decode(index))
            needed = images[-1].nbytes * len(self.blobs)
            if needed > most:
                raise DataError(
                    f"{self.where}: {len(self.blobs)} images of together {packed:,} bytes would take {needed:,} "
                    f"decoded, where {most:,} are allowed.",
                    "Leave the episode out, or store its images smaller.",
                )
        if len({image.shape for image in images}) > 1:
            raise DataError(f"{self.where}: the images of one episode are of several sizes.")
        return np.stack(images)

    def _decode(self, index: int) -> UInt8:
        blob = self.blobs[index]
        where = f"{self.where}, step {index}"
        channels = self.shape[2] or 3
        try:
            if blob[:8] == _PNG:
                decoded = _decode_png(blob, channels, self._check_size)
            elif channels in (1, 3):
                self._check_size(*simplejpeg.decode_jpeg_header(blob)[:2])
                decoded = simplejpeg.decode_jpeg(
                    blob, colorspace="RGB" if channels == 3 else "GRAY", fastdct=True, fastupsample=False
                )
            else:
                raise ValueError(f"no JPEG of {channels} channels is known")
        except (ValueError, OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise DataError(f"{where}: the image cannot be decoded: {str(error).rstrip('.')}.") from error
        if any(
            expected is not None and expected != size for expected, size in zip(self.shape, decoded.shape, strict=True)
        ):
            raise DataError(f"{where}: the image is {decoded.shape}, {self.promised_by} promises {self.shape}.")
        return decoded

    def _check_size(self, height: int, width: int) -> None:
        """Refuse an image whose header announces too many pixels."""
        expected = self.shape[:2]
        if any(side is not None and side != size for side, size in zip(expected, (height, width), strict=True)):
            raise ValueError(f"it is {height} x {width}, {self.promised_by} promises {expected[0]} x {expected[1]}")
        if height * width > _MOST_PIXELS:
            raise ValueError(f"{height} x {width} pixels are far more than a camera gives")


def encode_image(image: UInt8, encoding: str) -> bytes:
    """An image, uint8 ``(H, W, 3)``, as ``"png"`` or ``"jpeg"`` bytes; equal images give equal bytes.

    PNG also of 1 or 4 channels. Its rows are stored as differences to the row above, and only runs of equal bytes are
    sought (zlib's ``Z_RLE``): on simulators' images 2 to 3 times as fast as Pillow's fastest level that compresses,
    for files of about the same size.
    """
    if encoding == "jpeg":
        pixels = np.ascontiguousarray(image)
        return bytes(simplejpeg.encode_jpeg(pixels, JPEG_QUALITY, colorspace="RGB", colorsubsampling=_SUBSAMPLING))
    height, width, channels = image.shape
    rows = image.reshape(height, width * channels)
    filtered = np.empty((height, 1 + width * channels), dtype=np.uint8)
    filtered[:, 0] = _PNG_UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])  # modulo 256
    deflate = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    body = deflate.compress(filtered.data) + deflate.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, _PNG_COLORS[channels], 0, 0, 0)
    return _PNG + _png_chunk(b"IHDR", head) + _png_chunk(b"IDAT", body) + _png_chunk(b"IEND", b"")


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))


def _decode_png(blob: bytes, channels: int, check_size: Callable[[int, int], None]) -> UInt8:
    with Image.open(io.BytesIO(blob), formats=["PNG"]) as image:
        check_size(image.height, image.width)
        mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(channels)
        if mode is None or image.mode.startswith("I"):
            raise ValueError(f"PNG of mode {image.mode} where {channels} channels of 8 bits are due")
        pixels = np.asarray(image if image.mode == mode else image.convert(mode), dtype=np.uint8)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]
