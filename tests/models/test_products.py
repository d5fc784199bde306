"""Products and convolutions: values as the library's, gradients too, on every platform."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from promptmad_jax.models.products import (
    _to_kernel,
    _to_kernel_on_cpu,
    _to_taps,
    _to_taps_on_cpu,
    convolution,
    product,
)


def plain_convolution(x, kernel, stride):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=layout
    )


CONVOLUTIONS = [(stride, size) for stride in (1, 2) for size in (6, 7)]


def normal(*shape):
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("widths", [(12, 3), (4, 7)])
def test_a_product_and_its_gradients(widths):
    compare_gradients(product, jnp.matmul, normal(2, 5, widths[0]), normal(*widths))


@pytest.mark.parametrize(("stride", "size"), CONVOLUTIONS)
def test_a_convolution_and_its_gradients(stride, size):
    ours, plain = (functools.partial(f, stride=stride) for f in (_positional, plain_convolution))
    compare_gradients(ours, plain, normal(2, size, 9, 4), normal(3, 3, 4, 5))


def _positional(x, kernel, stride):
    return convolution(x, kernel, stride)


def compare_gradients(ours, plain, *inputs):
    one, backward = jax.vjp(ours, *inputs)
    other, backward_plain = jax.vjp(plain, *inputs)
    np.testing.assert_array_equal(one, other)
    weight = normal(*one.shape)
    for a, b in zip(backward(weight), backward_plain(weight), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("widths", [(12, 3), (4, 7)])
def test_a_products_kernel_has_the_same_gradient_on_every_platform(widths):
    x, gradient = (normal(2, 5, width) for width in widths)
    np.testing.assert_allclose(_to_kernel_on_cpu(x, gradient), _to_kernel(x, gradient), rtol=1e-5)


@pytest.mark.parametrize(("stride", "size"), CONVOLUTIONS)
def test_a_convolutions_kernel_has_the_same_gradient_on_every_platform(stride, size):
    x, kernel = normal(2, size, 9, 4), normal(3, 3, 4, 5)
    gradient = normal(*plain_convolution(x, kernel, stride).shape)
    on_cpu, elsewhere = (f(x, gradient, stride) for f in (_to_taps_on_cpu, _to_taps))
    assert on_cpu.shape == elsewhere.shape == kernel.shape
    np.testing.assert_allclose(on_cpu, elsewhere, rtol=1e-5, atol=2e-5)
