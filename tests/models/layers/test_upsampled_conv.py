"""A 3x3 convolution of a 2x2 transposed one against the two, one after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from promptmad_jax.models.layers.basic import conv_transpose_2x2
from promptmad_jax.models.layers.convolution import upsampled_conv


def in_turn(x, up_kernel, up_bias, kernel):
    y = conv_transpose_2x2(x, up_kernel, up_bias)
    return lax.conv_general_dilated(
        y, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def arrays(batch, height, width):
    rng = np.random.default_rng(batch)
    shapes = ((batch, height, width, 6), (6, 2, 2, 5), (5,), (3, 3, 5, 4))
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


@pytest.mark.parametrize("batch, products", [(1, 0), (24, 1)])
def test_values_and_gradients_are_those_of_the_two_layers(batch, products):
    inputs = arrays(batch, 2, 3)
    weights = jnp.cos(jnp.arange(batch * 4 * 6 * 4.0)).reshape(batch, 4, 6, 4)

    def run(function):
        loss = lambda *inputs: (function(*inputs) * weights).sum()
        return function(*inputs), *jax.grad(loss, argnums=range(4))(*inputs)

    for ours, theirs in zip(run(upsampled_conv), run(in_turn), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())
    # Six pixels are too few for the kernels' product to pay.
    text = jax.jit(upsampled_conv).lower(*inputs).as_text()
    assert ("convolution" not in text) == bool(products)
