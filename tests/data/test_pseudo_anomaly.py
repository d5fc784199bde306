"""Pseudo-anomalies against a plain NumPy reference of their geometry and distributions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from promptmad_jax.data.pseudo_anomaly import cutpaste, perlin, texture_ops
from promptmad_jax.data.pseudo_anomaly.config import PseudoAnomalyConfig
from promptmad_jax.data.pseudo_anomaly.synthesis import draw_kind, synthesize

SIZE = 60  # not divisible by the 8, 16 and 32 cells of the Perlin noise
BATCH = 12
RECORDED_AREAS = (86, 270, 160, 10, 5, 190, 145, 85, 23, 125, 234, 319)


def planar(image: np.ndarray) -> jax.Array:
    return jnp.asarray(np.moveaxis(image, -1, 0), jnp.float32)


def packed(planes: jax.Array) -> np.ndarray:
    values = np.moveaxis(np.asarray(planes), 0, -1)
    assert np.array_equal(values, np.round(values))
    assert values.min() >= 0 and values.max() <= 255
    return values.astype(np.int32)


def keys(seed: int, count: int) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8)
    return images, images[::-1].copy()


@pytest.fixture(scope="module")
def mapped():
    config = PseudoAnomalyConfig(batching="map")
    return jax.jit(lambda k, x, t: synthesize(k, x, t, config))


# --- the whole --------------------------------------------------------------------------------


def test_outside_the_mask_nothing_changes_and_inside_most_does(mapped, batch):
    images, textures = batch
    for seed in range(3):
        pseudo, masks = map(np.asarray, mapped(keys(seed, BATCH), images, textures))
        assert pseudo.shape == images.shape and pseudo.dtype == np.float32
        assert masks.shape == images.shape[:3] and masks.dtype == np.float32
        assert np.array_equal(pseudo, np.round(pseudo))
        assert pseudo.min() >= 0 and pseudo.max() <= 255
        assert set(np.unique(masks)) == {0.0, 1.0}
        changed = (pseudo != images).any(-1)
        assert not changed[masks == 0].any()
        assert changed[masks == 1].mean() > 0.9


def test_recorded_masks(mapped, batch):
    _, masks = mapped(keys(0, BATCH), *batch)
    np.testing.assert_array_equal(masks.sum((1, 2)), RECORDED_AREAS)


def test_contrast_scales_the_difference_and_leaves_the_draws_alone(mapped, batch):
    config = PseudoAnomalyConfig(contrast=(0.3, 0.3), foreground=1.0, batching="map")
    faded, masks = jax.jit(lambda k, x, t: synthesize(k, x, t, config))(keys(0, BATCH), *batch)
    pseudo, same = mapped(keys(0, BATCH), *batch)
    np.testing.assert_array_equal(masks, same)  # Noise has no foreground.
    expected = batch[0] + 0.3 * (np.asarray(pseudo) - batch[0])
    np.testing.assert_allclose(faded, expected, atol=0.5001)


def test_result_of_an_image_does_not_depend_on_the_batch_around_it(mapped, batch):
    images, textures = batch
    first = keys(0, BATCH)
    pseudo, masks = map(np.asarray, mapped(first, images, textures))
    order = np.random.default_rng(1).permutation(BATCH)
    again, again_masks = map(np.asarray, mapped(first[order], images[order], textures[order]))
    np.testing.assert_array_equal(again, pseudo[order])
    np.testing.assert_array_equal(again_masks, masks[order])
    half = BATCH // 2
    others = jnp.concatenate([first[:half], keys(9, half)])
    mixed, _ = mapped(others, np.concatenate([images[:half], images[:half]]), textures)
    np.testing.assert_array_equal(mixed[:half], pseudo[:half])
    assert (np.asarray(mixed[half:]) != pseudo[half:]).any()


def test_repeated_calls_compile_once(mapped, batch):
    for seed in range(3):
        mapped(keys(seed, BATCH), *batch)
    assert mapped._cache_size() == 1


def test_map_and_vmap_agree(mapped, batch):
    config = PseudoAnomalyConfig(batching="vmap")
    vectorised = jax.jit(lambda k, x, t: synthesize(k, x, t, config))
    for seed in range(3):
        one, one_masks = map(np.asarray, mapped(keys(seed, BATCH), *batch))
        all_, all_masks = map(np.asarray, vectorised(keys(seed, BATCH), *batch))
        np.testing.assert_array_equal(one_masks, all_masks)
        # Levels are truncated: a rounding error can move a value by one level.
        np.testing.assert_allclose(one, all_, atol=1.0)
        assert (one != all_).mean() < 1e-3


def test_kinds_have_the_configured_shares():
    config = PseudoAnomalyConfig(perlin=0.6, patch=0.3, scar=0.1)
    draw = jax.vmap(lambda key: draw_kind(key, config))
    kinds = np.asarray(draw(keys(0, 8000)))
    shares = np.bincount(kinds, minlength=3) / kinds.size
    np.testing.assert_allclose(shares, [0.6, 0.3, 0.1], atol=0.02)


def test_unequal_batches_are_refused(batch):
    images, textures = batch
    with pytest.raises(ValueError, match="one batch"):
        synthesize(keys(0, BATCH), images, textures[1:], PseudoAnomalyConfig())
    with pytest.raises(ValueError, match="S, S, 3"):
        synthesize(keys(0, BATCH), images[:, 1:], textures[:, 1:], PseudoAnomalyConfig())


# --- CutPaste ---------------------------------------------------------------------------------


def reference_patches(count: int, size: int) -> np.ndarray:
    """height, width, top, left of patches by the written rules."""
    rng = np.random.default_rng(0)
    area = rng.uniform(0.02, 0.15, count) * size**2
    flat = rng.random(count) < 0.5
    aspect = np.where(flat, rng.uniform(1, 3.3, count), rng.uniform(0.3, 1, count))
    width, height = np.sqrt(area * aspect).astype(int), np.sqrt(area / aspect).astype(int)
    top, left = rng.integers(0, size - height + 1), rng.integers(0, size - width + 1)
    return np.stack([height, width, top, left], 1)


def test_patch_sizes_and_places_follow_the_reference():
    cut = jax.jit(jax.vmap(lambda key: cutpaste.draw_patch(key, 224)))(keys(0, 30000))
    reference = reference_patches(30000, 224)
    quantiles = np.linspace(0.02, 0.98, 25)
    for place in (cut.source, cut.target):
        ours = np.column_stack([cut.height, cut.width, place])
        difference = np.quantile(ours, quantiles, 0) - np.quantile(reference, quantiles, 0)
        assert np.abs(difference).max() < 4
        assert (ours[:, 2:] >= 0).all() and (ours[:, 2:] + ours[:, :2] <= 224).all()
    share = np.asarray(cut.height * cut.width) / 224**2
    assert share.mean() == pytest.approx(0.084, abs=0.001)
    assert share.min() > 0.015 and share.max() <= 0.15
    assert np.corrcoef(cut.source[:, 0], cut.target[:, 0])[0, 1] < 0.3


@pytest.mark.parametrize("size", [224, 320])
def test_scar_sizes_scale_with_the_image(size):
    cut = jax.jit(jax.vmap(lambda key: cutpaste.draw_scar(key, size)))(keys(0, 4000))
    scale = size / 224
    for drawn, low, high in ((cut.width, 2, 16), (cut.height, 10, 25)):
        levels, counts = np.unique(np.asarray(drawn), return_counts=True)
        expected = np.floor(np.arange(low, high + 1) * scale + 0.5)
        np.testing.assert_array_equal(levels, expected)
        assert counts.max() / counts.min() < 1.6


@pytest.mark.parametrize("size", [224, 320])
def test_mean_share_of_a_scar(size):
    image = jnp.zeros((3, size, size))
    share = jax.jit(lambda ks: jax.lax.map(lambda key: cutpaste.scar(key, image)[1].mean(), ks))(
        keys(0, 500)
    )
    assert float(share.mean()) == pytest.approx(0.0031, abs=0.0002)


def test_patch_shows_another_place_of_the_image():
    size = 48
    rows, columns = np.mgrid[:size, :size]
    image = planar(np.stack([rows, columns, rows * 0], -1))
    cut = cutpaste.Cut(*map(jnp.asarray, (10, 20, np.array([30, 28]), np.array([3, 5]))))
    window, inside = cutpaste._cut_out(image, cut, 34, 34)
    pasted, mask = cutpaste._paste(image, window, inside, cut.target)
    assert int(mask.sum()) == 200 and bool(mask[3:13, 5:25].all())
    np.testing.assert_array_equal(pasted[:, 3:13, 5:25], image[:, 30:40, 28:48])
    np.testing.assert_array_equal(jnp.where(mask[None], image, pasted), image)


@pytest.mark.parametrize("degrees", [-45.0, -20.3, 0.7, 13.0, 44.9])
@pytest.mark.parametrize("height,width", [(25, 16), (10, 2), (17, 9)])
def test_rotation_is_that_of_pillow(height, width, degrees):
    window = np.random.default_rng(0).integers(0, 256, (25, 25, 3), dtype=np.uint8)
    source = Image.fromarray(window[:height, :width]).convert("RGBA")
    expected = np.asarray(source.rotate(degrees, Image.Resampling.NEAREST, expand=True))
    rotated, alpha = cutpaste.rotate_expanded(planar(window), height, width, degrees)
    rows, columns = expected.shape[:2]
    alpha = np.asarray(alpha)
    assert not alpha[rows:].any() and not alpha[:, columns:].any()
    alpha = alpha[:rows, :columns]
    assert (alpha != (expected[..., 3] > 0)).mean() < 0.01
    both = alpha & (expected[..., 3] > 0)
    equal = packed(rotated)[:rows, :columns][both] == expected[both][:, :3]
    assert equal.all(-1).mean() > 0.97


# --- Perlin -----------------------------------------------------------------------------------


def reference_noise(angles: np.ndarray, rows: int, columns: int, size: int) -> np.ndarray:
    """The textbook form: four corner gradients a pixel, blended by the fade curve."""
    y, x = np.mgrid[:size, :size] * np.reshape([rows, columns], (2, 1, 1)) / size
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    fy, fx = y - top, x - left

    def corner(dy: int, dx: int) -> np.ndarray:
        angle = angles[top + dy, left + dx]
        return np.cos(angle) * (fy - dy) + np.sin(angle) * (fx - dx)

    ty, tx = (6 * f**5 - 15 * f**4 + 10 * f**3 for f in (fy, fx))
    above = corner(0, 0) * (1 - tx) + corner(0, 1) * tx
    below = corner(1, 0) * (1 - tx) + corner(1, 1) * tx
    return math.sqrt(2) * (above * (1 - ty) + below * ty)


def reference_rotation(noise: np.ndarray, degrees: float) -> np.ndarray:
    """Bilinear about the centre, zero outside."""
    size = len(noise)
    padded = np.pad(noise, 20)
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    row, column = c * y - s * x + (size - 1) / 2 + 20, s * y + c * x + (size - 1) / 2 + 20
    top, left = np.floor(row).astype(int), np.floor(column).astype(int)
    fy, fx = row - top, column - left
    above = padded[top, left] * (1 - fx) + padded[top, left + 1] * fx
    below = padded[top + 1, left] * (1 - fx) + padded[top + 1, left + 1] * fx
    return above * (1 - fy) + below * fy


@pytest.mark.parametrize("size", [64, 75])
@pytest.mark.parametrize("rows,columns", [(2, 32), (8, 4)])
def test_perlin_noise_and_rotation_are_the_textbook_ones(size, rows, columns):
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, (33, 33))
    gradients = perlin.Gradients(jnp.asarray(angles, jnp.float32), rows, columns)
    noise = perlin.gradient_noise(gradients, size)
    expected = reference_noise(angles, rows, columns, size)
    np.testing.assert_allclose(noise, expected, atol=2e-5)
    for degrees in (-5.0, 3.3):
        turned = perlin.rotate_noise(noise, jnp.float32(degrees))
        np.testing.assert_allclose(turned, reference_rotation(expected, degrees), atol=1e-4)


def test_masks_of_accelerators_are_those_of_cpus_but_for_their_borders():
    for seed, degrees in enumerate((-5.0, -1.3, 0.0, 3.8)):
        gradients = perlin.draw_gradients(jax.random.key(seed), perlin.MASK_EXPONENTS)
        noise = perlin.gradient_noise(gradients, 224)
        rotations = perlin.rotate_noise, perlin.rotate_by_shears
        masks = [
            rotate(noise, jnp.float32(degrees)) > perlin.MASK_THRESHOLD for rotate in rotations
        ]
        assert np.mean(masks[0] != masks[1]) < 0.1 * np.mean(masks[0])
    np.testing.assert_allclose(perlin.rotate_by_shears(noise, jnp.float32(0)), noise, atol=1e-6)


def test_products_of_one_hots_gather_exactly():
    rng = np.random.default_rng(0)
    table, levels = rng.integers(0, 256, (3, 256)), rng.integers(0, 256, (3, 40))
    table, levels = jnp.asarray(table, jnp.float32), jnp.asarray(levels, jnp.int32)
    expected = texture_ops._by_gather(table, levels)
    np.testing.assert_array_equal(texture_ops._by_product(table, levels), expected)
    window = jnp.asarray(rng.integers(0, 256, (3, 9, 9)), jnp.float32)
    row, column = (jnp.asarray(rng.integers(0, 13, (20, 20))) for _ in range(2))
    expected = cutpaste._pixels_by_gather(window, row, column)
    np.testing.assert_array_equal(cutpaste._pixels_by_product(window, row, column), expected)


def test_coverage_of_perlin_masks():
    draw = jax.jit(lambda ks: jax.lax.map(lambda key: perlin.perlin_mask(key, 224).mean(), ks))
    ours = 100 * np.asarray(draw(keys(0, 1200)))
    assert ours.mean() == pytest.approx(5.3, abs=0.15)
    np.testing.assert_allclose(np.quantile(ours, [0.05, 0.95]), [2.7, 7.8], atol=0.4)
    assert (ours == 0).mean() < 0.02


def test_texture_is_blended_and_truncated():
    image, texture = jnp.full((3, 64, 64), 100.0), jnp.full((3, 64, 64), 200.0)
    paste = jax.jit(jax.vmap(lambda key: perlin.paste_texture(key, image, texture)))
    results, masks = map(np.asarray, paste(keys(0, 60)))
    levels = [result[:, mask] for result, mask in zip(results, masks, strict=True) if mask.any()]
    assert all(np.ptp(level) == 0 for level in levels)
    values = np.array([level.flat[0] for level in levels])
    assert values.min() >= 120 and values.max() <= 200
    assert values.mean() == pytest.approx(160, abs=8)
