"""The sort on several threads is a sort."""

import numpy as np
import pytest

from promptmad_jax.evaluation.metrics import ground_truth


@pytest.mark.parametrize("cores", [1, 2, 3, 8])
@pytest.mark.parametrize("ties", [False, True])
def test_equals_numpys(monkeypatch, cores, ties):
    monkeypatch.setattr(ground_truth, "_LEAST", 100)
    rng = np.random.default_rng(cores)
    for count in (0, 1, 199, 200, 5000, 20_001):
        values = rng.standard_normal(count).astype(np.float32)
        values = np.round(values) if ties else values
        expected = np.sort(values)
        ground_truth.sort_in_place(values, cores)
        np.testing.assert_array_equal(values, expected)
