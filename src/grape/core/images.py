"""Image operations of published evaluations, in numpy, equal to TensorFlow's.

A policy sees what its images went through: leaving out LIBERO's JPEG round trip, or resizing with another filter,
costs points of success without any error. The operations here therefore follow TensorFlow's kernels (and, where an
evaluation used it, OpenCV's), not the formulas of textbooks, and are checked against what TensorFlow 2.15 gave: JPEG is
exact, resizing and cropping differ by one level in under 0.01 % of the values. All take and give RGB images, uint8
``(H, W, 3)``.
"""

import io
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = [
    "area_average",
    "center_crop",
    "crop_and_resize",
    "jpeg_round_trip",
    "lanczos3",
    "libero_openvla_v1",
    "rotate_180",
    "simpler_openvla_v1",
]

PixelArray = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

_LANCZOS_RADIUS = np.float32(3.0)


def rotate_180(image: PixelArray) -> PixelArray:
    """The image turned by half a turn, as a copy. LIBERO's camera delivers it upside down."""
    _check(image)
    return np.ascontiguousarray(image[::-1, ::-1])


def jpeg_round_trip(image: PixelArray, quality: int = 95) -> PixelArray:
    """The image as it comes back from a JPEG file (4:2:0), bit for bit as from TensorFlow.

    TensorFlow encodes as PIL does, but decodes with libjpeg's fast integer transform, where PIL takes the slow one and
    differs by up to 13 levels. ``simplejpeg`` decodes like TensorFlow and encodes with another chroma filter.

    Args:
        image: uint8 ``(H, W, 3)``.
        quality: libjpeg's quality, 1 to 100; LIBERO's evaluation takes TensorFlow's default, 95.
    """
    import simplejpeg

    _check(image)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    decoded: PixelArray = simplejpeg.decode_jpeg(file.getvalue(), "RGB", fastdct=True, fastupsample=False)
    return decoded


def lanczos3(image: PixelArray, height: int, width: int) -> PixelArray:
    """Resize as ``tf.image.resize(method="lanczos3", antialias=True)``, then round half to even and clip.

    Args:
        image: uint8 ``(H, W, 3)``.
        height: New height in pixels.
        width: New width in pixels.
    """
    _check(image)
    tall = _gather(image.astype(np.float32), *_lanczos_spans(image.shape[0], height))
    resized = _gather(tall.transpose(1, 0, 2), *_lanczos_spans(image.shape[1], width))
    return np.clip(np.rint(resized.transpose(1, 0, 2)), 0, 255).astype(np.uint8)


def _gather(values: Float32, first: npt.NDArray[np.intp], weights: Float32) -> Float32:
    """Weighted sums over spans of the first axis, added tap by tap in float32, as TensorFlow adds them."""
    total = np.zeros((len(first), *values.shape[1:]), dtype=np.float32)
    for tap in range(weights.shape[1]):
        place = np.minimum(first + tap, len(values) - 1)  # beyond the edge the weight is 0
        total += weights[:, tap].reshape(-1, 1, 1) * values[place]
    return total


@lru_cache(maxsize=32)
def _lanczos_spans(size: int, new_size: int) -> tuple[npt.NDArray[np.intp], Float32]:
    """First old pixel of each new one, ``(new_size,)``, and the weights from there on, float32 ``(new_size, taps)``.

    In float32 throughout, with the rounding of TensorFlow's ``ComputeSpansCore``.
    """
    one, half = np.float32(1.0), np.float32(0.5)
    step = one / np.float32(np.float32(new_size) / np.float32(size))
    stretch = max(step, one)  # shrinking widens the kernel: antialiasing
    center = (np.arange(new_size, dtype=np.float32) + half) * step
    reach = _LANCZOS_RADIUS * stretch
    first = np.clip(np.ceil(center - reach - half), 0, size - 1).astype(np.intp)
    last = np.clip(np.floor(center + reach - half), 0, size - 1).astype(np.intp)
    place = first[:, None] + np.arange(int((last - first).max()) + 1)[None, :]
    distance = np.abs((place.astype(np.float32) + half - center[:, None]) * (one / stretch))
    weights = np.where(place <= last[:, None], _lanczos_kernel(distance), np.float32(0.0))
    weights /= np.cumsum(weights, axis=1, dtype=np.float32)[:, -1:]
    weights.setflags(write=False)
    first.setflags(write=False)
    return first, weights


def _lanczos_kernel(distance: Float32) -> Float32:
    """Lanczos of radius 3 at ``|x|``, float32."""
    pi = np.float32(np.pi)
    x = np.maximum(distance, np.float32(1e-3))  # TensorFlow's limit of sin(x) / x
    value = _LANCZOS_RADIUS * np.sin(pi * x) * np.sin(pi * x / _LANCZOS_RADIUS) / (pi * pi * x * x)
    inside = np.where(distance <= np.float32(1e-3), np.float32(1.0), value)
    return np.where(distance > _LANCZOS_RADIUS, np.float32(0.0), inside).astype(np.float32)


def area_average(image: PixelArray, height: int, width: int) -> PixelArray:
    """Shrink as OpenCV's ``resize`` with ``INTER_AREA``: each new pixel is the mean of the area it covers.

    Args:
        image: uint8 ``(H, W, 3)``.
        height: New height in pixels, at most the old one.
        width: New width in pixels, at most the old one.

    Raises:
        ValueError: It would have to grow, where OpenCV does something else.
    """
    _check(image)
    if height > image.shape[0] or width > image.shape[1]:
        raise ValueError(f"area_average only shrinks; {image.shape[:2]} is smaller than {(height, width)}")
    across = _gather(image.astype(np.float32).transpose(1, 0, 2), *_area_spans(image.shape[1], width))
    shrunk = _gather(across.transpose(1, 0, 2), *_area_spans(image.shape[0], height))
    return np.clip(np.rint(shrunk), 0, 255).astype(np.uint8)


@lru_cache(maxsize=32)
def _area_spans(size: int, new_size: int) -> tuple[npt.NDArray[np.intp], Float32]:
    """First old pixel of each new one, ``(new_size,)``, and the shares from there on, float32 ``(new_size, taps)``."""
    scale = size / new_size
    begin = np.arange(new_size) * scale
    end = np.minimum(begin + scale, size)
    first = np.floor(begin + 1e-3).astype(np.intp)  # OpenCV passes over slivers of less than a thousandth
    last = np.ceil(end - 1e-3).astype(np.intp)
    place = first[:, None] + np.arange(int((last - first).max()))[None, :]
    overlap = np.minimum(place + 1, end[:, None]) - np.maximum(place, begin[:, None])
    weights = (np.clip(overlap, 0.0, None) * (place < last[:, None]) / (end - begin)[:, None]).astype(np.float32)
    weights.setflags(write=False)
    first.setflags(write=False)
    return first, weights


def center_crop(image: PixelArray, area: float = 0.9) -> PixelArray:
    """Cut out the middle and stretch it bilinearly to the old size, as ``tf.image.crop_and_resize``.

    The deterministic counterpart of training with randomly placed crops: policies trained with crops of 90 % of the
    area are evaluated with this one in the middle (OpenVLA, arXiv 2406.09246, public evaluation code).

    Args:
        image: uint8 ``(H, W, 3)``.
        area: Share of the area that is kept, in (0, 1].
    """
    _check(image)
    if not 0.0 < area <= 1.0:
        raise ValueError(f"a crop keeps a share in (0, 1] of the area, not {area}")
    pixels = image.astype(np.float32) * np.float32(1.0 / 255.0)
    side = np.sqrt(np.float32(area))
    low = (np.float32(1.0) - side) / np.float32(2.0)
    high = low + side
    for axis in (0, 1):
        intervals = image.shape[axis] - 1
        step = (high - low) * np.float32(intervals) / np.float32(max(intervals, 1))
        pixels = crop_and_resize(pixels, axis, low, step)
    # TensorFlow's way from [0, 1] to bytes: scale by 255.5 and cut off.
    levels = np.floor(np.clip(pixels, 0.0, 1.0) * np.float32(255.5))
    cropped: PixelArray = np.minimum(levels, 255).astype(np.uint8)
    return cropped


def crop_and_resize(pixels: Float32, axis: int, low: np.float32, step: np.float32) -> Float32:
    """Part of an image along one axis, stretched bilinearly to the old size; ``tf.image.crop_and_resize``.

    Args:
        pixels: Image of three axes, float32.
        axis: Height or width.
        low: Where the part begins, as a share of the axis.
        step: Distance of two samples in pixels, which is the part's share of the axis.
    """
    last = np.float32(pixels.shape[axis] - 1)
    place = np.minimum(low * last + np.arange(pixels.shape[axis], dtype=np.float32) * step, last)
    before = np.floor(place)
    share = (place - before).astype(np.float32)[(slice(None), *[None] * (2 - axis))]
    near = np.take(pixels, before.astype(np.intp), axis=axis)
    far = np.take(pixels, np.ceil(place).astype(np.intp), axis=axis)
    resized: Float32 = near + (far - near) * share
    return resized


def libero_openvla_v1(image: PixelArray) -> PixelArray:
    """Image preprocessing of protocol ``libero-openvla-v1``: half a turn, JPEG round trip, lanczos3 to 224 pixels.

    The center crop that follows there belongs to policies trained with crops, see :func:`center_crop`.

    Args:
        image: uint8 ``(H, W, 3)`` as LIBERO's camera delivers it (256 pixels in the protocol).

    Returns:
        uint8 ``(224, 224, 3)``.
    """
    return lanczos3(jpeg_round_trip(rotate_180(image)), 224, 224)


def simpler_openvla_v1(image: PixelArray) -> PixelArray:
    """Preprocessing of SimplerEnv's public evaluation of OpenVLA: the camera's image, shrunk to 224 x 224 by area.

    It is not cropped to a square first, so things come out narrower than they are. OpenVLA's own training resizes with
    lanczos3; the public evaluation, whose figures are compared, does not.

    Args:
        image: uint8 ``(H, W, 3)`` as the camera delivers it (480 x 640).

    Returns:
        uint8 ``(224, 224, 3)``.
    """
    return area_average(image, 224, 224)


def _check(image: PixelArray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"an image must be uint8 (H, W, 3), not {image.dtype} {image.shape}")
