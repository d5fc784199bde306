"""Bilinear resizing with aligned corners and averaging over areas, by two constant matrices.

`jax.image.resize` samples at half-pixel centres and antialiases when it shrinks; OneNIP resizes
with the corners aligned and reads two taps per axis, also when shrinking.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np


@functools.cache
def align_corners_matrix(size_in: int, size_out: int) -> np.ndarray:
    """Returns float32 [size_out, size_in]: output o reads position o * (in - 1) / (out - 1)."""
    scale = (size_in - 1) / (size_out - 1) if size_out > 1 else 0.0
    position = np.arange(size_out) * scale
    low = position.astype(np.int64)
    high, weight = np.minimum(low + 1, size_in - 1), position - low
    matrix = np.zeros((size_out, size_in))
    rows = np.arange(size_out)
    np.add.at(matrix, (rows, low), 1 - weight)
    np.add.at(matrix, (rows, high), weight)
    return matrix.astype(np.float32)


@functools.cache
def area_matrix(size_in: int, size_out: int) -> np.ndarray:
    """Returns float32 [size_out, size_in]: output o averages inputs from o to o + 1 times in / out,
    those at the ends in part."""
    edges = np.arange(size_out + 1) * (size_in / size_out)
    inputs = np.arange(size_in)[None]
    low, high = edges[:-1, None], edges[1:, None]
    overlap = np.minimum(high, inputs + 1) - np.maximum(low, inputs)
    return (np.maximum(overlap, 0) * (size_out / size_in)).astype(np.float32)


def resize_align_corners(x: jax.Array, height: int, width: int) -> jax.Array:
    """Resizes [B, h, w] or [B, h, w, C] to [B, height, width(, C)], bilinear, corners aligned.

    In full float32 on every platform: with one pass in bfloat16, which accelerators take by
    default, a constant map would become a grid.
    """
    if x.shape[1:3] == (height, width):
        return x
    rows = jnp.asarray(align_corners_matrix(x.shape[1], height), x.dtype)
    columns = jnp.asarray(align_corners_matrix(x.shape[2], width), x.dtype)
    return jnp.einsum("Hh,bhw...,Ww->bHW...", rows, x, columns, precision=jax.lax.Precision.HIGHEST)
