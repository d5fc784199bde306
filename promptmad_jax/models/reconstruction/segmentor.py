"""PromptMAD's text-guided segmentor: coarse map, then a denoiser for its diffusion refinement."""

import math
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from promptmad_jax.models.layers.attention import Attention, Text
from promptmad_jax.models.layers.basic import ConvTranspose2x2, Mlp, conv, linear, xavier
from promptmad_jax.models.layers.norm import BatchNorm, layer_norm
from promptmad_jax.runtime.field_types import Bound, NonNegativeInt, PositiveInt
from promptmad_jax.runtime.key_streams import KeyStreams


@dataclass(frozen=True)
class SegmentorConfig:
    """PromptMAD's segmentor and its denoiser; the publication gives no sizes, so these are ours.

    Attributes:
        width: channels at strides 16 and 8.
        fine_width: channels at stride 4, twice as many before the last convolution.
        laterals: add 1x1 convolutions of the frozen backbone's strides 8 and 4.
        attention_layers: Transformer layers on the stride-16 grid; 0 leaves the Transformer out.
        heads: attention heads of the Transformer and of the attention to the text.
        text: the Transformer's cross-attention to the text tokens, and the text in the denoiser.
        norm_group: images that share BatchNorm statistics; 0 for the whole batch.
        prior_probability: the coarse head's probability at the start (Lin et al., 2017).
        denoiser_width: channels of the denoiser's fine level.
        denoiser_deep_width: channels of the denoiser's coarse level.
        residual: the denoiser predicts a correction of the coarse logit (objective "x0" only).
    """

    width: PositiveInt = 128
    fine_width: PositiveInt = 32
    laterals: bool = True
    attention_layers: NonNegativeInt = 1
    heads: PositiveInt = 8
    text: bool = True
    norm_group: NonNegativeInt = 0
    prior_probability: Annotated[float, Bound("above 0 and below 1", lambda p: 0 < p < 1)] = 0.01
    denoiser_width: PositiveInt = 8
    denoiser_deep_width: PositiveInt = 16
    residual: bool = True

    def __post_init__(self):
        if self.attention_layers and self.width % self.heads:
            raise ValueError(f"heads={self.heads} must divide width={self.width}")


class SpatialLayer(nnx.Module):
    """Pre-norm Transformer layer on the grid: self-attention, attention to the text, MLP."""

    def __init__(self, config: SegmentorConfig, text: bool, rngs: KeyStreams):
        width = config.width
        self.norm1, self.norm2 = layer_norm(width, rngs), layer_norm(width, rngs)
        self.attention = Attention(width, config.heads, rngs, init=xavier)
        self.mlp = Mlp(width, 2 * width, rngs, jax.nn.gelu)
        self.text = text
        if text:
            self.text_norm = layer_norm(width, rngs)
            self.text_attention = Attention(width, config.heads, rngs, init=xavier)

    def __call__(self, x, position, text: Text | None):
        y = self.norm1(x) + position
        x = x + self.attention(y, y, y)
        if self.text:
            y = self.text_norm(x) + position
            x = x + self.text_attention(y, text.tokens, text.tokens, allowed=text.allowed)
        return x + self.mlp(self.norm2(x))


class Trunk(NamedTuple):
    """logit [B, 4h, 4w]; fine [B, 4h, 4w, fine_width]; text: the projected tokens, or None."""

    logit: jax.Array
    fine: jax.Array
    text: Text | None


class Segmentor(nnx.Module):
    """Reconstruction error and fine backbone levels to a coarse logit at stride 4."""

    def __init__(
        self,
        config: SegmentorConfig,
        channels: tuple[int, int, int, int],
        grid: tuple[int, int],
        text_width: int,
        rngs: KeyStreams,
    ):
        self.config = config
        width, fine = config.width, config.fine_width
        text = bool(text_width) and config.text
        norm = lambda features: BatchNorm(features, group_size=config.norm_group)
        self.conv1 = conv(sum(channels), width, rngs, use_bias=False)
        self.norm1, self.norm2, self.norm3 = norm(width), norm(width), norm(2 * fine)
        self.position = nnx.Param(
            0.02 * jax.random.normal(rngs.params(), (grid[0] * grid[1], width))
        )
        names = [f"layer_{i}" for i in range(config.attention_layers)]
        self.layers = nnx.Dict({name: SpatialLayer(config, text, rngs) for name in names})
        self.up1, self.up2 = (
            ConvTranspose2x2(width, width, rngs),
            ConvTranspose2x2(width, 2 * fine, rngs),
        )
        self.conv2 = conv(width, width, rngs, use_bias=False)
        self.conv3 = conv(2 * fine, fine, rngs)
        self.predictor = linear(fine, 1, rngs)
        prior = config.prior_probability
        self.predictor.bias[...] = jnp.full(1, math.log(prior / (1 - prior)), jnp.float32)
        if config.laterals:
            self.lateral8, self.lateral4 = (
                linear(channels[2], width, rngs),
                linear(channels[1], 2 * fine, rngs),
            )
            self.lateral8_norm, self.lateral4_norm = norm(width), norm(2 * fine)
        if text:
            self.text_proj, self.text_norm = (
                linear(text_width, width, rngs),
                layer_norm(width, rngs),
            )
        self.has_text = text

    def __call__(
        self,
        error: jax.Array,
        stride8: jax.Array | None,
        stride4: jax.Array | None,
        text: Text | None,
        train: bool,
    ) -> Trunk:
        """error [B, h, w, C], stride8 [B, 2h, 2w, C8], stride4 [B, 4h, 4w, C4]."""
        text = (
            Text(self.text_norm(self.text_proj(text.tokens)), text.mask) if self.has_text else None
        )
        x = jax.nn.relu(self.norm1(self.conv1(error), train))
        x = self._spatial(x, text)
        x = self._add_lateral(self.up1(x), stride8, "lateral8", train)
        x = jax.nn.relu(self.norm2(self.conv2(x), train))
        x = self._add_lateral(self.up2(x), stride4, "lateral4", train)
        fine = jax.nn.relu(self.conv3(jax.nn.relu(self.norm3(x, train))))
        return Trunk(self.predictor(fine)[..., 0], fine, text)

    def _spatial(self, x, text):
        batch, height, width, channels = x.shape
        tokens = x.reshape(batch, height * width, channels)
        position = jnp.broadcast_to(self.position[...][None], tokens.shape)
        for i in range(self.config.attention_layers):
            tokens = self.layers[f"layer_{i}"](tokens, position, text)
        return tokens.reshape(x.shape)

    def _add_lateral(self, x, level, name, train):
        if not self.config.laterals:
            return x
        projected = getattr(self, name)(level.astype(x.dtype))
        return x + getattr(self, f"{name}_norm")(projected, train)
