"""Normalisation over features, over a batch and over groups of channels."""

import jax
import jax.numpy as jnp
from flax import nnx

from promptmad_jax.runtime.key_streams import KeyStreams


def layer_norm(width: int, rngs: KeyStreams) -> nnx.LayerNorm:
    """LayerNorm with torch's epsilon, 1e-5."""
    return nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)


class BatchNorm(nnx.Module):
    """Batch normalisation over [2B, h, w] as torch has it (unbiased running variance).

    Under a mesh the mean over the batch axis is over the global batch. In training the batch
    consists of pairs (`models/reconstruction/pairs.py`); `group_size` > 0 computes the statistics
    over groups of that many consecutive images, each with both of its versions, as the reference's
    separate devices do.
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
        return ((x - mean) * scale + self.bias[None, None, None, :]).astype(x.dtype)

    def _update(self, mean, var):
        keep = 1 - self.momentum
        self.mean[...] = keep * self.mean[...] + self.momentum * jax.lax.stop_gradient(mean)
        self.var[...] = keep * self.var[...] + self.momentum * jax.lax.stop_gradient(var)


class GroupNorm(nnx.Module):
    """Group normalisation of [B, h, w, C], as one affine map per channel.

    Sums run over the pixels of a channel before they meet in a group, and what scales and shifts
    the result can be folded into the map: both are several times faster on a CPU than normalising
    each element.
    """

    def __init__(self, features: int, groups: int = 8, epsilon: float = 1e-5):
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.groups, self.epsilon = groups, epsilon

    def affine(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns scale and shift, both [B, C]; scale * x + shift is normalised."""
        batch, *_, channels = x.shape
        grouped = lambda y: y.reshape(batch, self.groups, channels // self.groups).mean(-1)
        x = x.astype(jnp.float32)
        mean = grouped(x.mean((1, 2)))
        var = grouped(jnp.square(x).mean((1, 2))) - jnp.square(mean)
        spread = lambda y: jnp.repeat(y, channels // self.groups, axis=1)
        scale = self.scale[None] * spread(jax.lax.rsqrt(jnp.maximum(var, 0) + self.epsilon))
        return scale, self.bias[None] - spread(mean) * scale

    def __call__(self, x: jax.Array) -> jax.Array:
        scale, shift = self.affine(x)
        return x * scale[:, None, None, :] + shift[:, None, None, :]
