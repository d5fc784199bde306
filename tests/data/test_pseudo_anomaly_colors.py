"""Colour and texture operations of the pseudo-anomalies against Pillow."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from promptmad_jax.data.pseudo_anomaly import color, texture_ops, texture_source


def planar(image: np.ndarray) -> jax.Array:
    return jnp.asarray(np.moveaxis(image, -1, 0), jnp.float32)


def packed(planes: jax.Array) -> np.ndarray:
    values = np.moveaxis(np.asarray(planes), 0, -1)
    assert np.array_equal(values, np.round(values))
    assert values.min() >= 0 and values.max() <= 255
    return values.astype(np.int32)


def keys(seed: int, count: int) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


def smooth_image(seed: int, height: int, width: int) -> np.ndarray:
    """Random colours with uneven histograms, so that tone operations have something to do."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8))
    values = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.float64)
    noisy = 0.6 * values + 30 + rng.normal(0, 8, values.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


# --- colour -----------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.6, 0.83, 1.0, 1.27, 1.4])
@pytest.mark.parametrize("seed", [0, 1])
def test_enhancements_are_those_of_pillow(factor, seed):
    image = np.random.default_rng(seed).integers(0, 256, (31, 37, 3), dtype=np.uint8)
    source, everywhere = Image.fromarray(image), jnp.ones((31, 37), bool)
    cases = (
        (color.adjust_brightness(planar(image), factor), ImageEnhance.Brightness),
        (color.adjust_contrast(planar(image), everywhere, factor), ImageEnhance.Contrast),
        (color.adjust_saturation(planar(image), factor), ImageEnhance.Color),
        (texture_ops.adjust_sharpness(planar(image), factor), ImageEnhance.Sharpness),
    )
    for ours, enhance in cases:
        expected = np.asarray(enhance(source).enhance(factor)).astype(int)
        assert np.abs(packed(ours) - expected).max() <= 1
        assert (packed(ours) == expected).mean() > 0.99


def test_contrast_is_relative_to_the_patch_alone():
    image = np.full((8, 8, 3), 255, np.uint8)
    image[:4, :4] = smooth_image(0, 4, 4)
    inside = jnp.zeros((8, 8), bool).at[:4, :4].set(True)
    ours = packed(color.adjust_contrast(planar(image), inside, 0.6))[:4, :4]
    expected = np.asarray(ImageEnhance.Contrast(Image.fromarray(image[:4, :4])).enhance(0.6))
    assert np.abs(ours - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("factor", [-0.1, -0.031, 0.0, 0.07, 0.1])
def test_hue_is_that_of_pillow(factor):
    image = np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    image[:4] = image[:4, :, :1]
    hue, saturation, value = np.moveaxis(np.asarray(Image.fromarray(image).convert("HSV")), -1, 0)
    turned = (hue.astype(int) + int(factor * 255)) % 256
    hsv = np.stack([turned.astype(np.uint8), saturation, value], -1)
    expected = np.asarray(Image.fromarray(hsv, "HSV").convert("RGB")).astype(int)
    ours = packed(color.adjust_hue(planar(image), jnp.float32(factor)))
    # Where a hue is a whole number, Pillow's float division may fall below it, ours does not;
    # one level of hue moves a channel by up to six levels.
    difference = np.abs(ours - expected).max(-1)
    assert (difference <= 1).mean() > 0.995
    assert difference.max() <= 6


def test_jitter_applies_all_four_changes_in_random_order():
    image = planar(smooth_image(1, 16, 16))
    everywhere = jnp.ones((16, 16), bool)
    jitter = jax.jit(jax.vmap(lambda key: color.color_jitter(key, image, everywhere)))
    results = np.asarray(jitter(keys(0, 200)))
    assert np.array_equal(results, np.round(results))
    assert results.min() >= 0 and results.max() <= 255
    assert len({result.tobytes() for result in results}) == 200
    ratio = results.mean((1, 2, 3)) / float(image.mean())
    assert 0.55 < ratio.min() < 0.7 and 1.25 < ratio.max() < 1.45


# --- textures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_tone_tables_are_those_of_pillow(seed):
    image = smooth_image(seed, 40, 44)
    source, planes = Image.fromarray(image), planar(image)
    counts = texture_ops.histogram(planes)
    tables = [(texture_ops.equalize_table(counts), ImageOps.equalize(source))]
    for cutoff in (0, 7, 20):
        table = texture_ops.autocontrast_table(counts, cutoff)
        tables.append((table, ImageOps.autocontrast(source, cutoff=cutoff)))
    tables.append((texture_ops.invert(None, planes), ImageOps.invert(source)))
    for table, expected in tables:
        ours = packed(texture_ops.look_up(table, planes))
        assert np.abs(ours - np.asarray(expected).astype(int)).max() <= 1
        assert (ours == np.asarray(expected)).mean() > 0.9


def test_drawn_tables_are_pillows_for_some_parameter():
    image = smooth_image(5, 40, 44)
    source, planes = Image.fromarray(image), planar(image)
    posterized = {ImageOps.posterize(source, bits).tobytes() for bits in range(1, 9)}
    solarized = {ImageOps.solarize(source, level).tobytes() for level in range(32, 129)}
    solarized.add(source.tobytes())
    for operation, allowed in (
        (texture_ops.posterize, posterized),
        (texture_ops.solarize, solarized),
    ):
        seen = set()
        for key in keys(0, 40):
            ours = packed(texture_ops.look_up(operation(key, planes), planes))
            seen.add(ours.astype(np.uint8).tobytes())
        assert seen <= allowed
        assert len(seen) >= 6


def test_a_channel_of_one_level_keeps_it():
    counts = texture_ops.histogram(jnp.full((3, 8, 8), 77.0))
    np.testing.assert_array_equal(counts, 64 * (np.arange(256) == 77)[None].repeat(3, 0))
    for table in (texture_ops.equalize_table(counts), texture_ops.autocontrast_table(counts, 5)):
        np.testing.assert_array_equal(table[:, 77], 77.0)


def test_gamma_is_a_power_law_of_each_channel():
    table = np.asarray(texture_ops.gamma(jax.random.key(2), None))
    assert (table[:, 0] == 0).all() and (table[:, 255] == 255).all()
    assert (np.diff(table) >= 0).all()
    exponents = np.log((table[:, 128] + 0.5) / 255) / math.log(128 / 255)
    assert ((exponents > 0.49) & (exponents < 2.01)).all()
    assert len(set(np.round(exponents, 2))) == 3


def test_brightness_keeps_the_order_and_stays_in_range():
    planes = planar(smooth_image(6, 20, 20))
    change = jax.jit(jax.vmap(lambda key: texture_ops.brightness(key, planes).mean()))
    ratio = np.asarray(change(keys(0, 400))) - float(planes.mean())
    assert 30 < ratio.max() < 90 and -90 < ratio.min() < -30
    assert abs(np.median(ratio)) < 6


def test_three_different_operations_are_drawn_uniformly():
    drawn = np.asarray(jax.vmap(texture_ops.draw_operations)(keys(0, 5000)))
    assert drawn.shape == (5000, 3)
    assert (np.diff(np.sort(drawn, 1), axis=1) > 0).all()
    for place in drawn.T:
        np.testing.assert_allclose(np.bincount(place, minlength=10) / 5000, 0.1, atol=0.02)


def test_index_selects_the_operation():
    planes = planar(smooth_image(7, 12, 12))
    apply = jax.jit(texture_ops.apply_operation)
    operations = texture_ops.TABLES + texture_ops.FILTERS
    assert len(operations) == 10
    for index, operation in enumerate(operations):
        key = jax.random.key(index)
        expected = jax.jit(operation)(key, planes)
        if operation in texture_ops.TABLES:
            expected = texture_ops.look_up(expected, planes)
        assert np.abs(packed(apply(index, key, planes)) - packed(expected)).max() <= 1


def test_noise_textures_are_coloured_and_varied():
    draw = jax.jit(jax.vmap(lambda key: texture_source.noise_texture(key, 40)))
    textures = draw(keys(0, 20))
    values = np.stack([packed(texture) for texture in textures])
    assert values.std((1, 2)).mean() > 15
    assert np.abs(values[..., 0] - values[..., 1]).mean() > 15
    assert values.mean((1, 2)).std(0).min() > 25
