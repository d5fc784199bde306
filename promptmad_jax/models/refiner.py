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


class UpBlock(nnx.Module):
    """3x3 convolution, BatchNorm, ReLU; and a 2x2 transposed convolution: twice the resolution."""

    def __init__(self, features_in: int, width: int, group_size: int, rngs: nnx.Rngs):
        self.conv = conv(features_in, width, rngs, use_bias=False)
        self.norm = BatchNorm(width, group_size=group_size)
        self.up = ConvTranspose2x2(width, width, rngs)

    def before_up(self, x: jax.Array, train: bool) -> jax.Array:
        """All but the transposed convolution."""
        return jax.nn.relu(self.norm(self.conv(x), train))


class Refiner(nnx.Module):
    """|reconstruction - features| [B, h, w, C] to a logit [B, 4h, 4w]."""

    def __init__(self, channels: int, width: int, group_size: int, rngs: nnx.Rngs):
        self.up1 = UpBlock(channels, width, group_size, rngs)
        self.up2 = UpBlock(width, width, group_size, rngs)
        self.predictor = linear(width, 1, rngs)

    def __call__(self, error: jax.Array, train: bool) -> jax.Array:
        x = self.up1.up(self.up1.before_up(error, train))
        x = self.up2.before_up(x, train)
        # Nothing lies between the last transposed convolution and the predictor. Multiplied with
        # each other first, they make one number a pixel and not `width`.
        weight, bias = self.predictor.kernel[...], self.predictor.bias[...]
        up = self.up2.up
        return conv_transpose_2x2(x, up.kernel[...] @ weight, up.bias[...] @ weight + bias)[..., 0]
