"""Photographs of drawn scenes: exposure, uneven light, lens blur, sensor noise."""

import numpy as np
from scipy import ndimage

from promptmad_jax.data.synthetic.geometry import SUPERSAMPLE, Grid


def expose(scene: np.ndarray, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Scene [3, H, W] at SUPERSAMPLE times the size -> noiseless picture [3, S, S], 0..1."""
    size = grid.side // SUPERSAMPLE
    rows = scene.reshape(3, size, SUPERSAMPLE, -1).mean(2)
    picture = rows.reshape(3, size, size, SUPERSAMPLE).mean(3)
    x, y = grid.x[::SUPERSAMPLE, ::SUPERSAMPLE], grid.y[::SUPERSAMPLE, ::SUPERSAMPLE]
    direction, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0.03, 0.26)
    light = 1 + slope * (np.cos(direction) * x + np.sin(direction) * y)
    light = light * (1 - rng.uniform(0.03, 0.10) * (x * x + y * y))
    exposure = rng.uniform(0.72, 1.16) * (1 + rng.normal(0, 0.012, 3))
    picture = picture * exposure.astype(np.float32)[:, None, None] * light.astype(np.float32)[None]
    blur = rng.uniform(0.4, 0.75) * size / 256
    picture = ndimage.gaussian_filter(picture, (0, blur, blur), truncate=3)
    return np.clip(soft_highlights(picture), 0, 1)


def soft_highlights(picture: np.ndarray) -> np.ndarray:
    """Film-like shoulder: linear to 0.75, then towards 1, so that highlights keep their form."""
    over = np.maximum(picture - np.float32(0.75), 0)
    return np.minimum(picture, np.float32(0.75)) + over / (1 + over / np.float32(0.25))


def digitize(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Picture [3, S, S] -> uint8 [S, S, 3] with shot and read noise."""
    noise = rng.standard_normal(picture.shape, np.float32)
    level = np.sqrt(np.float32(0.008**2) + np.float32(0.00022) * picture)
    noisy = np.clip(picture + level * noise, 0, 1) * 255
    return np.ascontiguousarray(np.rint(noisy).astype(np.uint8).transpose(1, 2, 0))
