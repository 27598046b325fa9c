"""Hostile image files."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from tests.hostile.hostile_files import replace

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes = b"", before: bytes = b"", depth: int = 8, color: int = 2) -> bytes:
    """A PNG file that announces this size and holds ``data`` as its pixels, unpacked."""
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return _SIGNATURE + head + before + _chunk(b"IDAT", zlib.compress(data)) + _chunk(b"IEND", b"")


def _with_chunk(kind: bytes, data: bytes) -> bytes:
    """A sound PNG file of 8 x 8 with one more chunk."""
    return png(8, 8, bytes(25 * 8), _chunk(kind, data))


def written(kind: str, mode: str = "RGB", size: tuple[int, int] = (64, 64), **options: object) -> bytes:
    """A sound file of this format."""
    sink = io.BytesIO()
    Image.new(mode, size).save(sink, kind, **options)
    return sink.getvalue()


def sound() -> bytes:
    """A small RGB image."""
    return png(64, 64, (b"\0" + bytes(range(192))) * 64)


def _frames(count: int) -> bytes:
    sink = io.BytesIO()
    frames = [Image.new("P", (8, 8), number % 256) for number in range(count)]
    frames[0].save(sink, "GIF", save_all=True, append_images=frames[1:])
    return sink.getvalue()


_IMAGES: dict[str, Callable[[], bytes]] = {
    "PNG announcing 100,000 x 100,000": lambda: png(100_000, 100_000, bytes(1000)),
    "PNG of 13,000 x 13,000": lambda: png(13_000, 13_000, bytes(13_000 * (13_000 * 3 + 1)))[:2_000_000],
    "PNG announcing 2^31 x 1": lambda: png(2**31 - 1, 1, bytes(1000)),
    "PNG of no size": lambda: png(0, 0),
    "PNG with a text bomb": lambda: _with_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200_000_000))),
    "PNG with a profile bomb": lambda: _with_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(200_000_000))),
    "PNG with more pixels than announced": lambda: png(8, 8, bytes(50_000_000)),
    "PNG without pixels": lambda: png(64, 64),
    "PNG of 16 bits": lambda: png(8, 8, bytes(17 * 8), depth=16, color=0),
    "PNG of an unknown depth": lambda: png(8, 8, bytes(17 * 8), depth=7, color=5),
    "PNG with escapes in its text": lambda: _with_chunk(b"tEXt", b"Comment\0\x1b[31m\x1b]0;owned\x07"),
    "PNG of one pixel": lambda: png(1, 1, bytes(4)),
    "PNG of 1 x 20,000": lambda: png(1, 20_000, bytes(4 * 20_000)),
    "GIF of 2,000 frames": lambda: _frames(2000),
    "GIF of two frames": lambda: _frames(2),
    "PostScript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(/tmp/owned) (w) file\n",
    "SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="99999" height="99999"><image href="file:///etc/passwd"/></svg>',
    "BMP announcing 50,000 x 50,000": lambda: b"BM"
    + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 50_000, 50_000, 1, 24, 0, 0, 0, 0, 0, 0),
    "TIFF": lambda: written("TIFF"),
    "TIFF of floats": lambda: written("TIFF", "F"),
    "JPEG of CMYK": lambda: written("JPEG", "CMYK"),
    "JPEG cut": lambda: written("JPEG", size=(512, 512))[:-200],
    "transparent PNG": lambda: written("PNG", "RGBA"),
    "ICO": lambda: written("ICO"),
    "PPM announcing 60,000 x 60,000": lambda: b"P6 60000 60000 255\n" + bytes(100),
    "PPM with a long header": lambda: b"P6 " + b"9" * 5000 + b" 1 255\n",
    "PFM": lambda: b"PF\n4 4\n-1.0\n" + bytes(192),
    "WebP cut": lambda: written("WEBP", size=(128, 128))[:60],
    "JPEG 2000 announcing much": lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
    "FITS": lambda: b"".join(
        (b"SIMPLE  =                    T".ljust(80), b"NAXIS   =                   99".ljust(80), b"END".ljust(2720))
    ),
    "DDS": lambda: b"DDS " + struct.pack("<I", 124) + bytes(120) + b"\xff" * 100,
}  # fmt: skip


def hostile_images() -> dict[str, Callable[[Path], None]]:
    """Each replaces a file by a hostile image, made when it is needed."""
    return {name: lambda path, make=make: replace(path, make()) for name, make in _IMAGES.items()}  # type: ignore[misc]
