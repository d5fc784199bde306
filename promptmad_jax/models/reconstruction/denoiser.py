"""The diffusion's denoiser, conditioned on the coarse map, the step and the text."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from promptmad_jax.models.layers.attention import Text
from promptmad_jax.models.layers.basic import conv, linear
from promptmad_jax.models.layers.norm import GroupNorm
from promptmad_jax.models.layers.pixel_shuffle import depth_to_space, space_to_depth
from promptmad_jax.models.reconstruction.correction import Correction
from promptmad_jax.models.reconstruction.segmentor import SegmentorConfig, Trunk
from promptmad_jax.runtime.key_streams import KeyStreams


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
        self,
        features_in: int,
        features_out: int,
        condition: int,
        rngs: KeyStreams,
        strides: int = 1,
    ):
        self.norm = GroupNorm(features_in)
        self.film = linear(condition, 2 * features_in, rngs)
        self.conv = conv(features_in, features_out, rngs, strides=strides)

    def modulation(self, condition: jax.Array) -> Film:
        """Scale and shift from the condition [B, 128]."""
        # The weights are split, not their product: a slice inside a loop over pixels keeps XLA's
        # CPU backend from vectorising it, which takes four times as long.
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
    """Inputs that are the same at every step.

    Attributes:
        static: [B, 2h, 2w, width], the first convolution of the fine maps and the coarse map.
        text: [B, 128], the pooled text tokens, or None.
        coarse: the coarse logit, folded.
    """

    static: jax.Array
    text: jax.Array | None
    coarse: Correction


class Films(NamedTuple):
    """Modulations of the denoiser's three blocks, by time and text."""

    down: Film
    middle: Film
    merge: Film


class Denoiser(nnx.Module):
    """A two-level U-Net on the folded map, FiLM by time and pooled text."""

    float32_layers = ("predictor",)

    def __init__(self, config: SegmentorConfig, rngs: KeyStreams, text: bool, residual: bool):
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
        """The condition of a segmentor's results, through which no gradient passes."""
        coarse, fine, text = jax.lax.stop_gradient(trunk)
        maps = jnp.concatenate([fine, jnp.tanh(coarse.logit() / 4)[..., None]], -1)
        static = self.conv_static(space_to_depth(maps))
        return Condition(static, self._pool(text), coarse.folded())

    def _pool(self, text: Text | None) -> jax.Array | None:
        if text is None:
            return None
        weight = text.mask / text.mask.sum(1, keepdims=True)
        return self.text_proj(jnp.einsum("btd,bt->bd", text.tokens, weight))

    def films(self, t: jax.Array, text: jax.Array | None) -> Films:
        """Modulations at steps t [B] with `Condition.text`."""
        film = self.time2(jax.nn.silu(self.time1(time_embedding(t))))
        if text is not None:
            film = film + text
        film = jax.nn.silu(film)
        return Films(*(block.modulation(film) for block in (self.down, self.middle, self.merge)))

    def __call__(self, x_t: jax.Array, films: Films, condition: Condition) -> jax.Array:
        """Folded x_t [B, 2h, 2w, 4] to the folded prediction [B, 2h, 2w, 4]."""
        x = condition.static + self.conv_in(x_t)
        deep = self.middle(self.down(x, films.down), films.middle)
        x = x + depth_to_space(self.up(deep))
        x = x + self.merge(x, films.merge)
        delta = self.predictor(jax.nn.silu(self.norm_out(x)))
        return condition.coarse.plus(delta).logit() if self.residual else delta
