"""Light on height fields: surface normals, diffuse and glossy shading, metal, cast shadows."""

import dataclasses

import numpy as np
from scipy import ndimage

from promptmad_jax.data.synthetic.geometry import Grid, upsample

STEEPEST = 2.5


@dataclasses.dataclass(frozen=True)
class Light:
    """Unit vector towards the lamp: x to the right, y down, z to the camera."""

    x: float
    y: float
    z: float


def draw_light(rng: np.random.Generator) -> Light:
    """Draws a lamp at the upper left, whose position varies a little from picture to picture."""
    azimuth = np.deg2rad(rng.normal(-130, 14))
    elevation = np.deg2rad(rng.uniform(48, 60))
    flat = np.cos(elevation)
    vector = flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)
    return Light(*(float(part) for part in vector))


def normals(grid: Grid, height: np.ndarray):
    """Unit normals (nx, ny, nz), each [H, W], of a height field in units of the coordinates."""
    step = np.float32(0.5 / grid.pixel)
    gx, gy = np.zeros_like(height), np.zeros_like(height)
    gx[:, 1:-1] = (height[:, 2:] - height[:, :-2]) * step
    gy[1:-1] = (height[2:] - height[:-2]) * step
    np.clip(gx, -STEEPEST, STEEPEST, out=gx)
    np.clip(gy, -STEEPEST, STEEPEST, out=gy)
    nz = 1 / np.sqrt(1 + gx * gx + gy * gy)
    return -gx * nz, -gy * nz, nz


def diffuse(normal, light: Light, ambient: float = 0.35) -> np.ndarray:
    """Brightness [H, W] of a matt surface; 1 where it lies flat."""
    nx, ny, nz = normal
    facing = np.maximum(nx * light.x + ny * light.y + nz * light.z, 0) / light.z
    return np.float32(ambient) + np.float32(1 - ambient) * facing


def gloss(normal, light: Light, squarings: int) -> np.ndarray:
    """Blinn highlight [H, W] with exponent 2**squarings (half vector between lamp and camera)."""
    nx, ny, nz = normal
    length = np.sqrt(light.x**2 + light.y**2 + (light.z + 1) ** 2)
    value = np.maximum(nx * light.x + ny * light.y + nz * (light.z + 1), 0) / np.float32(length)
    for _ in range(squarings):
        value = value * value
    return value


def metal(normal, light: Light) -> np.ndarray:
    """Brightness [H, W] of polished metal: a broad lamp reflection and the dark room beside it."""
    nx, ny, _ = normal
    room = np.sin(np.float32(5.0) * ny + np.float32(2.2) * nx + np.float32(0.6))
    body = np.float32(0.55) * diffuse(normal, light, 0.25) + np.float32(0.13) * room
    return body + np.float32(0.45) * gloss(normal, light, 5)


def cast_shadow(mask: np.ndarray, light: Light, offset: float, softness: float) -> np.ndarray:
    """Shadow 0..1 of a part with coverage `mask`; lengths in coordinates."""
    side = mask.shape[0]
    small = mask[1::4, 1::4]
    unit = small.shape[0] / 2
    move = (-light.y * offset * unit, -light.x * offset * unit)
    moved = ndimage.shift(small, move, order=1)
    return np.clip(upsample(ndimage.gaussian_filter(moved, softness * unit), side), 0, 1)
