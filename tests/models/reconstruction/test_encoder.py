"""The parts that the reconstructors share: mask, jitter, positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promptmad_jax.models.reconstruction.encoder import (
    FeatureEncoder,
    ReconstructorConfig,
    jitter,
    neighbor_allowed,
)


@pytest.mark.parametrize(
    ("grid", "neighbor_size", "corner", "centre"),
    [(14, 0, 16, 49), (16, 0, 25, 81), (20, 0, 36, 121), (16, 7, 16, 49), (20, 7, 16, 49)],
)
def test_blocked_neighbours_of_the_reference(grid, neighbor_size, corner, centre):
    blocked = (~neighbor_allowed(grid, grid, neighbor_size)).sum(1)
    assert blocked.min() == corner == blocked[0]
    assert blocked.max() == centre == blocked[grid * (grid // 2) + grid // 2]


def test_jitter_has_the_stated_size():
    tokens = jnp.asarray(np.random.default_rng(0).normal(size=(4, 64, 272)), jnp.float32)
    noise = jitter(tokens, 20.0, 1.0, jax.random.key(0)) - tokens
    norm = np.linalg.norm(tokens, axis=-1, keepdims=True)
    np.testing.assert_allclose((noise / norm).std(), 20 / 272, rtol=0.02)
    np.testing.assert_array_equal(jitter(tokens, 20.0, 0.0, jax.random.key(0)), tokens)


def test_position_puts_columns_before_rows():
    config = ReconstructorConfig(width=8, heads=2, encoder_layers=0)
    model = FeatureEncoder(config, 3, (2, 3), nnx.Rngs(0))
    position = model._position(2)[1]
    for row in range(2):
        for column in range(3):
            expected = jnp.concatenate([model.column_embed[column], model.row_embed[row]])
            np.testing.assert_array_equal(position[row * 3 + column], expected)
