"""The reconstructor: mask, jitter, shapes, parameter counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promptmad_jax.models.functional import Network, count_params
from promptmad_jax.models.neck import Features
from promptmad_jax.models.onenip import OneNIP, RefinerConfig
from promptmad_jax.models.reconstructor import (
    Reconstructor,
    ReconstructorConfig,
    jitter,
    neighbor_allowed,
)


@pytest.mark.parametrize(("grid", "corner", "centre"), [(14, 16, 49), (16, 25, 81), (20, 36, 121)])
def test_blocked_neighbours_of_the_reference(grid, corner, centre):
    blocked = (~neighbor_allowed(grid, grid, 0)).sum(1)
    assert blocked.min() == corner == blocked[0]
    assert blocked.max() == centre == blocked[grid * (grid // 2) + grid // 2]


def test_jitter_has_the_stated_size():
    tokens = jnp.asarray(np.random.default_rng(0).normal(size=(4, 64, 272)), jnp.float32)
    noise = jitter(tokens, 20.0, 1.0, jax.random.key(0)) - tokens
    norm = np.linalg.norm(tokens, axis=-1, keepdims=True)
    np.testing.assert_allclose((noise / norm).std(), 20 / 272, rtol=0.02)
    np.testing.assert_array_equal(jitter(tokens, 20.0, 0.0, jax.random.key(0)), tokens)


@pytest.mark.parametrize("size", [224, 256, 320])
def test_onenip_at_full_size(size):
    grid = size // 16
    network = Network.create(
        lambda rngs: OneNIP(ReconstructorConfig(), RefinerConfig(), 272, (grid, grid), rngs)
    )
    params, stats = jax.eval_shape(network.init, jax.random.key(0))
    assert count_params(params) == 8_372_625 + 256 * (grid - 14)

    def predict(params, stats, neck):
        model = network.bind(params, stats)
        return model.predict(Features(neck, None, None), model.encode_prompt(neck, None), None)

    neck = jax.ShapeDtypeStruct((2, grid, grid, 272), jnp.float32)
    outputs = jax.eval_shape(predict, params, stats, neck)
    assert outputs.reconstruction.shape == (2, grid, grid, 272)
    assert outputs.coarse_logit.shape == (2, size // 4, size // 4)
    assert outputs.refined_logit is None


def test_initial_weights_have_torchs_bounds():
    model = Reconstructor(ReconstructorConfig(), 272, (14, 14), 0, nnx.Rngs(0))
    attention = model.encoder["layer_0"].attention
    np.testing.assert_allclose(
        jnp.abs(attention.query.kernel[...]).max(), np.sqrt(6 / 1024), rtol=1e-3
    )
    np.testing.assert_allclose(
        jnp.abs(attention.out.kernel[...]).max(), np.sqrt(6 / 512), rtol=1e-3
    )
    assert float(model.row_embed[...].min()) > 0 and float(model.row_embed[...].max()) < 1


def test_position_puts_columns_before_rows():
    config = ReconstructorConfig(width=8, heads=2, encoder_layers=0, decoder_layers=0)
    model = Reconstructor(config, 3, (2, 3), 0, nnx.Rngs(0))
    position = model._position()[0]
    for row in range(2):
        for column in range(3):
            expected = jnp.concatenate([model.column_embed[column], model.row_embed[row]])
            np.testing.assert_array_equal(position[row * 3 + column], expected)
