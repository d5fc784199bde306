"""The exact engine against hand-computed values, scikit-learn and brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from promptmad_jax.evaluation.metrics import exact, metrics
from promptmad_jax.evaluation.metrics.ground_truth import GroundTruth
from promptmad_jax.evaluation.metrics.regions import region_weights
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.processes import ALONE
from tests.evaluation.classes import brute_force_aupro, image_metrics, random_case


def test_hand_computed_image_figures():
    scores = np.array([0.9, 0.8, 0.8, 0.3, 0.1])
    labels = np.array([1, 0, 1, 1, 0])
    values, undefined = image_metrics(scores, labels)
    # Pairs won: 2 + 1.5 + 1 of 6. Precision 1, 2/3, 3/4 at recall 1/3, 2/3, 1.
    assert values["image_auroc"] == pytest.approx(4.5 / 6, abs=1e-15)
    assert values["image_ap"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3, abs=1e-15)
    assert values["image_f1max"] == pytest.approx(6 / 7, abs=1e-15)
    assert undefined == {}


def test_hand_computed_aupro():
    masks = np.zeros((1, 2, 6), bool)
    masks[0, :, 0] = True  # a region of two pixels
    masks[0, 0, 5] = True  # a region of one pixel
    maps = np.array([[[9, 1, 1, 1, 6, 4], [2, 7, 1, 1, 1, 1]]], np.float32)
    # Overlap 1/4 at rate 0, 3/4 from rate 2/9 (below 7 and 6), 1 below 4 and 2.
    values, _ = metrics.pixel_metrics(maps, masks, limit=0.3)
    expected = (1 / 4 * 2 / 9 + 1 * (0.3 - 2 / 9)) / 0.3
    assert values["pixel_aupro"] == pytest.approx(expected, abs=1e-15)


def test_aupro_interpolates_at_the_limit():
    masks = np.zeros((1, 1, 4), bool)
    masks[0, 0, 0] = True
    values, _ = metrics.pixel_metrics(np.full((1, 1, 4), 0.5, np.float32), masks, limit=0.3)
    assert values["pixel_aupro"] == pytest.approx(0.15, abs=1e-15)
    assert values["pixel_auroc"] == 0.5
    assert values["pixel_ap"] == 0.25
    assert values["pixel_f1max"] == pytest.approx(0.4, abs=1e-15)


def test_perfect_and_inverted_maps():
    _, masks = random_case(0, 4)
    perfect, _ = metrics.pixel_metrics(masks.astype(np.float32), masks)
    assert set(perfect.values()) == {1.0}
    inverted, _ = metrics.pixel_metrics(-masks.astype(np.float32), masks)
    assert inverted["pixel_auroc"] == 0.0
    assert inverted["pixel_aupro"] == 0.0


@pytest.mark.parametrize("levels", [1, 2, 5, 50, 10**6])
def test_equals_scikit_learn_with_ties(levels):
    maps, masks = random_case(levels, levels)
    values, _ = metrics.pixel_metrics(maps, masks)
    truth, scores = masks.ravel(), maps.ravel()
    precision, recall, _ = precision_recall_curve(truth, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert values["pixel_auroc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert values["pixel_ap"] == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
    assert values["pixel_f1max"] == pytest.approx(f1.max(), abs=1e-12)


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("levels", [1, 3, 20, 10**6])
def test_aupro_equals_brute_force(levels, limit):
    maps, masks = random_case(levels, levels)
    values, _ = metrics.pixel_metrics(maps, masks, limit=limit)
    assert values["pixel_aupro"] == pytest.approx(brute_force_aupro(maps, masks, limit), abs=1e-12)
    small = brute_force_aupro(maps, masks, 0.05)
    assert values["pixel_aupro_05"] == pytest.approx(small, abs=1e-12)


@pytest.mark.parametrize("levels", [1, 3, 30])
def test_image_figures_equal_scikit_learn_with_ties(levels):
    rng = np.random.default_rng(levels)
    labels = rng.random(80) > 0.6
    scores = np.floor((rng.random(80) + 0.3 * labels) * levels) / levels
    values, _ = image_metrics(scores, labels)
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    expected = roc_auc_score(labels, scores), average_precision_score(labels, scores), f1.max()
    assert tuple(values.values()) == pytest.approx(expected, abs=1e-12)


def test_equal_scores_rank_nothing():
    labels = np.array([1, 0, 0, 0])
    values, undefined = image_metrics(np.full(4, 0.25), labels)
    assert values == {"image_auroc": 0.5, "image_ap": 0.25, "image_f1max": 0.4}
    assert undefined == {}


# Small integers in float64, so that the transforms below are strictly increasing in the dtype too.
SCORES = hnp.arrays(np.int64, (3, 4, 4), elements=st.integers(-20, 20))
MASKS = hnp.arrays(np.bool_, (3, 4, 4))


@settings(max_examples=60)
@given(SCORES, MASKS)
def test_strictly_increasing_maps_change_nothing(maps, masks):
    plain = metrics.pixel_metrics(maps, masks)
    for transform in (np.exp, np.arctan, lambda x: 3.0 * x - 7):
        assert metrics.pixel_metrics(transform(maps.astype(np.float64)), masks) == plain


@settings(max_examples=60)
@given(SCORES, MASKS, st.permutations(range(3)))
def test_permuting_the_images_changes_nothing(maps, masks, order):
    order = list(order)
    plain, _ = metrics.pixel_metrics(maps, masks)
    permuted, _ = metrics.pixel_metrics(maps[order], masks[order])
    assert permuted == pytest.approx(plain, abs=1e-12)


@settings(max_examples=60)
@given(SCORES, MASKS)
def test_parts_give_the_same_as_the_whole(maps, masks):
    whole = metrics.pixel_metrics(maps.astype(np.float32), masks)
    parts = [
        GroundTruth(masks[i : i + 1], [i]).pixels(maps[i : i + 1].astype(np.float32))
        for i in range(3)
    ]
    assert exact.measure(exact.build_curve(parts), metrics.pixel_figures(0.3)) == whole


@pytest.mark.parametrize(("fill", "word"), [(True, "normal"), (False, "defective")])
def test_one_class_only_is_undefined(fill, word):
    maps = np.random.default_rng(0).random((2, 4, 4), np.float32)
    values, undefined = metrics.pixel_metrics(maps, np.full((2, 4, 4), fill))
    assert values == dict.fromkeys(metrics.PIXEL_METRICS)
    assert undefined == dict.fromkeys(metrics.PIXEL_METRICS, f"no {word} pixel")
    values, undefined = image_metrics(np.array([0.1, 0.2]), np.full(2, fill))
    assert values == dict.fromkeys(metrics.IMAGE_METRICS)
    assert undefined["image_auroc"] == f"no {word} image"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_names_the_image(bad):
    maps, masks = random_case(0, 4)
    maps[2, 1, 1] = bad
    names = ["a/0.png", "a/1.png", "a/2.png", "a/3.png"]
    with pytest.raises(UserError, match=r"a/2\.png: the score is NaN or infinite \(so in 1 of 4"):
        metrics.pixel_metrics(maps, masks, names)
    with pytest.raises(UserError, match="image 1: "):
        metrics.check_finite(np.array([0.0, bad]))


def test_counts_beyond_float32():
    negatives, one = np.zeros(2**24 + 8, np.float32), np.ones(1)
    sample = exact.Sample("pixel", negatives, one.astype(np.float32), one, len(negatives), ALONE)
    curve = exact.build_curve([sample])
    assert curve.negatives == 2**24 + 8
    assert exact.auroc(curve) == 1.0
    tied = exact.false_positives([sample], np.zeros(1, np.float32))
    assert tied.tolist() == [[0], [2**24 + 8]]


@pytest.mark.parametrize("pool", [1, 2, 3, 7, 8])
def test_image_score_is_the_largest_average(pool):
    maps = np.random.default_rng(pool).random((3, 9, 8))
    windows = np.lib.stride_tricks.sliding_window_view(maps, (pool, pool), axis=(1, 2))
    expected = windows.mean(axis=(3, 4)).max(axis=(1, 2))
    np.testing.assert_allclose(metrics.image_scores(maps, pool), expected, rtol=1e-14)


def test_saturated_regions_stay_tied():
    maps = np.full((2, 20, 20), 0.1, np.float32)
    maps[0, :16, :16] = maps[1, 3:19, 2:18] = 1.0
    assert metrics.image_scores(maps).tolist() == [1.0, 1.0]


def test_pool_beyond_the_map_is_refused():
    with pytest.raises(UserError, match="16 x 16 pixels, but the maps are 8 x 8"):
        metrics.image_scores(np.zeros((1, 8, 8)))


def test_regions_touch_at_corners_but_not_across_images():
    masks = np.zeros((2, 3, 4), bool)
    masks[0, 0, 0] = masks[0, 1, 1] = masks[0, 2, 3] = masks[1, 0, 0] = True
    weights, regions = region_weights(masks)
    assert weights.tolist() == [0.5, 0.5, 1.0, 1.0]
    assert regions == 3
