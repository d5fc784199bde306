"""The object of an image, found by its colour distance from the border of the image."""

import jax
import jax.numpy as jnp

_GRID = 56
_LEAST_LEVELS = 24.0
_BORDER_PERCENTILE = 75.0
_BORDER_FACTOR = 3.0
_FARTHEST_FACTOR = 0.25
_SHARE = (0.02, 0.9)


def foreground(image: jax.Array) -> jax.Array:
    """Finds the pixels whose colour is unlike that of the image's border.

    Colours are smoothed over 1/56 of the side. A pixel is foreground if its RGB distance from the
    median of the border exceeds 24 levels, three times the third quartile of the border's own
    distances, and a quarter of the largest distance, which leaves out shadows. Parts of an object
    in the colour of its background are missing.

    Args:
      image: float32 [3, S, S], integer values 0..255.

    Returns:
      bool [S, S]; empty if under 2 % or over 90 % of the pixels would be foreground, as on
      textures and on objects that fill the image.
    """
    size = image.shape[-1]
    side = min(_GRID, size)
    coarse = jax.image.resize(image, (3, side, side), "linear")
    border = jnp.concatenate(
        [coarse[:, 0], coarse[:, -1], coarse[:, 1:-1, 0], coarse[:, 1:-1, -1]], axis=1
    )
    colour = jnp.median(border, axis=1, keepdims=True)
    spread = jnp.percentile(jnp.linalg.norm(border - colour, axis=0), _BORDER_PERCENTILE)
    distance = jnp.linalg.norm(coarse - colour[..., None], axis=0)
    bounds = [_LEAST_LEVELS, _BORDER_FACTOR * spread, _FARTHEST_FACTOR * jnp.max(distance)]
    found = jax.image.resize(distance, (size, size), "linear") > jnp.max(jnp.stack(bounds))
    lowest, highest = _SHARE
    share = jnp.mean(found)
    return found & (share >= lowest) & (share <= highest)
