"""Training batches as pairs: row 2i is image i as it is, row 2i + 1 its pseudo-anomalous version.

Rows of one image stay together, so that on a mesh that splits the batch each stays on its device.
With all clean rows first, each concatenation and each slice would send half of the batch to another
device.
"""

import jax
import jax.numpy as jnp


def interleave(*parts: jax.Array) -> jax.Array:
    """n arrays [B, ...] to one [n * B, ...]: its row n * i + k is row i of the k-th array."""
    stacked = jnp.stack(parts, axis=1)
    return stacked.reshape(-1, *stacked.shape[2:])


def separate(x: jax.Array, count: int) -> tuple[jax.Array, ...]:
    """`count` arrays [B, ...] of one [count * B, ...]: the inverse of `interleave`."""
    stacked = x.reshape(-1, count, *x.shape[1:])
    return tuple(stacked[:, k] for k in range(count))


def for_both(x: jax.Array) -> jax.Array:
    """Each row twice, for an image and its pseudo-anomalous version: [B, ...] to [2B, ...]."""
    return interleave(x, x)
