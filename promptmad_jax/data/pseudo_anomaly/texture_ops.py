"""Ten augmentations, three of which are applied to a texture before it is pasted.

They follow imgaug's augmenters of the same names as DRAEM and OneNIP use them, on planar
float32 [3, H, W] images of integers 0..255. Six are tables of 256 levels per channel: choosing
among these tiny tables costs nothing on any backend, and one lookup serves all six.
"""

import jax
import jax.numpy as jnp
from jax import lax

from promptmad_jax.data.pseudo_anomaly import color

OPERATIONS_PER_TEXTURE = 3
LUMA_SHARE = 2 / 3


def augment_texture(key: jax.Array, texture: jax.Array) -> jax.Array:
    """Applies three different operations, drawn uniformly, in the order drawn."""
    order_key, operation_key = jax.random.split(key)
    order = draw_operations(order_key)

    def step(i: jax.Array, image: jax.Array) -> jax.Array:
        return apply_operation(order[i], jax.random.fold_in(operation_key, i), image)

    return lax.fori_loop(0, OPERATIONS_PER_TEXTURE, step, texture)


def draw_operations(key: jax.Array) -> jax.Array:
    """Three different indices into `TABLES + FILTERS`, int32 [3]."""
    order = jnp.argsort(jax.random.uniform(key, (len(TABLES) + len(FILTERS),)))
    return order[:OPERATIONS_PER_TEXTURE]


def apply_operation(index: jax.Array, key: jax.Array, image: jax.Array) -> jax.Array:
    """Operation number `index` of `TABLES + FILTERS` on [3, H, W]."""

    def by_table(key: jax.Array, image: jax.Array) -> jax.Array:
        table = lax.switch(jnp.minimum(index, len(TABLES) - 1), TABLES, key, image)
        return look_up(table, image)

    branch = jnp.maximum(index - len(TABLES) + 1, 0)
    return lax.switch(branch, (by_table, *FILTERS), key, image)


def look_up(table: jax.Array, image: jax.Array) -> jax.Array:
    """Replaces each level of [3, H, W] by its entry in the channel's table, integers [3, 256]."""
    levels = image.astype(jnp.int32).reshape(3, -1)
    found = lax.platform_dependent(table, levels, cpu=_by_gather, default=_by_product)
    return found.reshape(image.shape)


def _by_gather(table: jax.Array, levels: jax.Array) -> jax.Array:
    return jnp.take_along_axis(table, levels, axis=1, mode="clip")


def _by_product(table: jax.Array, levels: jax.Array) -> jax.Array:
    """By one-hot base-16 digits: accelerators gather single elements slowly. Exact in bfloat16."""
    high, low = _digits(levels)
    rows = jnp.einsum("chl,clp->chp", table.reshape(3, 16, 16), low)
    return (rows * high).sum(1)


def _digits(levels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One-hot base-16 digits [3, 16, P] of levels [3, P], the high one first."""
    return jax.nn.one_hot(levels // 16, 16, axis=1), jax.nn.one_hot(levels % 16, 16, axis=1)


def histogram(image: jax.Array) -> jax.Array:
    """Counts of the 256 levels of each channel, int32 [3, 256]."""
    levels = image.astype(jnp.int32).reshape(3, -1)
    # A product of one-hot digits: accelerators have no fast scatter to few addresses.
    high, low = _digits(levels)
    return jnp.einsum("chp,clp->chl", high, low).reshape(3, 256).astype(jnp.int32)


def gamma(key: jax.Array, image: jax.Array) -> jax.Array:
    """Table of 255 * (v / 255)**g with g from U(0.5, 2), one g per channel."""
    del image
    exponent = jax.random.uniform(key, (3, 1), minval=0.5, maxval=2.0)
    return jnp.floor(255.0 * (_levels() / 255.0) ** exponent)


def solarize(key: jax.Array, image: jax.Array) -> jax.Array:
    """Table that inverts levels from a threshold of 32..128 up, with probability one half."""
    del image
    coin_key, threshold_key = jax.random.split(key)
    threshold = jax.random.randint(threshold_key, (), 32, 129)
    inverted = jax.random.bernoulli(coin_key) & (_levels() >= threshold)
    return jnp.where(inverted, 255.0 - _levels(), _levels())


def posterize(key: jax.Array, image: jax.Array) -> jax.Array:
    """Table that keeps the 1..8 highest bits."""
    del image
    dropped = 8 - jax.random.randint(key, (), 1, 9)
    levels = _levels().astype(jnp.int32)
    return ((levels >> dropped) << dropped).astype(jnp.float32)


def invert(key: jax.Array, image: jax.Array) -> jax.Array:
    """Table of 255 - v."""
    del key, image
    return 255.0 - _levels()


def autocontrast(key: jax.Array, image: jax.Array) -> jax.Array:
    """Table that stretches each channel after a cutoff of 0..20 % at both ends."""
    cutoff = jax.random.randint(key, (), 0, 21)
    return autocontrast_table(histogram(image), cutoff)


def equalize(key: jax.Array, image: jax.Array) -> jax.Array:
    """Table that equalizes the histogram of each channel."""
    del key
    return equalize_table(histogram(image))


def autocontrast_table(counts: jax.Array, cutoff: jax.Array) -> jax.Array:
    """Pillow's `ImageOps.autocontrast(cutoff=percent)` for counts [3, 256]."""
    cumulative = jnp.cumsum(counts, axis=1)
    total = cumulative[:, -1:]
    cut = total * cutoff // 100
    low = jnp.argmax(cumulative > cut, axis=1, keepdims=True)
    from_above = total - cumulative + counts
    high = 255 - jnp.argmax(from_above[:, ::-1] > cut, axis=1, keepdims=True)
    levels = _levels().astype(jnp.int32)
    stretched = jnp.clip((levels - low) * 255 // jnp.maximum(high - low, 1), 0, 255)
    return jnp.where(high > low, stretched, levels).astype(jnp.float32)


def equalize_table(counts: jax.Array) -> jax.Array:
    """Pillow's `ImageOps.equalize` for counts [3, 256]."""
    levels = _levels().astype(jnp.int32)
    last = jnp.max(jnp.where(counts > 0, levels, 0), axis=1, keepdims=True)
    cumulative = jnp.cumsum(counts, axis=1)
    without_last = cumulative[:, -1:] - jnp.take_along_axis(counts, last, axis=1)
    step = without_last // 255
    spread = (step // 2 + cumulative - counts) // jnp.maximum(step, 1)
    return jnp.where(step > 0, jnp.minimum(spread, 255), levels).astype(jnp.float32)


def sharpness(key: jax.Array, image: jax.Array) -> jax.Array:
    """Pillow's `ImageEnhance.Sharpness` with a factor from U(0, 2)."""
    return adjust_sharpness(image, jax.random.uniform(key, (), maxval=2.0))


def adjust_sharpness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends [3, H, W] with its 3 x 3 smoothing, which leaves the border as it is."""
    rows = image[:, :-2] + image[:, 1:-1] + image[:, 2:]
    box = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    smooth = jnp.floor((box + 4.0 * image[:, 1:-1, 1:-1]) / 13.0 + 0.5)
    inner = color.blend(smooth, image[:, 1:-1, 1:-1], factor)
    return image.at[:, 1:-1, 1:-1].set(inner)


def brightness(key: jax.Array, image: jax.Array) -> jax.Array:
    """Multiplies the brightness by U(0.8, 1.2) and adds -30..30, in random order.

    imgaug draws one of six colour spaces. Four of them (YCrCb, YUV, Lab, Luv) move the
    lightness and keep the colour differences, here: the change of luma is added to all
    channels. Two (HSV, HLS) keep hue and saturation, here: all channels are scaled by the
    change of their maximum.
    """
    factor_key, add_key, choice_key = jax.random.split(key, 3)
    factor = jax.random.uniform(factor_key, (), minval=0.8, maxval=1.2)
    add = jax.random.randint(add_key, (), -30, 31).astype(jnp.float32)
    first, space = jax.random.uniform(choice_key, (2,))

    def change(light: jax.Array) -> jax.Array:
        changed = jnp.where(first < 0.5, light * factor + add, (light + add) * factor)
        return jnp.clip(changed, 0.0, 255.0)

    luma, value = color.grayscale(image)[None], jnp.max(image, axis=0, keepdims=True)
    shifted = image + change(luma) - luma
    scaled = jnp.where(value > 0, image / jnp.maximum(value, 1.0), 1.0) * change(value)
    return jnp.clip(jnp.round(jnp.where(space < LUMA_SHARE, shifted, scaled)), 0.0, 255.0)


def hue_saturation(key: jax.Array, image: jax.Array) -> jax.Array:
    """Adds -50..50 to the hue and, drawn independently, to the saturation, in units of 1/255."""
    hue, saturation = jax.random.randint(key, (2,), -50, 51).astype(jnp.float32)
    return color.shift_hsv(image, hue, saturation)


def flip(key: jax.Array, image: jax.Array) -> jax.Array:
    """Mirrors left and right with probability one half."""
    return jnp.where(jax.random.bernoulli(key), image[:, :, ::-1], image)


def _levels() -> jax.Array:
    """0..255, float32 [1, 256] broadcast to the three channels."""
    return jnp.broadcast_to(jnp.arange(256.0)[None], (3, 256))


TABLES = (gamma, solarize, posterize, invert, autocontrast, equalize)
FILTERS = (sharpness, brightness, hue_saturation, flip)
