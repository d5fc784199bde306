"""Layers that the reconstructor and the segmentor share."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from promptmad_jax.models.layers.pixel_shuffle import depth_to_space

xavier = nnx.initializers.xavier_uniform()


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x [..., K] times kernel [K, O].

    As `matmul`, with the kernel's gradient written for XLA's CPU backend: as [O, K] where K > O,
    which is half as fast again with the longer side in the columns, and of operands that are in
    memory, not computed a second time inside the product.
    """
    return x @ kernel


def _product_forward(x, kernel):
    return product(x, kernel), (x, kernel)


def _product_backward(kept, gradient):
    x, kernel = kept
    to_kernel = jax.lax.platform_dependent(x, gradient, cpu=_to_kernel_on_cpu, default=_to_kernel)
    # Not `kernel.T`, which a mesh that splits kernels would gather once more.
    return jnp.einsum("...o,ko->...k", gradient, kernel), to_kernel


def _to_kernel(x, gradient):
    return jnp.einsum("...k,...o->ko", x, gradient)


def _to_kernel_on_cpu(x, gradient):
    # Without the barriers XLA computes anew, for the operand that it transposes, what made it, and
    # turns one product into the other.
    made = jax.lax.optimization_barrier
    x, gradient = made((x, gradient))
    if x.shape[-1] > gradient.shape[-1]:
        return made(_to_kernel(gradient, x)).T
    return _to_kernel(x, gradient)


product.defvjp(_product_forward, _product_backward)


def dense_product(x, kernel, dimension_numbers, **options):
    """`product` as the `dot_general` of an `nnx.Linear`."""
    del dimension_numbers, options
    return product(x, kernel)


def linear(features_in: int, features_out: int, rngs: nnx.Rngs) -> nnx.Linear:
    """A dense layer, Xavier-uniform kernel and zero bias."""
    return nnx.Linear(
        features_in, features_out, kernel_init=xavier, dot_general=dense_product, rngs=rngs
    )


def layer_norm(width: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm with torch's epsilon, 1e-5."""
    return nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)


def conv(
    features_in: int, features_out: int, rngs: nnx.Rngs, *, strides: int = 1, use_bias: bool = True
) -> nnx.Conv:
    """A 3x3 convolution, padded by one pixel on each side (torch's `padding=1`)."""
    return nnx.Conv(
        features_in,
        features_out,
        (3, 3),
        strides=strides,
        padding=((1, 1), (1, 1)),
        use_bias=use_bias,
        kernel_init=xavier,
        rngs=rngs,
    )


def hash_bits(seed: jax.Array, shape: tuple[int, ...], start: jax.Array | int = 0) -> jax.Array:
    """One well-mixed uint32 an element: a finalizer over the element's index and a 64-bit seed.

    Threefry costs some 70 operations a word and was a third of a training step on a CPU; dropout
    needs no cryptographic stream. This is the `lowbias32` mixer (Wellons, 2018), twice, as studied
    for such use by Jarzynski and Olano (2020). It does not depend on how the array is sharded.

    Args:
        seed: uint32 [2]. start: index of the first element, where this is a part of an array.
    """
    index = jnp.full(shape, start, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        index = index + jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
        stride = stride * shape[axis] % 2**32
    return _mix(_mix(index ^ seed[0]) + seed[1])


def _mix(x: jax.Array) -> jax.Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def dropout(x: jax.Array, rate: float, rngs: nnx.Rngs | None) -> jax.Array:
    """Zeroes elements with probability `rate` and rescales the rest; the identity without rngs."""
    if rngs is None or rate == 0:
        return x
    return drop(x, rate, dropout_seed(rngs))


def dropout_seed(rngs: nnx.Rngs) -> jax.Array:
    """The seed uint32 [2] of one dropout."""
    return jax.random.bits(rngs.dropout(), (2,), jnp.uint32)


def drop(x: jax.Array, rate: float, seed: jax.Array, start: jax.Array | int = 0) -> jax.Array:
    """`dropout` by a seed, of an array or of the part of one that begins at index `start`."""
    keep = hash_bits(seed, x.shape, start) >= jnp.uint32(round(rate * 2**32))
    return jnp.where(keep, x * (1 / (1 - rate)), 0).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def relu_dropout(x: jax.Array, rate: float, seed: jax.Array) -> jax.Array:
    """`drop` of a ReLU, of an array of any shape; seed as there, rate below 1.

    Its output tells what passes a gradient, so nothing else is kept for it.
    """
    return drop(jax.nn.relu(x), rate, seed)


def _relu_dropout_forward(x, rate, seed):
    y = relu_dropout(x, rate, seed)
    return y, y


def _relu_dropout_backward(rate, y, gradient):
    return jnp.where(y > 0, gradient * (1 / (1 - rate)), 0).astype(y.dtype), None


relu_dropout.defvjp(_relu_dropout_forward, _relu_dropout_backward)


class Mlp(nnx.Module):
    """Two dense layers: `activation(x W1 + b1) W2 + b2`, the hidden one the wider."""

    def __init__(self, width: int, hidden: int, rngs: nnx.Rngs, activation=jax.nn.relu):
        self.lin1, self.lin2 = linear(width, hidden, rngs), linear(hidden, width, rngs)
        self.activation = activation

    def __call__(self, x: jax.Array, rate: float = 0.0, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Dropout between the layers, for ReLU alone."""
        x = self.lin1(x)
        if rngs is None or rate == 0:
            x = self.activation(x)
        elif self.activation is jax.nn.relu:
            x = relu_dropout(x, rate, dropout_seed(rngs))
        else:
            raise ValueError("Mlp: dropout is for ReLU")
        return self.lin2(x)


def conv_transpose_2x2(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """A 2x2 transposed convolution with stride 2: [B, h, w, K] to [B, 2h, 2w, O].

    Windows do not overlap, so it is one matrix product and a reshape:
    y[2r+i, 2c+j, o] = sum_k x[r, c, k] kernel[k, i, j, o] + bias[o].
    """
    y = depth_to_space(product(x, kernel.reshape(len(kernel), -1)))
    return y + bias[None, None, None, :]


class ConvTranspose2x2(nnx.Module):
    """`conv_transpose_2x2` with its parameters, kernel [K, 2, 2, O]."""

    def __init__(self, features_in: int, features_out: int, rngs: nnx.Rngs):
        # Xavier's fans as torch counts them for a transposed kernel: out * 4 and in * 4.
        bound = (6 / (4 * (features_in + features_out))) ** 0.5
        shape = (features_in, 2, 2, features_out)
        self.kernel = nnx.Param(
            jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound)
        )
        self.bias = nnx.Param(jnp.zeros(features_out))

    def __call__(self, x: jax.Array) -> jax.Array:
        return conv_transpose_2x2(x, self.kernel[...], self.bias[...])


class BatchNorm(nnx.Module):
    """Batch normalisation over [2B, h, w], with torch's conventions (unbiased running variance).

    Under a mesh the mean over the batch axis is over the global batch. In training the batch
    consists of pairs (models/pairs.py); `group_size` > 0 computes the statistics over groups of so
    many consecutive images with both of their versions, as the reference's separate devices do.
    """

    def __init__(
        self, features: int, *, momentum: float = 0.1, epsilon: float = 1e-5, group_size: int = 0
    ):
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.var = nnx.BatchStat(jnp.ones(features))
        self.momentum, self.epsilon, self.group_size = momentum, epsilon, group_size

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if not train:
            return self._affine(
                x, self.mean[...][None, None, None, :], self.var[...][None, None, None, :]
            )
        images = len(x) // 2
        group = self.group_size or images
        if len(x) % 2 or images % group:
            raise ValueError(f"BatchNorm: {images} images do not divide into groups of {group}")
        grouped = x.reshape(images // group, -1, *x.shape[2:])
        mean = grouped.mean((1, 2), keepdims=True, dtype=jnp.float32)
        var = jnp.square(grouped - mean).mean((1, 2), keepdims=True, dtype=jnp.float32)
        count = 2 * group * x.shape[1] * x.shape[2]
        self._update(mean.mean((0, 1, 2)), var.mean((0, 1, 2)) * (count / (count - 1)))
        return self._affine(grouped, mean, var).reshape(x.shape)

    def _affine(self, x, mean, var):
        scale = self.scale[None, None, None, :] * jax.lax.rsqrt(var + self.epsilon)
        return (x - mean) * scale + self.bias[None, None, None, :]

    def _update(self, mean, var):
        keep = 1 - self.momentum
        self.mean[...] = keep * self.mean[...] + self.momentum * jax.lax.stop_gradient(mean)
        self.var[...] = keep * self.var[...] + self.momentum * jax.lax.stop_gradient(var)


class GroupNorm(nnx.Module):
    """Group normalisation of [B, h, w, C], given as one affine map a channel.

    Sums run over the pixels of a channel before they meet in a group, and whatever scales and
    shifts the result can be folded into the map: both are several times faster on a CPU than
    normalising each element.
    """

    def __init__(self, features: int, groups: int = 8, epsilon: float = 1e-5):
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.groups, self.epsilon = groups, epsilon

    def affine(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Scale and shift, both [B, C], with which scale * x + shift is normalised."""
        batch, *_, channels = x.shape
        grouped = lambda y: y.reshape(batch, self.groups, channels // self.groups).mean(-1)
        mean = grouped(x.mean((1, 2)))
        var = grouped(jnp.square(x).mean((1, 2))) - jnp.square(mean)
        spread = lambda y: jnp.repeat(y, channels // self.groups, axis=1)
        scale = self.scale[None] * spread(jax.lax.rsqrt(jnp.maximum(var, 0) + self.epsilon))
        return scale, self.bias[None] - spread(mean) * scale

    def __call__(self, x: jax.Array) -> jax.Array:
        scale, shift = self.affine(x)
        return x * scale[:, None, None, :] + shift[:, None, None, :]
