"""A 3x3 convolution of a 2x2 transposed one, with nothing between: one product, not two."""

import jax
import jax.numpy as jnp

from promptmad_jax.models.convolution import convolve, patches_product
from promptmad_jax.models.layers import conv_transpose_2x2

_PADDING = ((1, 1), (1, 1))


def upsampled_conv(
    x: jax.Array, up_kernel: jax.Array, up_bias: jax.Array, kernel: jax.Array
) -> jax.Array:
    """The 3x3 convolution, padded by one pixel, of `conv_transpose_2x2(x, up_kernel, up_bias)`.

    Each of the four pixels that a pixel of x becomes depends on 2 x 2 of x. With the two kernels
    multiplied with each other first that takes 16 K O multiplications a pixel of x, where one
    convolution after the other takes 4 K M + 36 M O. The kernels' product costs the same for any
    batch, so whichever needs fewer is done: for few pixels, one after the other.

    Args:
        x: [B, h, w, K]. up_kernel: [K, 2, 2, M]. up_bias: [M]. kernel: [3, 3, M, O], without bias.

    Returns:
        [B, 2h, 2w, O].
    """
    batch, height, width, inputs = x.shape
    middle, outputs = kernel.shape[2:]
    pixels, windows = batch * height * width, batch * (height + 1) * (width + 1)
    in_turn = pixels * (4 * inputs * middle + 36 * middle * outputs)
    at_once = windows * 16 * inputs * outputs + 36 * inputs * middle * outputs
    if in_turn <= at_once:
        y = conv_transpose_2x2(x, up_kernel, up_bias)
        return convolve(y, kernel, 1, _PADDING, "conv")
    # As a product and not as a convolution, whose gradient takes a CPU fifty times as long.
    y = patches_product(x, _product(up_kernel, kernel), 1, _PADDING)
    y = y.reshape(batch, height + 1, width + 1, 2, 2, outputs)
    # The window that begins with a pixel holds its phase 1, the one before it its phase 0.
    phase = lambda i, j: y[:, i : i + height, j : j + width, i, j]
    rows = [jnp.stack([phase(i, 0), phase(i, 1)], 3) for i in (0, 1)]
    y = jnp.stack(rows, 2).reshape(batch, 2 * height, 2 * width, outputs)
    return y + _of_constant(up_bias, kernel, 2 * height, 2 * width)


def _product(up_kernel, kernel):
    """Both kernels as one [2, 2, K, 4 O], from a window of 2 x 2 pixels to its four phases."""
    products = jnp.einsum("kijm,yxmo->kijyxo", up_kernel[:, ::-1, ::-1], kernel)
    place = lambda i, j: jnp.pad(products[:, i, j], ((0, 0), (i, 1 - i), (j, 1 - j), (0, 0)))
    taps = sum(place(i, j) for i in (0, 1) for j in (0, 1))
    # Of the four taps an axis, the window's first pixel has two, one for each phase, and then its
    # second.
    inputs, outputs = len(up_kernel), kernel.shape[-1]
    taps = taps.reshape(inputs, 2, 2, 2, 2, outputs).transpose(1, 3, 0, 2, 4, 5)
    return taps.reshape(2, 2, inputs, 4 * outputs)


def _of_constant(value, kernel, height, width):
    """The convolution of a map that is `value` [M] everywhere: [1, height, width, O]."""
    inside = lambda size: jnp.ones((size, 3)).at[0, 0].set(0).at[-1, 2].set(0)
    taps = jnp.einsum("m,yxmo->yxo", value, kernel)
    return jnp.einsum("hy,wx,yxo->hwo", inside(height), inside(width), taps)[None]
