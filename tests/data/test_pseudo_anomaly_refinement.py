"""Pseudo-anomalies moved onto the object, shrunk and faded."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from promptmad_jax.data.pseudo_anomaly.config import PseudoAnomalyConfig
from promptmad_jax.data.pseudo_anomaly.foreground import foreground
from promptmad_jax.data.pseudo_anomaly.refinement import move_to_foreground, refine, shrink
from tests.data.test_pseudo_anomaly import keys

SIZE, COUNT = 60, 64
ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE]
DISC = np.hypot(ROWS - 25, COLUMNS - 35) < 15


def picture(disc, seed=0):
    """A dark disc, or none, on bright ground, with noise: float32 [3, S, S]."""
    noise = np.random.default_rng(seed).integers(-15, 16, (3, SIZE, SIZE))
    return jnp.asarray(np.where(disc, 60, 190) + noise, jnp.float32)


@pytest.fixture(scope="module")
def pasted():
    """Images with a disc, the same with white where the masks are set, and the masks: rectangles
    on and off the disc, the last one empty."""
    corners = np.random.default_rng(0).integers(0, SIZE - 9, (COUNT, 2, 1, 1))
    masks = (abs(ROWS - corners[:, 0] - 4) < 4) & (abs(COLUMNS - corners[:, 1] - 4) < 5)
    masks[-1] = False
    images = jnp.stack([picture(DISC, seed) for seed in range(COUNT)])
    return images, jnp.where(masks[:, None], 255.0, images), jnp.asarray(masks)


def test_foreground_is_the_disc_and_textures_have_none():
    find = jax.jit(foreground)
    found = np.asarray(find(picture(DISC)))
    grown = np.hypot(ROWS - 25, COLUMNS - 35) < 18
    assert not found[~grown].any() and found[DISC].mean() > 0.97
    noise = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE))
    waves = picture(False) + 40.0 * np.sin(COLUMNS / 3.0)[None]
    for texture in (noise, waves, np.zeros((3, SIZE, SIZE))):
        assert not find(jnp.asarray(texture, jnp.float32)).any()


def test_moved_pseudo_anomalies_are_on_the_foreground(pasted):
    images, _, masks = map(np.asarray, pasted)
    place = np.asarray(jax.jit(jax.vmap(foreground))(images))
    move = jax.jit(jax.vmap(move_to_foreground))
    moved, kept = map(np.asarray, move(keys(0, COUNT), *pasted))
    assert not (kept & ~place).any()
    np.testing.assert_array_equal(kept.any((1, 2)), masks.any((1, 2)))
    np.testing.assert_array_equal(moved, np.where(kept[:, None], 255.0, images))
    enough = (masks & place).sum((1, 2)) >= 0.25 * masks.sum((1, 2))
    assert 0.1 < enough.mean() < 0.9
    np.testing.assert_array_equal(kept[enough], (masks & place)[enough])
    textures = jnp.stack([picture(False)] * COUNT)
    same, mask = move(keys(0, COUNT), textures, pasted[1], pasted[2])
    np.testing.assert_array_equal(same, pasted[1])
    np.testing.assert_array_equal(mask, masks)


def test_shrunk_masks_are_small_ellipses_inside_the_old_ones():
    whole = jnp.ones((SIZE, SIZE), bool).at[:, SIZE // 2 :].set(False)
    cut = jax.jit(jax.vmap(functools.partial(shrink, radius=(0.03, 0.2)), in_axes=(0, None)))
    small = np.asarray(cut(keys(0, 500), whole))
    assert not (small & ~np.asarray(whole)).any() and small.any((1, 2)).all()
    for axis in (1, 2):
        assert small.any(axis).sum(1).max() <= 2 * 0.2 * SIZE + 1
    inner = small[~small[:, :, [0, SIZE // 2 - 1]].any((1, 2)) & ~small[:, [0, -1]].any((1, 2))]
    # The mean of pi * a * b with independent log-uniform radii, less what touches a border.
    mean = np.pi * (SIZE * (0.2 - 0.03) / np.log(0.2 / 0.03)) ** 2
    assert 0.6 * mean < inner.sum((1, 2)).mean() < mean
    middle = np.argwhere(small)[:, 1:].mean(0)
    np.testing.assert_allclose(middle, [SIZE / 2, SIZE / 4], atol=1.5)
    assert not cut(keys(1, 5), jnp.zeros_like(whole)).any()


def test_refinement_is_drawn_per_image_and_map_and_vmap_agree(pasted):
    images, pseudo, masks = pasted
    config = PseudoAnomalyConfig(foreground=0.5, shrink=0.5, contrast=(0.2, 0.8))
    one = functools.partial(refine, config=config)
    drawn = (keys(2, COUNT), *pasted)
    faded, kept = map(np.asarray, jax.jit(jax.vmap(one))(*drawn))
    again, kept_again = jax.jit(lambda *xs: jax.lax.map(lambda x: one(*x), xs))(*drawn)
    np.testing.assert_array_equal(kept, kept_again)
    np.testing.assert_allclose(faded, again, atol=1.0)
    np.testing.assert_array_equal(faded, np.round(faded))
    assert not ((faded != images).any(1) & ~kept).any()
    smaller = kept.sum((1, 2)) < 0.9 * np.asarray(masks).sum((1, 2))
    assert 0.4 < smaller.mean() < 0.9
    untouched = (kept == np.asarray(masks)).all((1, 2))
    share = [
        np.median((faded - images)[i][:, kept[i]] / (pseudo - images)[i][:, kept[i]])
        for i in np.flatnonzero(untouched[:-1])
    ]
    assert len(share) > 8 and 0.15 < min(share) < 0.4 and 0.6 < max(share) < 0.85
