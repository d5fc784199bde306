"""The metrics' benchmark on a small test set: its figures are right, not only fast."""

import numpy as np
import pytest

from promptmad_jax.benchmarking import metrics
from promptmad_jax.benchmarking.synthetic_maps import MVTEC_AD, draw_classes

COUNTS = {"one": (3, 7), "two": (2, 4)}
SIZE = 64


def one_row(rows):
    (row,) = rows
    assert row["batch_size"] == 16 and row["classes"] == 2 and row["median_s"] > 0
    return row


def test_the_test_set_is_as_large_as_the_real_one():
    assert np.sum(list(MVTEC_AD.values()), axis=0).tolist() == [467, 1258]


def test_drawn_classes():
    drawn = next(draw_classes({"many": (40, 110)}, SIZE))
    assert drawn.maps.shape == drawn.masks.shape == (150, SIZE, SIZE)
    assert drawn.maps.dtype == np.float32
    np.testing.assert_array_equal(drawn.masks.any((1, 2)), drawn.labels)
    assert drawn.masks.mean() == pytest.approx(0.024, rel=0.1)
    assert drawn.maps[drawn.masks].mean() > drawn.maps[~drawn.masks].mean() + 1
    again = next(draw_classes({"many": (40, 110)}, SIZE))
    np.testing.assert_array_equal(again.maps, drawn.maps)


def test_engine_and_pooling():
    row = one_row(metrics.engine(COUNTS, SIZE, 2))
    assert row["samples"] == 2 and set(row["mean"]) == set(row["metrics"])
    assert all(0.3 < value <= 1 for value in row["mean"].values())
    pooled = one_row(metrics.evaluator(COUNTS, SIZE))
    assert set(pooled["pooled"]) == set(row["metrics"])


def test_equal_to_scikit_learn_and_to_brute_force():
    differences = one_row(metrics.scikit_learn(COUNTS, SIZE))["differences"]
    assert set(differences) == {"pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro"}
    assert max(differences.values()) < 1e-12


def test_brute_force_is_an_integral_of_its_own():
    """A perfect map: full overlap at once. A map of one value: the diagonal."""
    masks = np.zeros((2, 4, 4), bool)
    masks[0, :2, :2] = True
    assert metrics.brute_force_aupro(masks.astype(np.float32), masks) == 1
    constant = metrics.brute_force_aupro(np.zeros((2, 4, 4), np.float32), masks)
    assert constant == pytest.approx(0.3 / 2)


def test_an_outlier_moves_binned_figures_but_not_exact_ones():
    row = one_row(metrics.outlier(COUNTS, SIZE))
    for name, jump in (("bins_50", "pixel_ap"), ("f1max_50", "pixel_f1max")):
        assert row["compat_changes"][name][jump] > 20 * row["changes"][jump]
    assert row["compat_changes"]["pro_200"]["pixel_aupro"] > 0.1
    # A map has 64 x 64 pixels here: one of them is 12 times as much as at 224.
    assert max(row["changes"].values()) < 0.02
