"""Pseudo-anomalies of a batch, one PRNG key per image."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from promptmad_jax.data.pseudo_anomaly import cutpaste, perlin, refinement, texture_source
from promptmad_jax.data.pseudo_anomaly.config import PseudoAnomalyConfig

# Far from the counters of `jax.random.split`, which makes the same keys for small numbers.
_REFINEMENT = 0x5EED


def synthesize(
    keys: jax.Array,
    images: jax.Array,
    textures: jax.Array,
    config: PseudoAnomalyConfig,
) -> tuple[jax.Array, jax.Array]:
    """Pastes one pseudo-anomaly into each image.

    An image's result depends on its own key, image and texture, not on the rest of the batch.
    Where the mask is zero, the image is unchanged. With the default configuration as OneNIP's
    training data, except that textures are RGB, scars scale with the image size and any image size
    is possible.

    Args:
      keys: typed PRNG keys [B].
      images: uint8 RGB [B, S, S, 3].
      textures: uint8 RGB [B, S, S, 3], the texture of each image: other training images, or
        images of a folder. Not read if `config.textures` is "noise".
      config: static.

    Returns:
      Images, float32 [B, S, S, 3] of integers 0..255, and masks, float32 [B, S, S] of 0 and 1.

    Raises:
      ValueError: images are not square, or the three batches do not fit together.
    """
    _check(keys, images, textures)
    one = functools.partial(_synthesize_one, config=config)
    if _batching(config) == "vmap":
        return jax.vmap(one)(keys, images, textures)
    return lax.map(lambda sample: one(*sample), (keys, images, textures))


def draw_kind(key: jax.Array, config: PseudoAnomalyConfig) -> jax.Array:
    """Draws 0 for Perlin, 1 for patch or 2 for scar, with the configured shares."""
    u = jax.random.uniform(key, ())
    return (u >= config.perlin).astype(jnp.int32) + (u >= config.perlin + config.patch)


def _synthesize_one(
    key: jax.Array, image: jax.Array, texture: jax.Array, config: PseudoAnomalyConfig
) -> tuple[jax.Array, jax.Array]:
    kind_key, texture_key, paste_key = jax.random.split(key, 3)

    def paste_perlin() -> tuple[jax.Array, jax.Array]:
        drawn = texture_source.draw_texture(texture_key, _planar(texture), config.textures)
        return perlin.paste_texture(paste_key, _planar(image), drawn)

    def paste_patch() -> tuple[jax.Array, jax.Array]:
        return cutpaste.patch(paste_key, _planar(image))

    def paste_scar() -> tuple[jax.Array, jax.Array]:
        return cutpaste.scar(paste_key, _planar(image))

    kind = draw_kind(kind_key, config)
    pseudo, mask = lax.switch(kind, (paste_perlin, paste_patch, paste_scar))
    refine_key = jax.random.fold_in(key, _REFINEMENT)
    pseudo, mask = refinement.refine(refine_key, _planar(image), pseudo, mask, config)
    return jnp.moveaxis(pseudo, 0, -1), mask.astype(jnp.float32)


def _planar(image: jax.Array) -> jax.Array:
    """uint8 [S, S, 3] to float32 [3, S, S]."""
    return jnp.moveaxis(image, -1, 0).astype(jnp.float32)


def _batching(config: PseudoAnomalyConfig) -> str:
    if config.batching != "auto":
        return config.batching
    return "map" if jax.default_backend() == "cpu" else "vmap"


def _check(keys: jax.Array, images: jax.Array, textures: jax.Array) -> None:
    batch, height, width, channels = images.shape
    if height != width or channels != 3:
        raise ValueError(f"images must be [B, S, S, 3], not {images.shape}")
    if textures.shape != images.shape or keys.shape != (batch,):
        raise ValueError(
            f"images {images.shape}, textures {textures.shape} and keys {keys.shape} "
            "do not belong to one batch"
        )
