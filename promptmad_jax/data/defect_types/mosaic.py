"""Mosaics: four images of a batch in one, each tile with its own type mask."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Mosaic(NamedTuple):
    """A batch: images [B, S, S, 3] and type masks [B, S, S] of the given types, labels bool [B]."""

    images: jax.Array
    type_masks: jax.Array
    labels: jax.Array


def mosaic(
    key: jax.Array,
    images: jax.Array,
    type_masks: jax.Array,
    labels: jax.Array,
    probability: float = 0.0,
) -> Mosaic:
    """Replaces images by 2 x 2 mosaics of themselves and three others of the batch at half size.

    Images are halved by the mean of 2 x 2 pixels, masks by Pillow's nearest, so that a pixel keeps
    one type. The three others and the order of the tiles are drawn per image. A mosaic is defective
    if one of its images is: halving may lose a small defect from its mask.

    Args:
      key: of this batch.
      images: [B, S, S, 3], uint8 or float; S is even and B at least 4.
      type_masks: integers [B, S, S].
      labels: [B], true or non-zero for defective images.
      probability: that an image becomes a mosaic; 0 returns the batch as it is.

    Raises:
      ValueError: B or S is too small or odd.
    """
    labels = labels.astype(bool)
    if not probability:
        return Mosaic(images, type_masks, labels)
    count, size = type_masks.shape[:2]
    if count < 4 or size % 2:
        raise ValueError(f"mosaics need 4 images and an even size, not {count} and {size}")
    key_tiles, key_chosen = jax.random.split(key)
    tiles = _tiles(key_tiles, count)
    small = _halve(images)[tiles]
    small_masks = type_masks[:, 1::2, 1::2][tiles]
    chosen = jax.random.bernoulli(key_chosen, probability, (count,))
    return Mosaic(
        jnp.where(chosen[:, None, None, None], _arrange(small), images),
        jnp.where(chosen[:, None, None], _arrange(small_masks), type_masks),
        jnp.where(chosen, labels[tiles].any(axis=1), labels),
    )


def _tiles(key: jax.Array, count: int) -> jax.Array:
    """The images of each mosaic, int [B, 4]: its own and three different others."""

    def draw(key: jax.Array, own: jax.Array) -> jax.Array:
        key_others, key_order = jax.random.split(key)
        shifts = 1 + jax.random.permutation(key_others, count - 1)[:3]
        members = jnp.concatenate([jnp.zeros(1, shifts.dtype), shifts])
        return (own + jax.random.permutation(key_order, members)) % count

    return jax.vmap(draw)(jax.random.split(key, count), jnp.arange(count))


def _halve(images: jax.Array) -> jax.Array:
    """[B, S, S, 3] to [B, S / 2, S / 2, 3], of the same type."""
    count, size = images.shape[:2]
    blocks = images.astype(jnp.float32).reshape(count, size // 2, 2, size // 2, 2, 3)
    means = blocks.mean(axis=(2, 4))
    if jnp.issubdtype(images.dtype, jnp.integer):
        means = jnp.round(means)
    return means.astype(images.dtype)


def _arrange(tiles: jax.Array) -> jax.Array:
    """[B, 4, h, h, ...] to [B, 2h, 2h, ...]."""
    upper = jnp.concatenate([tiles[:, 0], tiles[:, 1]], axis=2)
    lower = jnp.concatenate([tiles[:, 2], tiles[:, 3]], axis=2)
    return jnp.concatenate([upper, lower], axis=1)
