"""The parameter-free neck: backbone levels to one grid of feature tokens (OneNIP's MFCN)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from promptmad_jax.models.layers.resize import resize_align_corners


class Features(NamedTuple):
    """Features of images, the input of a model.

    Attributes:
        neck: [B, h, w, C], all levels resized to the last one's grid and concatenated, float32.
        stride8: [B, 2h, 2w, C8], the backbone's level on twice the grid (EfficientNets' stride 8);
            None if the model has no use.
        stride4: [B, 4h, 4w, C4], the level on four times the grid, or None.
        patches: what a memory compares, see `memory.patch_features`; None without a memory.
    """

    neck: jax.Array
    stride8: jax.Array | None
    stride4: jax.Array | None
    patches: jax.Array | None = None


def neck(levels: tuple[jax.Array, ...]) -> jax.Array:
    """Resizes all levels to the last one's grid and concatenates channels."""
    height, width = levels[-1].shape[1:3]
    *fine, last = (level.astype(jnp.float32) for level in levels)
    return jnp.concatenate([*(resize_align_corners(x, height, width) for x in fine), last], axis=-1)


def features_from_levels(levels: tuple[jax.Array, ...], fine: bool) -> Features:
    """Features of backbone levels; `fine` keeps those on twice and four times the last grid."""
    if not fine:
        return Features(neck(levels), None, None)
    by_height = {level.shape[1]: level for level in levels}
    height = levels[-1].shape[1]
    return Features(neck(levels), by_height[2 * height], by_height[4 * height])
