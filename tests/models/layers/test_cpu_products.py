"""The gradients of a dense product, with the longer side first and last."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from promptmad_jax.models.layers.cpu_products import _kernel_gradient, dense


@pytest.mark.parametrize("widths", [(12, 3), (4, 7)])
def test_gradients_are_those_of_matmul_on_every_platform(widths):
    rng = np.random.default_rng(0)
    x, kernel, weight = (
        jnp.asarray(rng.normal(size=shape), jnp.float32)
        for shape in ((2, 5, widths[0]), widths, (2, 5, widths[1]))
    )
    ours, plain = (jax.vjp(product, x, kernel) for product in (dense, jnp.matmul))
    np.testing.assert_array_equal(ours[0], plain[0])
    for a, b in zip(ours[1](weight), plain[1](weight), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(_kernel_gradient(x, weight), plain[1](weight)[1], rtol=1e-5)
