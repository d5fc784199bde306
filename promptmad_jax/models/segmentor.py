"""PromptMAD's text-guided segmentor: coarse map, then a denoiser for its diffusion refinement."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from promptmad_jax.models.attention import CrossAttention, Text
from promptmad_jax.models.convolution import convolve, convolve_narrow
from promptmad_jax.models.folding import depth_to_space, fold
from promptmad_jax.models.layers import (
    BatchNorm,
    ConvTranspose2x2,
    GroupNorm,
    Mlp,
    conv,
    layer_norm,
    linear,
)


@dataclass(frozen=True)
class SegmentorConfig:
    """Sizes of the segmentor; PromptMAD's publication gives none, so all are ours.

    Attributes:
        width: channels at strides 16 and 8.
        fine_width: channels at stride 4, twice as many before the last convolution.
        laterals: add 1x1 convolutions of the frozen backbone's strides 8 and 4.
        attention_layers, heads: the Transformer on the stride-16 grid; 0 layers leave it out.
        text: the Transformer's cross-attention to the text tokens, and the text in the denoiser.
        norm_group: images that share BatchNorm statistics, 0 all.
        prior_probability: the coarse head's probability at the start (Lin et al., 2017).
        denoiser_width, denoiser_deep_width: channels of the denoiser's two levels.
        residual: the denoiser predicts a correction of the coarse logit (objective x0 only).
        fine_pass: images whose stride-4 maps inference makes at once, at most; 0 leaves it to the
            platform.
    """

    width: int = 128
    fine_width: int = 32
    laterals: bool = True
    attention_layers: int = 1
    heads: int = 8
    text: bool = True
    norm_group: int = 0
    prior_probability: float = 0.01
    denoiser_width: int = 8
    denoiser_deep_width: int = 16
    residual: bool = True
    fine_pass: int = 0


class SpatialLayer(nnx.Module):
    """Pre-norm Transformer layer on the grid: self-attention, attention to the text, MLP."""

    def __init__(self, config: SegmentorConfig, text: bool, rngs: nnx.Rngs):
        width = config.width
        self.norm1, self.norm2 = layer_norm(width, rngs), layer_norm(width, rngs)
        self.attention = CrossAttention(width, config.heads, rngs)
        self.mlp = Mlp(width, 2 * width, rngs, jax.nn.gelu)
        self.text = text
        if text:
            self.text_norm = layer_norm(width, rngs)
            self.text_attention = CrossAttention(width, config.heads, rngs)

    def __call__(self, x, position, text: Text | None):
        y = self.norm1(x) + position
        x = x + self.attention(y, Text(y, None))
        if self.text:
            x = x + self.text_attention(self.text_norm(x) + position, text)
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
        rngs: nnx.Rngs,
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
        x, text = self.to_stride8(error, stride8, text, train)
        return Trunk(*self.to_stride4(x, stride4, train), text)

    def to_stride8(self, error, stride8, text, train) -> tuple[jax.Array, Text | None]:
        """The first half: [B, 2h, 2w, width], and the projected tokens."""
        text = (
            Text(self.text_norm(self.text_proj(text.tokens)), text.mask) if self.has_text else None
        )
        x = jax.nn.relu(self.norm1(self.conv1(error), train))
        x = self._spatial(x, text)
        x = self._add_lateral(self.up1(x), stride8, "lateral8", train)
        return jax.nn.relu(self.norm2(self.conv2(x), train)), text

    def to_stride4(self, x, stride4, train) -> tuple[jax.Array, jax.Array]:
        """The second half: logit [B, 4h, 4w] and fine [B, 4h, 4w, fine_width]."""
        x = self._add_lateral(self.up2(x), stride4, "lateral4", train)
        fine = jax.nn.relu(self.conv3(jax.nn.relu(self.norm3(x, train))))
        return self.predictor(fine)[..., 0], fine

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


def time_embedding(t: jax.Array, width: int = 32) -> jax.Array:
    """Sines and cosines of t [B], [B, width]; wavelengths from 2 pi to about 600 steps."""
    frequency = jnp.exp(-jnp.linspace(0.0, jnp.log(100.0), width // 2))
    angle = t[:, None].astype(jnp.float32) * frequency[None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)


class Film(NamedTuple):
    """A block's modulation: x (1 + scale) + shift, both [B, C]."""

    scale: jax.Array
    shift: jax.Array


class FilmBlock(nnx.Module):
    """GroupNorm, scale and shift, SiLU, 3x3 convolution."""

    def __init__(
        self, features_in: int, features_out: int, condition: int, rngs: nnx.Rngs, strides: int = 1
    ):
        self.norm = GroupNorm(features_in)
        self.film = linear(condition, 2 * features_in, rngs)
        self.conv = conv(features_in, features_out, rngs, strides=strides)

    def modulation(self, condition: jax.Array) -> Film:
        """Scale and shift that follow from the condition [B, 128]."""
        # Cutting the weights, not their product: XLA's CPU loops over pixels are four times slower
        # with a slice inside.
        kernels = jnp.split(self.film.kernel[...], 2, axis=1)
        biases = jnp.split(self.film.bias[...], 2)
        return Film(
            *(condition @ kernel + bias[None] for kernel, bias in zip(kernels, biases, strict=True))
        )

    def __call__(self, x: jax.Array, film: Film) -> jax.Array:
        scale, shift = self.norm.affine(x)
        scale, shift = scale * (1 + film.scale), shift * (1 + film.scale) + film.shift
        return self.conv(jax.nn.silu(x * scale[:, None, None, :] + shift[:, None, None, :]))


class Condition(NamedTuple):
    """What t does not change: static [B, 2h, 2w, W], text [B, 128] or None, and the coarse logit,
    folded [B, 2h, 2w, 4]."""

    static: jax.Array
    text: jax.Array | None
    logit: jax.Array


class Films(NamedTuple):
    """What time and text do to the denoiser's three blocks."""

    down: Film
    middle: Film
    merge: Film


class Denoiser(nnx.Module):
    """A two-level U-Net on the stride-4 map folded to stride 8, FiLM by time and pooled text."""

    def __init__(self, config: SegmentorConfig, rngs: nnx.Rngs, text: bool, residual: bool):
        width, deep, hidden = config.denoiser_width, config.denoiser_deep_width, 128
        self.residual = residual
        self.conv_static = conv(4 * (config.fine_width + 1), width, rngs)
        self.conv_in = conv(4, width, rngs, use_bias=False)
        self.time1, self.time2 = linear(32, hidden, rngs), linear(hidden, hidden, rngs)
        if text:
            self.text_proj = linear(config.width, hidden, rngs)
        self.down = FilmBlock(width, deep, hidden, rngs, strides=2)
        self.middle = FilmBlock(deep, deep, hidden, rngs)
        self.up = linear(deep, 4 * width, rngs)
        self.merge = FilmBlock(width, width, hidden, rngs)
        self.norm_out = GroupNorm(width)
        self.predictor = linear(width, 4, rngs)
        self.predictor.kernel[...] = jnp.zeros_like(self.predictor.kernel[...])

    def condition(self, trunk: Trunk) -> Condition:
        """Everything that is the same in all steps; the inputs are detached."""
        logit, fine, text = jax.lax.stop_gradient(trunk)
        return Condition(self.static(logit, fine), self.pool(text), fold(logit))

    def static(self, logit: jax.Array, fine: jax.Array) -> jax.Array:
        """`Condition.static` of a trunk's maps: of [fine, tanh(logit / 4)] folded to stride 8.

        A 3x3 convolution of folded maps is one of 6x6 with stride 2, for which the many channels of
        `fine` need not be folded.
        """
        width, outputs = fine.shape[-1], self.conv_static.out_features
        kernel = self.conv_static.kernel[...].reshape(3, 3, 2, 2, width + 1, outputs)
        of_fine, of_logit = kernel[..., :width, :], kernel[..., width, :]
        unfolded = of_fine.transpose(0, 2, 1, 3, 4, 5).reshape(6, 6, width, outputs)
        x = convolve(fine, unfolded, 2, ((2, 2), (2, 2)), "conv")
        level = fold(jnp.tanh(logit / 4))
        x = x + convolve_narrow(level, of_logit.reshape(3, 3, 4, outputs))
        return x + self.conv_static.bias[...][None, None, None, :]

    def pool(self, text: Text | None) -> jax.Array | None:
        """`Condition.text` of a trunk's tokens."""
        if text is None:
            return None
        weight = text.mask / text.mask.sum(1, keepdims=True)
        return self.text_proj(jnp.einsum("btd,bt->bd", text.tokens, weight))

    def films(self, t: jax.Array, text: jax.Array | None) -> Films:
        """Of steps t [B] and of `Condition.text`."""
        film = self.time2(jax.nn.silu(self.time1(time_embedding(t))))
        if text is not None:
            film = film + text
        film = jax.nn.silu(film)
        return Films(*(block.modulation(film) for block in (self.down, self.middle, self.merge)))

    def __call__(self, x_t: jax.Array, films: Films, condition: Condition) -> jax.Array:
        """x_t folded [B, 2h, 2w, 4] to the prediction, folded [B, 2h, 2w, 4]."""
        x = condition.static + convolve_narrow(x_t, self.conv_in.kernel[...])
        deep = self.middle(self.down(x, films.down), films.middle)
        x = x + depth_to_space(self.up(deep))
        x = x + self.merge(x, films.merge)
        delta = self.predictor(jax.nn.silu(self.norm_out(x)))
        return condition.logit + delta if self.residual else delta
