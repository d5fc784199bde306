import jax.numpy as jnp
import numpy as np
import pytest

from promptmad_jax.models.layers.convolution import convolve, depthwise, same_padding


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (224, 3, 2, (0, 1)),
        (56, 5, 2, (1, 2)),
        (95, 5, 2, (2, 2)),
        (14, 5, 1, (2, 2)),
        (7, 1, 1, (0, 0)),
    ],
)
def test_same_padding_is_tensorflows(size, kernel, stride, expected):
    assert same_padding(size, kernel, stride) == expected


@pytest.mark.parametrize("lowering", ["conv", "shifted"])
def test_depthwise_by_hand(lowering):
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    kernel = jnp.array([[0.0, 1, 0], [10, 0, 0], [0, 0, 100]]).reshape(3, 3, 1, 1)
    y = depthwise(x, kernel, 2, ((1, 1), (1, 1)), lowering)
    # At each corner of the 3x3 image: pixel above, 10 times the left, 100 times the lower right.
    assert y[0, :, :, 0].tolist() == [[400.0, 10.0], [3.0, 75.0]]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_lowerings_agree(size, stride):
    rng = np.random.default_rng(size + stride)
    x = jnp.asarray(rng.standard_normal((2, 9, 12, 6)), jnp.float32)
    padding = tuple(same_padding(n, size, stride) for n in x.shape[1:3])
    for operation, inputs, outputs in ((convolve, 6, 4), (depthwise, 1, 6)):
        kernel = jnp.asarray(rng.standard_normal((size, size, inputs, outputs)), jnp.float32)
        one = operation(x, kernel, stride, padding, "conv")
        other = operation(x, kernel, stride, padding, "shifted")
        assert one.shape == (2, -(-9 // stride), -(-12 // stride), outputs)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
