"""OneNIP's refiner: from the reconstruction error to an anomaly logit at stride 4."""

import jax
from flax import nnx

from promptmad_jax.models.layers import (
    BatchNorm,
    ConvTranspose2x2,
    conv,
    conv_transpose_2x2,
    linear,
)
from promptmad_jax.models.upsampled_conv import upsampled_conv


class UpBlock(nnx.Module):
    """3x3 convolution, BatchNorm, ReLU; and a 2x2 transposed convolution: twice the resolution."""

    def __init__(self, features_in: int, width: int, group_size: int, rngs: nnx.Rngs):
        self.conv = conv(features_in, width, rngs, use_bias=False)
        self.norm = BatchNorm(width, group_size=group_size)
        self.up = ConvTranspose2x2(width, width, rngs)

    def activate(self, x: jax.Array, train: bool) -> jax.Array:
        """What follows the convolution and precedes the transposed one."""
        return jax.nn.relu(self.norm(x, train))


class Refiner(nnx.Module):
    """|reconstruction - features| [B, h, w, C] to a logit [B, 4h, 4w]."""

    def __init__(self, channels: int, width: int, group_size: int, rngs: nnx.Rngs):
        self.up1 = UpBlock(channels, width, group_size, rngs)
        self.up2 = UpBlock(width, width, group_size, rngs)
        self.predictor = linear(width, 1, rngs)

    def __call__(self, error: jax.Array, train: bool) -> jax.Array:
        x = self.up1.activate(self.up1.conv(error), train)
        # Nothing lies between a transposed convolution and the layer after it: their weights are
        # multiplied with each other first.
        up = self.up1.up
        x = upsampled_conv(x, up.kernel[...], up.bias[...], self.up2.conv.kernel[...])
        x = self.up2.activate(x, train)
        weight, bias = self.predictor.kernel[...], self.predictor.bias[...]
        up = self.up2.up
        return conv_transpose_2x2(x, up.kernel[...] @ weight, up.bias[...] @ weight + bias)[..., 0]
