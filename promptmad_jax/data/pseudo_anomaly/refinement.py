"""Pseudo-anomalies made more like real defects: on the object, smaller, fainter.

Images are planar float32 [3, S, S] of integers 0..255, masks bool [S, S]. An empty mask stays
empty.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from promptmad_jax.data.pseudo_anomaly.config import PseudoAnomalyConfig
from promptmad_jax.data.pseudo_anomaly.foreground import foreground

_OVERLAP = 0.25


def refine(
    key: jax.Array,
    image: jax.Array,
    pseudo: jax.Array,
    mask: jax.Array,
    config: PseudoAnomalyConfig,
) -> tuple[jax.Array, jax.Array]:
    """Moves, shrinks and fades a pseudo-anomaly, in this order and as `config` says.

    What is at its default adds nothing to the program, and does not change the draws of the rest.

    Args:
      key: typed PRNG key.
      image: the normal image.
      pseudo: the image with the pseudo-anomaly, equal to `image` where `mask` is not set.

    Returns:
      The new `pseudo` and `mask`.
    """
    place_key, shrink_key, contrast_key = jax.random.split(key, 3)
    if config.foreground > 0.0:
        pseudo, mask = lax.cond(
            jax.random.bernoulli(jax.random.fold_in(place_key, 0), config.foreground),
            lambda: move_to_foreground(jax.random.fold_in(place_key, 1), image, pseudo, mask),
            lambda: (pseudo, mask),
        )
    if config.shrink > 0.0:
        mask = lax.cond(
            jax.random.bernoulli(jax.random.fold_in(shrink_key, 0), config.shrink),
            lambda: shrink(jax.random.fold_in(shrink_key, 1), mask, config.shrink_radius),
            lambda: mask,
        )
        pseudo = jnp.where(mask[None], pseudo, image)
    if config.contrast != (1.0, 1.0):
        lowest, highest = config.contrast
        kept = jax.random.uniform(contrast_key, (), minval=lowest, maxval=highest)
        pseudo = jnp.round(image + kept * (pseudo - image))
    return pseudo, mask


def move_to_foreground(
    key: jax.Array, image: jax.Array, pseudo: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Restricts a pseudo-anomaly to the image's foreground; leaves it alone if that is empty.

    If under a quarter of the mask is on the foreground, the pasted pixels are first shifted,
    wrapping around the border, so that a random one of them lands on a random foreground pixel.
    What a Perlin texture lets through of the image moves with it.

    Returns:
      The new `pseudo` and `mask`.
    """
    mask_key, place_key = jax.random.split(key)
    place = foreground(image)

    def restricted() -> tuple[jax.Array, jax.Array]:
        scarce = jnp.sum(mask & place) < _OVERLAP * jnp.sum(mask)
        shift = jnp.where(scarce, draw_pixel(place_key, place) - draw_pixel(mask_key, mask), 0)
        kept = jnp.roll(mask, shift, (0, 1)) & place
        return jnp.where(kept[None], jnp.roll(pseudo, shift, (1, 2)), image), kept

    return lax.cond(jnp.any(place), restricted, lambda: (pseudo, mask))


def shrink(key: jax.Array, mask: jax.Array, radius: tuple[float, float]) -> jax.Array:
    """Cuts a mask down to a random ellipse around one of its own pixels.

    Args:
      radius: range of both semi-axes as shares of S, drawn independently and log-uniformly.
    """
    centre_key, radius_key, angle_key = jax.random.split(key, 3)
    size = mask.shape[-1]
    row, column = draw_pixel(centre_key, mask)
    lowest, highest = map(math.log, radius)
    radii = jnp.exp(jax.random.uniform(radius_key, (2,), minval=lowest, maxval=highest))
    angle = jax.random.uniform(angle_key, (), maxval=jnp.pi)
    y, x = (jnp.arange(size)[:, None] - row) / size, (jnp.arange(size)[None] - column) / size
    along = (jnp.cos(angle) * y + jnp.sin(angle) * x) / radii[0]
    across = (jnp.cos(angle) * x - jnp.sin(angle) * y) / radii[1]
    return mask & (along**2 + across**2 <= 1.0)


def draw_pixel(key: jax.Array, mask: jax.Array) -> jax.Array:
    """Draws a set pixel uniformly: (row, column), int32 [2]; (0, 0) if the mask is empty."""
    counts = jnp.cumsum(jnp.sum(mask, axis=1))
    chosen = jax.random.randint(key, (), 0, jnp.maximum(counts[-1], 1))
    row = jnp.argmax(counts > chosen)
    within = chosen - counts[row] + jnp.sum(mask[row])
    column = jnp.argmax(jnp.cumsum(mask[row]) > within)
    return jnp.stack([row, column])
