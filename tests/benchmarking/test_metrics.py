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
    (drawn,), (again,) = (draw_classes({"many": (40, 110)}, SIZE) for _ in range(2))
    maps = drawn.maps["final"]
    assert maps.shape == drawn.masks.shape == (150, SIZE, SIZE) and maps.dtype == np.float32
    np.testing.assert_array_equal(drawn.masks.any((1, 2)), drawn.labels)
    assert drawn.masks.mean() == pytest.approx(0.024, rel=0.1)
    assert maps[drawn.masks].mean() > maps[~drawn.masks].mean() + 1
    np.testing.assert_array_equal(again.maps["final"], maps)


def test_per_class_and_pooling():
    row = one_row(metrics.per_class(COUNTS, SIZE, 2))
    assert row["samples"] == 2 and set(row["mean"]) == set(row["metrics"])
    assert all(0.3 < value <= 1 for value in row["mean"].values())
    pooled = one_row(metrics.whole_evaluation(COUNTS, SIZE))
    assert set(pooled["pooled"]) == set(row["metrics"])
