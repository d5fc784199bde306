"""Pillow's colour operations on planar RGB images.

Images are float32 [3, H, W] with integer values 0..255; channels come first because a last axis of
three wastes vector lanes on every backend. The arithmetic and its truncations are those of Pillow's
`ImageEnhance` and HSV mode, which torchvision's ColorJitter uses.
"""

import jax
import jax.numpy as jnp
from jax import lax

JITTER_STRENGTH = 0.4
JITTER_HUE = 0.1


def grayscale(image: jax.Array) -> jax.Array:
    """Luma [H, W], rounded as Pillow's `convert("L")`."""
    red, green, blue = image
    # Below 2**24, so exact in float32.
    weighted = 19595.0 * red + 38470.0 * green + 7471.0 * blue + 32768.0
    return jnp.floor(weighted / 65536.0)


def blend(degenerate: jax.Array, image: jax.Array, factor: jax.Array) -> jax.Array:
    """`degenerate + factor * (image - degenerate)`, clipped and truncated to integers."""
    return jnp.floor(jnp.clip(degenerate + factor * (image - degenerate), 0.0, 255.0))


def adjust_brightness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends [3, H, W] with black."""
    return blend(jnp.zeros_like(image), image, factor)


def adjust_contrast(image: jax.Array, mask: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends [3, H, W] with its mean grey, taken where the bool `mask` [H, W] is set."""
    total = jnp.sum(jnp.where(mask, grayscale(image), 0.0))
    mean = jnp.floor(total / jnp.maximum(jnp.sum(mask), 1) + 0.5)
    return blend(jnp.full_like(image, mean), image, factor)


def adjust_saturation(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends [3, H, W] with its grey version."""
    return blend(grayscale(image)[None], image, factor)


def rgb_to_hsv(image: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Hue, saturation and value [H, W], each an integer 0..255 as in Pillow's HSV mode."""
    red, green, blue = image
    value = jnp.max(image, axis=0)
    spread = value - jnp.min(image, axis=0)
    from_red, from_green, from_blue = (value - plane for plane in (red, green, blue))
    sector = jnp.where(
        red == value,
        from_blue - from_green,
        jnp.where(
            green == value,
            2.0 * spread + from_red - from_blue,
            4.0 * spread + from_green - from_red,
        ),
    )
    sector = jnp.where(sector < 0.0, sector + 6.0 * spread, sector)
    # Integers over integers: the half keeps an exact quotient from rounding below itself, so
    # that every backend truncates alike. One level of hue can be six levels of colour.
    hue = jnp.floor((255.0 * sector + 0.5) / jnp.maximum(6.0 * spread, 1.0))
    saturation = jnp.floor((255.0 * spread + 0.5) / jnp.maximum(value, 1.0))
    return hue, saturation, value


def hsv_to_rgb(hue: jax.Array, saturation: jax.Array, value: jax.Array) -> jax.Array:
    """Inverse of `rgb_to_hsv`: integer planes [H, W] to [3, H, W]."""
    sector = hue * 6.0 / 255.0
    share = saturation / 255.0

    def plane(offset: float) -> jax.Array:
        position = offset + sector
        position = jnp.where(position >= 6.0, position - 6.0, position)
        weight = jnp.clip(jnp.minimum(position, 4.0 - position), 0.0, 1.0)
        return jnp.floor(value * (1.0 - share * weight) + 0.5)

    return jnp.stack([plane(5.0), plane(3.0), plane(1.0)])


def shift_hsv(image: jax.Array, hue: jax.Array, saturation: jax.Array) -> jax.Array:
    """Adds integers to the hue (wrapping) and saturation (clipping) of [3, H, W]."""
    old_hue, old_saturation, value = rgb_to_hsv(image)
    new_hue = jnp.mod(old_hue + hue, 256.0)
    return hsv_to_rgb(new_hue, jnp.clip(old_saturation + saturation, 0.0, 255.0), value)


def adjust_hue(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Rotates the hue of [3, H, W] by `factor` of a full circle."""
    return shift_hsv(image, jnp.trunc(factor * 255.0), jnp.zeros_like(factor))


def color_jitter(key: jax.Array, image: jax.Array, mask: jax.Array) -> jax.Array:
    """torchvision's ColorJitter(0.4, 0.4, 0.4, 0.1), all four changes in random order.

    Args:
      key: typed PRNG key.
      image: float32 [3, H, W], integer values 0..255.
      mask: bool [H, W], the pixels of the patch, whose mean the contrast is relative to.

    Returns:
      float32 [3, H, W], integer values 0..255.
    """
    order_key, factor_key, hue_key = jax.random.split(key, 3)
    order = jnp.argsort(jax.random.uniform(order_key, (4,)))
    low, high = 1.0 - JITTER_STRENGTH, 1.0 + JITTER_STRENGTH
    bright, contrast, saturation = jax.random.uniform(factor_key, (3,), minval=low, maxval=high)
    hue = jax.random.uniform(hue_key, (), minval=-JITTER_HUE, maxval=JITTER_HUE)
    changes = (
        lambda x: adjust_brightness(x, bright),
        lambda x: adjust_contrast(x, mask, contrast),
        lambda x: adjust_saturation(x, saturation),
        lambda x: adjust_hue(x, hue),
    )
    return lax.fori_loop(0, 4, lambda i, x: lax.switch(order[i], changes, x), image)
