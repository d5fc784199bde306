"""Pairs of rows."""

import jax.numpy as jnp
import numpy as np

from promptmad_jax.models.reconstruction.pairs import for_both, interleave, separate


def test_rows_of_one_image_stand_together():
    clean, pseudo = jnp.asarray([[1.0], [2.0]]), jnp.asarray([[10.0], [20.0]])
    pairs = interleave(clean, pseudo)
    np.testing.assert_array_equal(pairs[:, 0], [1, 10, 2, 20])
    np.testing.assert_array_equal(for_both(clean)[:, 0], [1, 1, 2, 2])
    for before, after in zip((clean, pseudo), separate(pairs, 2), strict=True):
        np.testing.assert_array_equal(before, after)
