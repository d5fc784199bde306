"""Thresholds and the false-alarm rates that they stand for."""

import numpy as np
import pytest
from scipy import stats

from promptmad_jax.evaluation.novelty import ClassGallery, nearest_class
from promptmad_jax.evaluation.thresholds import Rates, normal_scores, set_thresholds, unsupported

RATES = Rates(0.05, 0.01, 0.01)


def scores(count, comparable=True):
    maps = np.random.default_rng(0).normal(size=(count, 16, 16)).astype(np.float32)
    return maps, normal_scores(maps, 1, np.arange(count) + 1.0, "held-out", comparable)


def test_the_stated_share_lies_above_each_threshold():
    maps, found = scores(99)
    thresholds = set_thresholds(found, RATES)
    assert sum(score > thresholds.image for score in found.image) == 4 and thresholds.rate == 0.05
    assert 0.007 < (maps > thresholds.pixel).mean() <= 0.01
    assert (maps.max((1, 2)) > thresholds.region).sum() == 4 and thresholds.images == 99
    assert thresholds.novelty == 1.25 * 99
    odd = found._replace(novelty=(*found.novelty[:-1], 1000.0))
    assert set_thresholds(odd, RATES).novelty == 2.5 * 50


def test_what_few_images_support():
    _, found = scores(18)
    thresholds = set_thresholds(found, RATES)
    assert thresholds.image == max(found.image) and thresholds.rate == 1 / 19
    assert unsupported(18, 0.05) == "5 % asked, but 18 normal images support no less than 5.3 %"
    assert unsupported(19, 0.05) == "" and set_thresholds(scores(19)[1], RATES).rate == 0.05
    every = set_thresholds(found, Rates(1.0, 0.5, 1.0))
    assert every.image == min(found.image)


@pytest.mark.parametrize("count", [18, 60])
def test_the_interval_holds_the_rate_of_new_images(count):
    """With normal scores the rate beyond a threshold is known: 95 % of intervals hold it."""
    held = []
    for seed in range(400):
        maps = np.random.default_rng(seed).normal(size=(count, 1, 1)).astype(np.float32)
        thresholds = set_thresholds(normal_scores(maps, 1, (), "held-out", True), RATES)
        low, high = thresholds.interval
        held.append(low <= stats.norm.sf(thresholds.image) <= high)
    assert 0.92 < np.mean(held) < 0.98


def test_no_rate_is_stated_for_images_that_are_not_comparable():
    thresholds = set_thresholds(scores(30, comparable=False)[1], RATES)
    assert thresholds.rate is None and thresholds.interval is None


def test_novelty_tells_pictures_of_another_kind():
    rng = np.random.default_rng(0)
    own = rng.normal(size=(40, 12)).astype(np.float32)
    own[:, -6:] = 0.5 + 0.01 * own[:, -6:]
    gallery = ClassGallery(own)
    inside, beside = gallery.leave_one_out(), gallery.novelty(own)
    assert inside.min() > 0.1 and beside.max() < 1e-3
    alone = ClassGallery(own[1:]).novelty(own[:1])
    np.testing.assert_allclose(alone, inside[0], rtol=0.2)  # the scale has one image less
    other = own[0].copy()
    other[:6] += 20
    assert gallery.novelty(other[None])[0] > 3 * inside.max()
    assert gallery.reason(other) == "unlike all normal images as a whole"
    for level, words in ((0.1, "darker"), (0.9, "brighter")):
        other[-6:-3] = level
        assert gallery.reason(other).startswith(words)


def test_the_nearest_class_has_the_nearest_image():
    """A class of wide spread does not take the images of a narrow one."""
    rng = np.random.default_rng(0)
    wide = rng.normal(0, 5, (30, 8)).astype(np.float32)
    narrow = rng.normal(6, 0.1, (30, 8)).astype(np.float32)
    galleries = [ClassGallery(wide), ClassGallery(narrow)]
    images = np.concatenate([narrow[:3] + 0.5, wide[:3] + 0.5])
    assert nearest_class(images, galleries).tolist() == [1, 1, 1, 0, 0, 0]
