"""The drawing plane of the synthetic scenes: coordinates, coverage and noise.

Scenes are drawn in coordinates -1..1 (x to the right, y down), supersampled, as float32 arrays
[H, W] (fields) or [3, H, W] (colours 0..1).
"""

import dataclasses
import functools

import numpy as np
from PIL import Image

SUPERSAMPLE = 2


@dataclasses.dataclass(frozen=True)
class Grid:
    """Coordinates of the supersampled pixel centres and the width of one such pixel."""

    x: np.ndarray
    y: np.ndarray
    pixel: float

    @property
    def side(self) -> int:
        return self.x.shape[0]


@functools.lru_cache(maxsize=2)
def make_grid(image_size: int) -> Grid:
    side = image_size * SUPERSAMPLE
    line = ((np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1).astype(np.float32)
    x, y = np.meshgrid(line, line)
    x.flags.writeable = y.flags.writeable = False  # shared by all pictures of this size
    return Grid(x, y, 2.0 / side)


def rotated(grid: Grid, angle: float, shift=(0.0, 0.0), scale: float = 1.0):
    """Coordinates (u, v) of a part that is scaled, rotated by `angle` (radians) and shifted."""
    cos, sin = np.float32(np.cos(angle) / scale), np.float32(np.sin(angle) / scale)
    x, y = grid.x - np.float32(shift[0]), grid.y - np.float32(shift[1])
    return cos * x + sin * y, cos * y - sin * x


def coverage(grid: Grid, distance: np.ndarray) -> np.ndarray:
    """Anti-aliased coverage 0..1 of the region where the signed distance is negative."""
    return np.clip(0.5 - distance / np.float32(grid.pixel), 0, 1)


def box(u, v, half_u: float, half_v: float, corner: float = 0.0) -> np.ndarray:
    """Signed distance to a rectangle with rounded corners: exact outside, larger axis inside."""
    du, dv = np.abs(u) - np.float32(half_u - corner), np.abs(v) - np.float32(half_v - corner)
    outside = np.sqrt(np.maximum(du, 0) ** 2 + np.maximum(dv, 0) ** 2)
    return outside + np.minimum(np.maximum(du, dv), 0) - np.float32(corner)


def ramp(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, a smooth step between."""
    t = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mix(below: np.ndarray, above, alpha: np.ndarray) -> np.ndarray:
    """Lays `above` ([3, H, W] or a colour of three numbers) over `below` with `alpha` [H, W]."""
    mixed = colour(above) - below
    mixed *= alpha[None]
    mixed += below
    return mixed


def colour(value) -> np.ndarray:
    value = np.asarray(value, np.float32)
    return value[:, None, None] if value.ndim == 1 else value


def upsample(values: np.ndarray, side: int) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))


def smooth_noise(rng: np.random.Generator, grid: Grid, rows: int, columns: int) -> np.ndarray:
    """Smooth random field of about unit variance with `rows` x `columns` independent values."""
    return upsample(rng.standard_normal((rows, columns), np.float32), grid.side)


def grain(rng: np.random.Generator, grid: Grid) -> np.ndarray:
    """Fine isotropic grain of two scales, independent of the image size up to resolution."""
    coarse = smooth_noise(rng, grid, 48, 48)
    return 0.5 * coarse + 0.8 * smooth_noise(rng, grid, 160, 160)


def streaks(rng: np.random.Generator, grid: Grid, across: int, along: int, angle: float):
    """Fibres along x, turned by `angle`: noise fine in y (`across`) and long in x (`along`)."""
    values = upsample(rng.standard_normal((across, along), np.float32), grid.side)
    cos, sin, half = np.cos(angle) * 0.9, np.sin(angle) * 0.9, grid.side / 2
    matrix = (cos, sin, half - cos * half - sin * half, -sin, cos, half + sin * half - cos * half)
    turned = Image.fromarray(values).transform(
        (grid.side, grid.side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    return np.asarray(turned)
