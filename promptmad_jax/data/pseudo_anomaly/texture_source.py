"""Sources of the texture of a Perlin anomaly."""

import jax
import jax.numpy as jnp
from jax import lax

from promptmad_jax.data.pseudo_anomaly import perlin, texture_ops

NOISE_EXPONENTS = (1, 6)
NOISE_SPREAD = 160.0


def draw_texture(key: jax.Array, texture: jax.Array, source: str) -> jax.Array:
    """Draws a texture from one of the sources of `PseudoAnomalyConfig.textures`.

    Args:
      key: typed PRNG key.
      texture: float32 [3, S, S], integer values 0..255; not read if the source is "noise".

    Returns:
      float32 [3, S, S], integer values 0..255.
    """
    coin_key, image_key, noise_key = jax.random.split(key, 3)
    if source == "images":
        return texture_ops.augment_texture(image_key, texture)
    if source == "noise":
        return noise_texture(noise_key, texture.shape[-1])
    return lax.cond(
        jax.random.bernoulli(coin_key),
        lambda: noise_texture(noise_key, texture.shape[-1]),
        lambda: texture_ops.augment_texture(image_key, texture),
    )


def noise_texture(key: jax.Array, size: int) -> jax.Array:
    """Three Perlin fields of 2 to 64 cells per axis, mixed at random into a random colour.

    Returns:
      float32 [3, S, S], integer values 0..255.
    """
    field_key, base_key, mixing_key = jax.random.split(key, 3)
    draw_fields = jax.vmap(perlin.perlin_noise, in_axes=(0, None, None))
    fields = draw_fields(jax.random.split(field_key, 3), size, NOISE_EXPONENTS)
    base = jax.random.uniform(base_key, (3, 1, 1), maxval=255.0)
    mixing = jax.random.uniform(mixing_key, (3, 3), minval=-NOISE_SPREAD, maxval=NOISE_SPREAD)
    mixed = jnp.einsum("cf,fyx->cyx", mixing, fields, precision=lax.Precision.HIGHEST)
    return jnp.floor(jnp.clip(base + mixed, 0.0, 255.0))
