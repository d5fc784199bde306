"""PromptMAD's text-guided segmentor: coarse map, then a denoiser for its diffusion refinement."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from promptmad_jax.models.layers.attention import Attention, Text
from promptmad_jax.models.layers.basic import ConvTranspose2x2, Mlp, conv, linear, xavier
from promptmad_jax.models.layers.norm import BatchNorm, layer_norm
from promptmad_jax.models.layers.pixel_shuffle import space_to_depth
from promptmad_jax.models.layers.resize import resize_align_corners
from promptmad_jax.models.reconstruction.correction import Correction
from promptmad_jax.models.reconstruction.memory import Match, MemoryConfig
from promptmad_jax.runtime.field_types import Depth, NonNegativeInt, PositiveFloat, Range, Width
from promptmad_jax.runtime.key_streams import KeyStreams


@dataclass(frozen=True)
class SegmentorConfig:
    """PromptMAD's segmentor and its denoiser; the publication gives no sizes, so these are ours.

    Attributes:
        width: channels on the token grid and on twice the grid.
        fine_width: channels on four times the grid, twice as many before the last convolution.
        laterals: add 1x1 convolutions of the frozen backbone's levels on twice and four times the
            token grid (EfficientNets' strides 8 and 4).
        attention_layers: Transformer layers on the token grid; 0 leaves the Transformer out.
        heads: attention heads of the Transformer and of the attention to the text.
        text: the Transformer's cross-attention to the text tokens, and the text in the denoiser.
        norm_group: images that share BatchNorm statistics; 0 for the whole batch.
        prior_probability: the coarse head's probability at the start (Lin et al., 2017).
        denoiser_width: channels of the denoiser's fine level.
        denoiser_deep_width: channels of the denoiser's coarse level.
        residual: the denoiser predicts a correction of the coarse logit (objective "x0" only).
        correction: with a memory, standard deviations of normal patches up to which a change of
            its distance counts nearly in full in the final map; beyond, its logarithm does. The
            loss sees all of it.
    """

    width: Width = 128
    fine_width: Width = 32
    laterals: bool = True
    attention_layers: Depth = 1
    heads: Width = 8
    text: bool = True
    norm_group: NonNegativeInt = 0
    prior_probability: Annotated[float, Range(0, 1, above=True, below=True)] = 0.01
    denoiser_width: Annotated[int, Range(8, 16_384, multiple=8)] = 8
    denoiser_deep_width: Annotated[int, Range(8, 16_384, multiple=8)] = 16
    residual: bool = True
    correction: PositiveFloat = 1.0

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

    def __call__(self, x, position, text: Text | None, train: bool):
        y = self.norm1(x) + position
        x = x + self.attention(y, y, y, fused=not train)
        if self.text:
            y = self.text_norm(x) + position
            x = x + self.text_attention(y, text.tokens, text.tokens, allowed=text.allowed)
        return x + self.mlp(self.norm2(x))


class Trunk(NamedTuple):
    """fine: [B, 4h, 4w, fine_width]. text: the projected tokens, or None."""

    coarse: Correction
    fine: jax.Array
    text: Text | None


class InputSizes(NamedTuple):
    """Sizes of what the model reads.

    Attributes:
        channels: of the backbone's levels by their stride, in rising order.
        grid: (h, w) of the tokens, at the last stride.
        text_width: width d of the text tokens; 0 without text.
    """

    channels: Mapping[int, int]
    grid: tuple[int, int]
    text_width: int


class Evidence(NamedTuple):
    """Inputs of the segmentor; each is None for a model without it.

    Attributes:
        error: [B, h, w, C], of the reconstruction.
        stride8, stride4: [B, 2h, 2w, C8] and [B, 4h, 4w, C4], levels of the backbone.
        match: with the memory, on the grid, twice or four times it.
    """

    error: jax.Array | None
    stride8: jax.Array | None
    stride4: jax.Array | None
    match: Match | None = None


class Segmentor(nnx.Module):
    """Reconstruction error, fine backbone levels and a memory to a coarse logit [B, 4h, 4w].

    Args:
        memory: settings of the memory, None without one.
        reconstruction: the error of a reconstruction is given.
    """

    float32_layers = ("predictor",)

    def __init__(
        self,
        config: SegmentorConfig,
        sizes: InputSizes,
        rngs: KeyStreams,
        memory: MemoryConfig | None = None,
        reconstruction: bool = True,
    ):
        channels, grid, text_width = sizes
        self.config, self.grid = config, grid
        last = max(channels)
        self.match_scale = 0 if memory is None else last // memory.stride
        width, fine = config.width, config.fine_width
        text = bool(text_width) and config.text
        norm = lambda features: BatchNorm(features, group_size=config.norm_group)
        patch = 0 if memory is None else memory.channels(channels) + 1
        coarse = sum(channels.values()) if reconstruction else patch
        self.has_trunk = reconstruction or config.attention_layers > 0
        if self.has_trunk:
            self.conv1, self.norm1 = conv(coarse, width, rngs, use_bias=False), norm(width)
            self.position = nnx.Param(
                0.02 * jax.random.normal(rngs.params(), (grid[0] * grid[1], width))
            )
            names = [f"layer_{i}" for i in range(config.attention_layers)]
            self.layers = nnx.Dict({name: SpatialLayer(config, text, rngs) for name in names})
            self.up1 = ConvTranspose2x2(width, width, rngs)
        self.norm2, self.norm3 = norm(width), norm(2 * fine)
        self.up2 = ConvTranspose2x2(width, 2 * fine, rngs)
        self.conv2 = conv(width, width, rngs, use_bias=False)
        self.conv3 = conv(2 * fine, fine, rngs)
        self.predictor = linear(fine, 1, rngs)
        prior = config.prior_probability
        self.predictor.bias[...] = jnp.full(1, math.log(prior / (1 - prior)), jnp.float32)
        if config.laterals:
            self.lateral8, self.lateral4 = (
                linear(channels[last // 2], width, rngs),
                linear(channels[last // 4], 2 * fine, rngs),
            )
            self.lateral8_norm, self.lateral4_norm = norm(width), norm(2 * fine)
        if text:
            self.text_proj, self.text_norm = (
                linear(text_width, width, rngs),
                layer_norm(width, rngs),
            )
        self.has_text = text
        if memory is not None:
            patch *= 4 if self.match_scale == 4 else 1
            self.match_conv = conv(patch, width, rngs, use_bias=False)
            if self.match_scale == 1:
                self.match_up = ConvTranspose2x2(width, width, rngs)
            self.match_norm = norm(width)
            self.scale, self.offset = nnx.Param(jnp.ones(())), nnx.Param(self.predictor.bias[0])
            self.predictor.kernel[...] = jnp.zeros_like(self.predictor.kernel[...])
            self.predictor.bias[...] = jnp.zeros(1)

    def __call__(self, evidence: Evidence, text: Text | None, train: bool) -> Trunk:
        """Returns the coarse logit, and what the denoiser reads besides it."""
        error, stride8, stride4, match = evidence
        text = (
            Text(self.text_norm(self.text_proj(text.tokens)), text.mask) if self.has_text else None
        )
        matched = None if match is None else _channels(match)
        branches = []
        if self.has_trunk:
            coarse = _shrink(matched, *self.grid) if error is None else error
            x = jax.nn.relu(self.norm1(self.conv1(coarse), train))
            branches.append(self.up1(self._spatial(x, text, train)))
        if matched is not None:
            matched = space_to_depth(matched) if self.match_scale == 4 else matched
            matched = jax.nn.relu(self.match_norm(self.match_conv(matched), train))
            branches.append(self.match_up(matched) if self.match_scale == 1 else matched)
        x = self._add_lateral(sum(branches), stride8, "lateral8", train)
        x = jax.nn.relu(self.norm2(self.conv2(x), train))
        x = self._add_lateral(self.up2(x), stride4, "lateral4", train)
        fine = jax.nn.relu(self.conv3(jax.nn.relu(self.norm3(x, train))))
        return Trunk(self._correction(self.predictor(fine)[..., 0], match), fine, text)

    def _correction(self, delta: jax.Array, match: Match | None) -> Correction:
        if match is None:
            return Correction(delta)
        distance = resize_align_corners(match.distance, *delta.shape[1:])
        return Correction(delta, distance, self.scale[...], self.offset[...])

    def _spatial(self, x, text, train):
        batch, height, width, channels = x.shape
        tokens = x.reshape(batch, height * width, channels)
        position = jnp.broadcast_to(self.position[...][None].astype(x.dtype), tokens.shape)
        for i in range(self.config.attention_layers):
            tokens = self.layers[f"layer_{i}"](tokens, position, text, train)
        return tokens.reshape(x.shape)

    def _add_lateral(self, x, level, name, train):
        if not self.config.laterals:
            return x
        projected = getattr(self, name)(level.astype(x.dtype))
        return x + getattr(self, f"{name}_norm")(projected, train)


def _channels(match: Match) -> jax.Array:
    """[B, h, w, C + 1], bounded, so that no outlier rules BatchNorm's statistics."""
    return jnp.clip(jnp.concatenate([match.residual, match.distance[..., None]], -1), -10, 10)


def _shrink(x: jax.Array, height: int, width: int) -> jax.Array:
    """Averages [B, h, w, C] over whole windows to [B, height, width, C]."""
    batch, rows, columns, channels = x.shape
    blocks = x.reshape(batch, height, rows // height, width, columns // width, channels)
    return blocks.mean((2, 4))
