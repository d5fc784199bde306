"""2 x 2 pixels as channels and back, row-major, the pixel before its channels."""

import jax


def fold(maps: jax.Array) -> jax.Array:
    """[B, 2h, 2w] to [B, h, w, 4]."""
    return space_to_depth(maps[..., None])


def unfold(folded: jax.Array) -> jax.Array:
    """[B, h, w, 4] to [B, 2h, 2w], the inverse of `fold`."""
    return depth_to_space(folded)[..., 0]


def space_to_depth(x: jax.Array) -> jax.Array:
    """[B, 2h, 2w, C] to [B, h, w, 4C]."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // 2, width // 2, 4 * channels)


def depth_to_space(x: jax.Array) -> jax.Array:
    """[B, h, w, 4C] to [B, 2h, 2w, C], the inverse of `space_to_depth`."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, 2, 2, channels // 4)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, channels // 4)
