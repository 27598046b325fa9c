"""Images for the data benchmarks: a smooth scene with some texture and a moving square, as a simulator renders it."""

import numpy as np


def make_images(episode, steps, size):
    """uint8 ``(steps, size, size, 3)``; about 20 kB a frame as JPEG of quality 95 at 256 pixels."""
    rng = np.random.default_rng(episode)
    y, x = np.mgrid[0:size, 0:size] / size
    waves = [np.sin(6 * x + 3 * channel) * np.cos(5 * y + episode) for channel in range(3)]
    scene = 128 + 60 * np.stack(waves, axis=-1) + rng.normal(0, 4, (size, size, 3))
    images = np.repeat(scene.clip(0, 255).astype(np.uint8)[None], steps, axis=0)
    for step in range(steps):
        place = int((size - size // 8) * step / max(1, steps - 1))
        images[step, place : place + size // 8, size // 3 : size // 2] = (200, 30, 30)
    return images
