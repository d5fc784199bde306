"""The diffusion's denoiser, conditioned on the coarse map and its step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from promptmad_jax.models.layers.attention import Text
from promptmad_jax.models.layers.basic import (
    GroupNorm,
    conv,
    linear,
)
from promptmad_jax.models.layers.convolution import convolve, convolve_narrow
from promptmad_jax.models.layers.pixel_shuffle import depth_to_space, fold
from promptmad_jax.models.reconstruction.segmentor import SegmentorConfig, Trunk


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
