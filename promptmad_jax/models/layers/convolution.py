"""Three kinds of convolution in two lowerings: XLA's own, and matrix products for the CPU.

XLA's CPU backend runs depthwise convolutions 5 to 40 times slower than the same k*k shifted
multiply-adds, and 1x1 or strided convolutions slower than one matrix product. Accelerators want
`conv_general_dilated`. Both give the same numbers up to the order of summation.

Kernels are HWIO, depthwise ones [k, k, 1, C]; images [B, H, W, C].
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from promptmad_jax.models.layers.basic import conv_transpose_2x2, product

Lowering = Literal["conv", "shifted"]
Padding = tuple[int, int]
Pads = tuple[Padding, Padding]


def same_padding(size: int, kernel: int, stride: int) -> Padding:
    """TensorFlow's SAME for one axis: the odd pixel goes to the end."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    stride: int,
    padding: Pads,
    lowering: Lowering,
) -> jax.Array:
    """A dense (1x1 or k x k) convolution: [B, H, W, C] with [k, k, C, D] to [B, h, w, D]."""
    if lowering == "shifted" and kernel.shape[0] == 1 and stride == 1:
        return jnp.einsum("bhwc,cd->bhwd", x, kernel[0, 0])
    if lowering == "shifted" and stride > 1:
        return patches_product(x, kernel, stride, padding)
    return _conv(x, kernel, stride, padding, groups=1)


def depthwise(
    x: jax.Array,
    kernel: jax.Array,
    stride: int,
    padding: Pads,
    lowering: Lowering,
) -> jax.Array:
    """One k x k filter a channel: [B, H, W, C] with [k, k, 1, C] to [B, h, w, C]."""
    if lowering == "conv":
        return _conv(x, kernel, stride, padding, groups=x.shape[-1])
    size = kernel.shape[0]
    # Without the barrier XLA computes anew, for the tap in the middle, what made the image.
    padded = lax.optimization_barrier(_pad(x, padding))
    windows = _windows(padded, size, stride)
    taps = kernel.reshape(size * size, 1, 1, 1, -1)
    terms = [window * tap for window, tap in zip(windows, taps, strict=True)]
    # One sum after the other of 25 terms keeps a CPU waiting for each.
    return sum(terms[::3]) + (sum(terms[1::3]) + sum(terms[2::3]))


@jax.custom_vjp
def convolve_narrow(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 3x3 convolution of few channels, padded by one pixel: [B, H, W, C] with [3, 3, C, D] to
    [B, H, W, D].

    XLA's CPU backend gives a convolution from four channels to no library and runs it at 20
    GFLOP/s; as a sum over taps and channels it is one loop, together with what is added to it. The
    gradients are the convolution's: a sum's would be an array a tap and channel.
    """
    return lax.platform_dependent(x, kernel, cpu=_sum_of_taps, default=_conv_3x3)


def _convolve_narrow_forward(x, kernel):
    return convolve_narrow(x, kernel), (x, kernel)


def _convolve_narrow_backward(kept, gradient):
    return jax.vjp(_conv_3x3, *kept)[1](gradient)


convolve_narrow.defvjp(_convolve_narrow_forward, _convolve_narrow_backward)


def _conv_3x3(x, kernel):
    return _conv(x, kernel, 1, ((1, 1), (1, 1)), groups=1)


def _sum_of_taps(x, kernel):
    channels = x.shape[-1]
    windows = _windows(_pad(x, ((1, 1), (1, 1))), 3, 1)
    taps = kernel.reshape(9, channels, 1, 1, 1, -1)
    return sum(
        window[..., c, None] * tap[c]
        for window, tap in zip(windows, taps, strict=True)
        for c in range(channels)
    )


def _conv(x: jax.Array, kernel: jax.Array, stride: int, padding: Pads, groups: int) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def patches_product(x: jax.Array, kernel: jax.Array, stride: int, padding: Pads) -> jax.Array:
    """`convolve` as one matrix product: [B, H, W, C] with [k, k, C, D] to [B, h, w, D].

    Without a stride the windows that it makes are k*k times the image, which seldom pays.
    """
    patches = jnp.concatenate(_windows(_pad(x, padding), kernel.shape[0], stride), axis=-1)
    return product(patches, kernel.reshape(-1, kernel.shape[-1]))


def _pad(x: jax.Array, padding: Pads) -> jax.Array:
    return jnp.pad(x, ((0, 0), *padding, (0, 0)))


def _windows(x: jax.Array, size: int, stride: int) -> list[jax.Array]:
    """The k*k strided views of a padded image, row-major: each [B, h, w, C]."""
    batch, height, width, channels = x.shape
    rows, columns = (height - size) // stride * stride, (width - size) // stride * stride
    return [
        lax.slice(
            x,
            (0, i, j, 0),
            (batch, i + rows + 1, j + columns + 1, channels),
            (1, stride, stride, 1),
        )
        for i in range(size)
        for j in range(size)
    ]


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
