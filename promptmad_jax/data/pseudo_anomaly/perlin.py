"""Textures pasted through a thresholded Perlin-noise mask.

Source: Zavrtanik et al., "DRAEM" (ICCV 2021), with OneNIP's range of resolutions.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

MASK_EXPONENTS = (1, 5)
MASK_THRESHOLD = 0.5
MASK_DEGREES = 5.0
MAX_BETA = 0.8


class Gradients(NamedTuple):
    """The gradients of Perlin noise.

    Attributes:
        angles: float32 [n, n], the direction at each node, in radians from the downward axis.
        rows, columns: int32 scalars below n, cells along the two axes of an image; the first
            rows + 1 and columns + 1 nodes are used.
    """

    angles: jax.Array
    rows: jax.Array
    columns: jax.Array


def draw_gradients(key: jax.Array, exponents: tuple[int, int]) -> Gradients:
    """Draws gradients of 2**a rows and 2**b columns of cells; a and b are drawn independently from
    `exponents`, (smallest, largest)."""
    cells_key, angle_key = jax.random.split(key)
    low, high = exponents
    rows, columns = 2 ** jax.random.randint(cells_key, (2,), low, high + 1)
    nodes = 2**high + 1
    angles = 2.0 * jnp.pi * jax.random.uniform(angle_key, (nodes, nodes))
    return Gradients(angles, rows, columns)


def perlin_noise(key: jax.Array, size: int, exponents: tuple[int, int]) -> jax.Array:
    """Perlin noise [S, S] of `draw_gradients`."""
    return gradient_noise(draw_gradients(key, exponents), size)


def gradient_noise(gradients: Gradients, size: int) -> jax.Array:
    """Perlin noise of given gradients, times sqrt(2).

    Pixel y lies at y * rows / S cells, so S need not be divisible by the number of cells.
    Bilinear blending separates into rows and columns, so that the noise is two matrix products with
    the gradient grid, without a gather.

    Args:
      size: S, the side in pixels.

    Returns:
      float32 [S, S].
    """
    angles, rows, columns = gradients
    row_fade, row_offset = _node_weights(size, rows, angles.shape[0])
    column_fade, column_offset = _node_weights(size, columns, angles.shape[1])
    precise = jax.lax.Precision.HIGHEST
    by_row = jnp.matmul(row_offset, jnp.cos(angles), precision=precise)
    by_column = jnp.matmul(row_fade, jnp.sin(angles), precision=precise)
    left = jnp.concatenate([by_row, by_column], axis=1)
    right = jnp.concatenate([column_fade, column_offset], axis=1)
    return jnp.sqrt(2.0) * jnp.matmul(left, right.T, precision=precise)


def _node_weights(size: int, cells: jax.Array, nodes: int) -> tuple[jax.Array, jax.Array]:
    """Fade weight of each grid node for each pixel of one axis, and weight times offset.

    Returns:
      Two float32 [S, nodes]; two neighbouring nodes of a row are not zero.
    """
    # Integer division: exact cell borders on every backend.
    scaled = jnp.arange(size) * cells
    cell = (scaled // size)[:, None]
    fraction = ((scaled % size) / size)[:, None]
    fade = fraction**3 * (fraction * (fraction * 6.0 - 15.0) + 10.0)
    node = jnp.arange(nodes)[None]
    lower, upper = node == cell, node == cell + 1
    weight = jnp.where(lower, 1.0 - fade, jnp.where(upper, fade, 0.0))
    offset = jnp.where(lower, fraction, fraction - 1.0)
    return weight, weight * offset


def rotate_noise(noise: jax.Array, degrees: jax.Array) -> jax.Array:
    """Rotates [S, S] about its centre, bilinear, zero outside."""
    size = noise.shape[-1]
    centre = (size - 1) / 2.0
    angle = jnp.deg2rad(degrees)
    y, x = jnp.arange(size)[:, None] - centre, jnp.arange(size)[None] - centre
    row = jnp.cos(angle) * y - jnp.sin(angle) * x + centre
    column = jnp.sin(angle) * y + jnp.cos(angle) * x + centre
    return map_coordinates(noise, [row, column], order=1, mode="constant", cval=0.0)


def rotated_noise(gradients: Gradients, size: int, degrees: jax.Array) -> jax.Array:
    """`gradient_noise` [S, S], rotated about its centre by at most `MASK_DEGREES`, zero outside."""
    rotations = {"cpu": rotate_noise, "default": rotate_by_shears}
    return jax.lax.platform_dependent(gradient_noise(gradients, size), degrees, **rotations)


def rotate_by_shears(noise: jax.Array, degrees: jax.Array) -> jax.Array:
    """`rotate_noise` by at most `MASK_DEGREES` as three shears, without a gather.

    Accelerators gather single elements slowly. Source: Paeth, "A Fast Algorithm for General Raster
    Rotation" (Graphics Interface, 1986).
    """
    angle, furthest = jnp.deg2rad(degrees), math.radians(MASK_DEGREES)
    first = functools.partial(_shear, factor=jnp.tan(angle / 2), bound=math.tan(furthest / 2))
    turned = _shear(first(noise).T, -jnp.sin(angle), math.sin(furthest)).T
    return first(turned)


def _shear(image: jax.Array, factor: jax.Array, bound: float) -> jax.Array:
    """Moves row y of [S, S] by factor * (y - centre) columns, |factor| <= bound, linearly."""
    size = len(image)
    centre = (size - 1) / 2
    reach = math.ceil(bound * centre) + 1
    shift = factor * (jnp.arange(size)[:, None] - centre)
    padded = jnp.pad(image, ((0, 0), (reach, reach)))
    columns = range(-reach, reach + 1)
    weight = lambda column: jnp.maximum(0.0, 1.0 - jnp.abs(shift - column))
    return sum(weight(k) * padded[:, reach + k : reach + k + size] for k in columns)


def perlin_mask(key: jax.Array, size: int) -> jax.Array:
    """Mask bool [S, S]: Perlin noise of 2 to 32 cells per axis, rotated by up to 5 degrees, > 0.5.

    The mask is empty in under 1 % of the draws.
    """
    noise_key, angle_key = jax.random.split(key)
    gradients = draw_gradients(noise_key, MASK_EXPONENTS)
    degrees = jax.random.uniform(angle_key, (), minval=-MASK_DEGREES, maxval=MASK_DEGREES)
    return rotated_noise(gradients, size, degrees) > MASK_THRESHOLD


def paste_texture(
    key: jax.Array, image: jax.Array, texture: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Blends a texture into the image where a Perlin mask is set.

    Inside, the result is (1 - beta) * texture + beta * image, truncated, with beta from
    U(0, 0.8).

    Args:
      key: typed PRNG key.
      image: float32 [3, S, S], integer values 0..255.
      texture: float32 [3, S, S], integer values 0..255.

    Returns:
      The image with the texture, float32 [3, S, S], and the mask, bool [S, S].
    """
    mask_key, beta_key = jax.random.split(key)
    mask = perlin_mask(mask_key, image.shape[-1])
    beta = MAX_BETA * jax.random.uniform(beta_key, ())
    blended = jnp.floor((1.0 - beta) * texture + beta * image)
    return jnp.where(mask[None], blended, image), mask
