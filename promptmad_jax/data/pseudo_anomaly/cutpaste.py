"""CutPaste: a piece of the image, jittered in colour and pasted elsewhere.

Source: Li et al., "CutPaste: Self-Supervised Learning for Anomaly Detection and Localization"
(CVPR 2021), with OneNIP's sizes. Images are planar float32 [3, S, S] (see `color`).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from promptmad_jax.data.pseudo_anomaly import color

PATCH_AREA = (0.02, 0.15)
PATCH_TALL = (0.3, 1.0)
PATCH_FLAT = (1.0, 3.3)
SCAR_WIDTH = (2, 16)
SCAR_HEIGHT = (10, 25)
SCAR_IMAGE_SIZE = 224
SCAR_DEGREES = 45.0


class Cut(NamedTuple):
    """A rectangle of height x width pixels taken from `source` and pasted at `target`.

    All fields are int32; source and target are the (row, column) of the upper left corner.
    """

    height: jax.Array
    width: jax.Array
    source: jax.Array
    target: jax.Array


def draw_patch(key: jax.Array, size: int) -> Cut:
    """Draws a patch of 2 to 15 % of the image, of aspect U(0.3, 1) or U(1, 3.3) at equal odds."""
    area_key, side_key, aspect_key, place_key = jax.random.split(key, 4)
    area = jax.random.uniform(area_key, (), minval=PATCH_AREA[0], maxval=PATCH_AREA[1]) * size**2
    ranges = jnp.where(jax.random.bernoulli(side_key), jnp.array(PATCH_TALL), jnp.array(PATCH_FLAT))
    aspect = jax.random.uniform(aspect_key, (), minval=ranges[0], maxval=ranges[1])
    width = jnp.sqrt(area * aspect).astype(jnp.int32)
    height = jnp.sqrt(area / aspect).astype(jnp.int32)
    return _place(place_key, jnp.maximum(height, 1), jnp.maximum(width, 1), size)


def draw_scar(key: jax.Array, size: int) -> Cut:
    """Draws a scar 2..16 pixels wide and 10..25 high at image size 224, scaled with the size."""
    width_key, height_key, place_key = jax.random.split(key, 3)
    width = jax.random.randint(width_key, (), SCAR_WIDTH[0], SCAR_WIDTH[1] + 1)
    height = jax.random.randint(height_key, (), SCAR_HEIGHT[0], SCAR_HEIGHT[1] + 1)
    return _place(place_key, _scaled(height, size), _scaled(width, size), size)


def patch(key: jax.Array, image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Pastes a rectangle of the image. [3, S, S] to ([3, S, S], bool mask [S, S])."""
    draw_key, jitter_key = jax.random.split(key)
    size = image.shape[-1]
    cut = draw_patch(draw_key, size)
    side = min(size, math.ceil(math.sqrt(PATCH_AREA[1] / PATCH_TALL[0]) * size))
    window, inside = _cut_out(image, cut, side, side)
    window = color.color_jitter(jitter_key, window, inside)
    return _paste(image, window, inside, cut.target)


def scar(key: jax.Array, image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Pastes a thin rotated strip of the image. [3, S, S] to ([3, S, S], bool mask [S, S])."""
    draw_key, jitter_key, angle_key = jax.random.split(key, 3)
    size = image.shape[-1]
    cut = draw_scar(draw_key, size)
    side = max(_scaled(SCAR_HEIGHT[1], size), _scaled(SCAR_WIDTH[1], size))
    window, inside = _cut_out(image, cut, side, side)
    window = color.color_jitter(jitter_key, window, inside)
    degrees = jax.random.uniform(angle_key, (), minval=-SCAR_DEGREES, maxval=SCAR_DEGREES)
    rotated, alpha = rotate_expanded(window, cut.height, cut.width, degrees)
    return _paste(image, rotated, alpha, cut.target)


def rotate_expanded(
    window: jax.Array, height: jax.Array, width: jax.Array, degrees: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Pillow's `rotate(degrees, NEAREST, expand=True)` of the window's upper left rectangle.

    Args:
      window: [3, K, K]; the rectangle is `window[:, :height, :width]`.
      height: int32, at most K.
      width: int32, at most K.
      degrees: counter-clockwise.

    Returns:
      The canvas [3, L, L], L the static bound of the expanded size, and its alpha, bool [L, L].
    """
    canvas = math.ceil(math.hypot(*window.shape[1:])) + 2
    angle = jnp.deg2rad(degrees)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    half_height, half_width = height / 2.0, width / 2.0

    def expanded(along: jax.Array, across: jax.Array) -> jax.Array:
        reach = along * cos + across * jnp.abs(sin)
        return jnp.ceil(along + reach) - jnp.floor(along - reach)

    rows, columns = expanded(half_height, half_width), expanded(half_width, half_height)
    y = jnp.arange(canvas)[:, None] + 0.5 - rows / 2.0
    x = jnp.arange(canvas)[None, :] + 0.5 - columns / 2.0
    row = jnp.floor(sin * x + cos * y + half_height).astype(jnp.int32)
    column = jnp.floor(cos * x - sin * y + half_width).astype(jnp.int32)
    alpha = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    rotated = lax.platform_dependent(
        window, row, column, cpu=_pixels_by_gather, default=_pixels_by_product
    )
    return rotated, alpha


def _pixels_by_gather(window: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
    """Pixels of [3, K, K] at [L, L] places, those outside moved to the border: [3, L, L]."""
    return window.at[:, row, column].get(mode="clip")


def _pixels_by_product(window: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
    """The same by one-hot rows and columns: accelerators gather single elements slowly. Exact in
    bfloat16 for the levels of an image."""
    rows, columns = window.shape[1:]
    by_row = jax.nn.one_hot(jnp.clip(row, 0, rows - 1).reshape(-1), rows)
    by_column = jax.nn.one_hot(jnp.clip(column, 0, columns - 1).reshape(-1), columns)
    lines = jnp.einsum("cij,pi->cpj", window, by_row)
    return jnp.einsum("cpj,pj->cp", lines, by_column).reshape(-1, *row.shape)


def _scaled(pixels, size: int):
    """Pixels at image size 224 to pixels at `size`, at least one, rounded half up."""
    doubled = 2 * pixels * size + SCAR_IMAGE_SIZE
    scaled = doubled // (2 * SCAR_IMAGE_SIZE)
    return max(scaled, 1) if isinstance(pixels, int) else jnp.maximum(scaled, 1)


def _place(key: jax.Array, height: jax.Array, width: jax.Array, size: int) -> Cut:
    limits = size - jnp.stack([height, width]) + 1
    source, target = jax.random.randint(key, (2, 2), 0, limits[None])
    return Cut(height, width, source, target)


def _cut_out(image: jax.Array, cut: Cut, rows: int, columns: int) -> tuple[jax.Array, jax.Array]:
    """The window [3, rows, columns] at `cut.source`, and where the rectangle is in it."""
    padded = jnp.pad(image, ((0, 0), (0, rows), (0, columns)))
    window = lax.dynamic_slice(padded, (0, *cut.source), (3, rows, columns))
    inside = (jnp.arange(rows)[:, None] < cut.height) & (jnp.arange(columns)[None] < cut.width)
    return window, inside


def _paste(
    image: jax.Array, window: jax.Array, alpha: jax.Array, target: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Pastes window [3, K, K] where alpha [K, K] is set, cropped at the border of the image."""
    size, side = image.shape[-1], alpha.shape[-1]
    padded = jnp.pad(image, ((0, 0), (0, side), (0, side)))
    below = lax.dynamic_slice(padded, (0, *target), window.shape)
    pasted = lax.dynamic_update_slice(padded, jnp.where(alpha, window, below), (0, *target))
    mask = lax.dynamic_update_slice(jnp.zeros(padded.shape[1:], bool), alpha, tuple(target))
    return pasted[:, :size, :size], mask[:size, :size]
