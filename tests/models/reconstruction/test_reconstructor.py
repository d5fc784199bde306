"""OneNIP at full size: shapes, parameter counts, initial weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promptmad_jax.models.backbone.neck import Features
from promptmad_jax.models.functional import Network
from promptmad_jax.models.reconstruction.encoder import ReconstructorConfig
from promptmad_jax.models.reconstruction.onenip import OneNIP, RefinerConfig
from promptmad_jax.models.reconstruction.reconstructor import Reconstructor
from tests.trees import count_params


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
