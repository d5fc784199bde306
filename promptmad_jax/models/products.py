"""Matrix products and 3x3 convolutions whose kernels' gradients are written for XLA's CPU backend.

Elsewhere they are XLA's own. Both give the same numbers up to the order of summation.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x [..., K] times kernel [K, O].

    As `matmul`; on a CPU the kernel's gradient is made as [O, K] where K > O, which is half as fast
    again with the longer side in the columns, and of operands that are in memory, not computed a
    second time inside the product.
    """
    return x @ kernel


def _product_forward(x, kernel):
    return product(x, kernel), (x, kernel)


def _product_backward(kept, gradient):
    x, kernel = kept
    to_kernel = lax.platform_dependent(x, gradient, cpu=_to_kernel_on_cpu, default=_to_kernel)
    # Not `kernel.T`, which a mesh that splits kernels would gather once more.
    return jnp.einsum("...o,ko->...k", gradient, kernel), to_kernel


def _to_kernel(x, gradient):
    return jnp.einsum("...k,...o->ko", x, gradient)


def _to_kernel_on_cpu(x, gradient):
    if x.shape[-1] > gradient.shape[-1]:
        return _to_transposed_kernel(x, gradient).T
    return _to_kernel(*lax.optimization_barrier((x, gradient)))


def _to_transposed_kernel(x, gradient):
    # Without the barriers XLA computes anew, for the operand that it transposes, what made it, and
    # turns this product into the other.
    return lax.optimization_barrier(_to_kernel(*lax.optimization_barrier((gradient, x))))


product.defvjp(_product_forward, _product_backward)


def dense_product(x, kernel, dimension_numbers, **options):
    """`product` as the `dot_general` of an `nnx.Linear`."""
    del dimension_numbers, options
    return product(x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolution(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """A 3x3 convolution padded by one pixel: [B, H, W, K] with [3, 3, K, O] to [B, h, w, O].

    On a CPU the kernel's gradient is one product for each of its nine taps: XLA takes it for a
    convolution with a kernel of the image's size, at half of that speed.
    """
    return _convolve(x, kernel, stride)


def _convolve(x, kernel, stride):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _convolution_forward(x, kernel, stride):
    return convolution(x, kernel, stride), (x, kernel)


def _convolution_backward(stride, kept, gradient):
    x, kernel = kept
    (to_x,) = jax.linear_transpose(lambda x: _convolve(x, kernel, stride), x)(gradient)
    on_cpu, elsewhere = (
        functools.partial(to_taps, stride=stride) for to_taps in (_to_taps_on_cpu, _to_taps)
    )
    return to_x, lax.platform_dependent(x, gradient, cpu=on_cpu, default=elsewhere)


def _to_taps(x, gradient, stride):
    kernel = jax.ShapeDtypeStruct((3, 3, x.shape[-1], gradient.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda kernel: _convolve(x, kernel, stride), kernel)(gradient)[0]


def _to_taps_on_cpu(x, gradient, stride):
    _, height, width, _ = gradient.shape
    padded = lax.optimization_barrier(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))

    def to_tap(i, j):
        rows = slice(i, i + stride * (height - 1) + 1, stride)
        columns = slice(j, j + stride * (width - 1) + 1, stride)
        return _to_transposed_kernel(padded[:, rows, columns], gradient).T

    return jnp.stack([jnp.stack([to_tap(i, j) for j in range(3)]) for i in range(3)])


convolution.defvjp(_convolution_forward, _convolution_backward)


def dense_convolution(x, kernel, window_strides, padding, **options):
    """`convolution` as the `conv_general_dilated` of an `nnx.Conv`."""
    del padding, options
    return convolution(x, kernel, window_strides[0])
