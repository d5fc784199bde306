"""Bilinear resizing with aligned corners: two small constant matrices, or two taps an axis.

`jax.image.resize` samples at half-pixel centres and antialiases when it shrinks; OneNIP resizes
with the corners aligned and reads two taps, also when shrinking (specs of OneNIP, section 1.3).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def _taps(size_in: int, size_out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the two inputs of each output and the weight of the second, [size_out] each."""
    if size_out == 1 or size_in == 1:
        position = np.zeros(size_out)
    else:
        position = np.arange(size_out) * ((size_in - 1) / (size_out - 1))
    low = np.minimum(position.astype(np.int64), size_in - 1)
    return low, np.minimum(low + 1, size_in - 1), position - low


@functools.cache
def align_corners_matrix(size_in: int, size_out: int) -> np.ndarray:
    """Returns float32 [size_out, size_in]: output o reads position o * (in - 1) / (out - 1)."""
    low, high, weight = _taps(size_in, size_out)
    matrix = np.zeros((size_out, size_in))
    rows = np.arange(size_out)
    np.add.at(matrix, (rows, low), 1 - weight)
    np.add.at(matrix, (rows, high), weight)
    return matrix.astype(np.float32)


def resize_align_corners(x: jax.Array, height: int, width: int) -> jax.Array:
    """Resizes [B, h, w] or [B, h, w, C] to [B, height, width(, C)], bilinear, corners aligned."""
    if x.shape[1:3] == (height, width):
        return x
    rows = jnp.asarray(align_corners_matrix(x.shape[1], height), x.dtype)
    columns = jnp.asarray(align_corners_matrix(x.shape[2], width), x.dtype)
    return jnp.einsum("Hh,bhw...,Ww->bHW...", rows, x, columns)


def sample_align_corners(x: jax.Array, height: int, width: int) -> jax.Array:
    """`resize_align_corners` of [B, h, w, C] without a fast gradient.

    A CPU reads the taps, which are few where an image shrinks: a sixth of the time of the products.
    Their gradient would be a scatter.
    """
    if x.shape[1:3] == (height, width):
        return x
    by_products = lambda x: resize_align_corners(x, height, width)
    return jax.lax.platform_dependent(
        x, cpu=lambda x: _by_taps(_by_taps(x, 1, height), 2, width), default=by_products
    )


def _by_taps(x, axis, size):
    low, high, weight = _taps(x.shape[axis], size)
    shape = [1] * x.ndim
    shape[axis] = size
    weight = jnp.asarray(weight.reshape(shape), x.dtype)
    first, second = (jnp.take(x, taps, axis, mode="clip") for taps in (low, high))
    return first * (1 - weight) + second * weight
