"""Textures pasted through a thresholded Perlin-noise mask.

Source: Zavrtanik et al., "DRAEM" (ICCV 2021), with OneNIP's range of resolutions.
"""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

MASK_EXPONENTS = (1, 5)
MASK_THRESHOLD = 0.5
MASK_DEGREES = 5.0
MAX_BETA = 0.8


def perlin_noise(key: jax.Array, size: int, exponents: tuple[int, int]) -> jax.Array:
    """Perlin noise [S, S] with 2**a rows and 2**b columns of cells; a and b are drawn independently
    from `exponents`, (smallest, largest)."""
    cells_key, angle_key = jax.random.split(key)
    low, high = exponents
    rows, columns = 2 ** jax.random.randint(cells_key, (2,), low, high + 1)
    nodes = 2**high + 1
    angles = 2.0 * jnp.pi * jax.random.uniform(angle_key, (nodes, nodes))
    return gradient_noise(angles, rows, columns, size)


def gradient_noise(angles: jax.Array, rows: jax.Array, columns: jax.Array, size: int) -> jax.Array:
    """Perlin noise of given gradients, times sqrt(2).

    Pixel y lies at y * rows / S cells, so S need not be divisible by the number of cells.
    Bilinear blending separates into rows and columns, so that the noise is two matrix products with
    the gradient grid, without a gather.

    Args:
      angles: float32 [n, n], the direction of the gradient at each node, in radians from the
        downward axis; the first rows + 1 and columns + 1 are used.
      rows: int32 scalar below n, cells along the first axis.
      columns: int32 scalar below n, cells along the second axis.
      size: S, the side in pixels.

    Returns:
      float32 [S, S].
    """
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


def perlin_mask(key: jax.Array, size: int) -> jax.Array:
    """Mask bool [S, S]: Perlin noise of 2 to 32 cells per axis, rotated by up to 5 degrees, > 0.5.

    The mask is empty in under 1 % of the draws.
    """
    noise_key, angle_key = jax.random.split(key)
    noise = perlin_noise(noise_key, size, MASK_EXPONENTS)
    degrees = jax.random.uniform(angle_key, (), minval=-MASK_DEGREES, maxval=MASK_DEGREES)
    return rotate_noise(noise, degrees) > MASK_THRESHOLD


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
