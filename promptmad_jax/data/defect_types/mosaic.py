"""Mosaics: four images of a batch in one, each tile with its own mask of types."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Mosaic(NamedTuple):
    """Attributes:
    images: [B, S, S, 3], of the type given.
    type_masks: [B, S, S], of the type given.
    labels: bool [B], whether a tile is of a defective image.
    """

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
    """Puts an image and three others of its batch, at half size, into 2 x 2 tiles.

    Images are halved by the mean of 2 x 2 pixels, masks by Pillow's nearest, so that a pixel keeps
    one type. Which three others, and which tile is whose, is drawn for each image. A label follows
    from the images' labels, for halving may lose a small defect from its mask.

    Args:
      key: of this batch.
      images: [B, S, S, 3], uint8 or float; S is even and B at least 4.
      type_masks: integers [B, S, S].
      labels: [B], true or non-zero for defective images.
      probability: that an image becomes a mosaic; with 0, the default, nothing is done.

    Raises:
      ValueError: B or S does not allow it.
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
    """The images of each mosaic, int [B, 4], all different: its own and three others."""

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
