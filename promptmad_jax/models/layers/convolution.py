"""Dense and depthwise convolutions in two lowerings: XLA's own, and one for CPUs.

XLA's CPU backend runs depthwise convolutions 5 to 40 times slower than the same k*k shifted
multiply-adds, and 1x1 or strided convolutions slower than one matrix product. Accelerators want
`conv_general_dilated`. Both give the same numbers up to the order of summation.

Kernels are HWIO, depthwise ones [k, k, 1, C]; images [B, H, W, C].
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

Lowering = Literal["conv", "shifted"]
Padding = tuple[int, int]
Pads = tuple[Padding, Padding]


def same_padding(size: int, kernel: int, stride: int) -> Padding:
    """Returns TensorFlow's SAME padding of one axis: the odd pixel goes to the end."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def convolve(
    x: jax.Array, kernel: jax.Array, stride: int, padding: Pads, lowering: Lowering
) -> jax.Array:
    """A dense (1x1 or k x k) convolution: [B, H, W, C] with [k, k, C, D] to [B, h, w, D]."""
    size = kernel.shape[0]
    if lowering == "conv" or (size > 1 and stride == 1):
        return _conv(x, kernel, stride, padding, groups=1)
    windows = _windows(x, size, stride, padding)
    return jnp.concatenate(windows, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def depthwise(
    x: jax.Array, kernel: jax.Array, stride: int, padding: Pads, lowering: Lowering
) -> jax.Array:
    """One k x k filter per channel: [B, H, W, C] with [k, k, 1, C] to [B, h, w, C]."""
    if lowering == "conv":
        return _conv(x, kernel, stride, padding, groups=x.shape[-1])
    windows = _windows(x, kernel.shape[0], stride, padding)
    taps = kernel.reshape(-1, 1, 1, 1, x.shape[-1])
    return sum(window * tap for window, tap in zip(windows, taps, strict=True))


def _conv(x: jax.Array, kernel: jax.Array, stride: int, padding: Pads, groups: int) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _windows(x: jax.Array, size: int, stride: int, padding: Pads) -> list[jax.Array]:
    """The k*k strided views of the padded image, row-major: each [B, h, w, C]."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
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
