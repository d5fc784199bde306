"""The prompt-based feature reconstructor of OneNIP, optionally guided by text (PromptMAD).

Source: OneNIP (ECCV 2024), as re-specified; the published description and released behaviour
agree on what is here. Shapes: B images, N = h * w tokens, C feature channels, D model width.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from promptmad_jax.models.attention import Attention, CrossAttention, Text
from promptmad_jax.models.layers import Mlp, dropout, layer_norm, linear


@dataclass(frozen=True)
class ReconstructorConfig:
    """Sizes and regularisation of the reconstructor; the defaults are OneNIP's.

    Attributes:
        width: D, a multiple of heads.
        neighbor_size: tokens within neighbor_size // 2 rows and columns are hidden from a query;
            0 means half the grid (7, 8, 10 at 224, 256, 320), as OneNIP.
        jitter_scale: noise of feature jitter, in units of a token's L2 norm over C.
        jitter_probability: chance that a training batch is jittered.
        text_in_decoder: PromptMAD's second attention in every cross-attention of the decoder.
        text_in_prompt: PromptMAD's gated cross-attention of the prompt tokens to the text.
        text_tokens: which text tokens the reconstructor sees, "normal" or "all". Defect words
            would help it to reproduce defects.
    """

    width: int = 256
    heads: int = 8
    encoder_layers: int = 4
    decoder_layers: int = 4
    mlp_width: int = 1024
    dropout: float = 0.1
    neighbor_size: int = 0
    jitter_scale: float = 20.0
    jitter_probability: float = 1.0
    text_in_decoder: bool = True
    text_in_prompt: bool = True
    text_tokens: str = "normal"


def neighbor_allowed(height: int, width: int, neighbor_size: int) -> np.ndarray:
    """Returns bool [N, N], true where a query may attend: outside the window around itself."""
    size = neighbor_size or height // 2
    row, column = np.divmod(np.arange(height * width), width)
    near_rows = np.abs(row[:, None] - row[None]) <= size // 2
    near_columns = np.abs(column[:, None] - column[None]) <= size // 2
    return ~(near_rows & near_columns)


def jitter(tokens: jax.Array, scale: float, probability: float, key: jax.Array) -> jax.Array:
    """Adds normal noise of standard deviation scale * ||token|| / C to tokens [B, N, C].

    One draw decides for the whole batch.
    """
    coin, noise = jax.random.split(key)
    norm = jnp.linalg.norm(tokens, axis=-1, keepdims=True)
    amount = norm * (scale / tokens.shape[-1]) * jax.random.bernoulli(coin, probability)
    return tokens + amount * jax.random.normal(noise, tokens.shape)


class EncoderLayer(nnx.Module):
    """Post-norm self-attention and MLP."""

    def __init__(self, config: ReconstructorConfig, rngs: nnx.Rngs):
        self.attention = Attention(config.width, config.heads, rngs)
        self.mlp = Mlp(config.width, config.mlp_width, rngs)
        self.norm1, self.norm2 = layer_norm(config.width, rngs), layer_norm(config.width, rngs)
        self.rate = config.dropout

    def __call__(self, x, position, allowed, rngs):
        placed = x + position
        attended = self.attention(placed, placed, x, allowed=allowed, rate=self.rate, rngs=rngs)
        x = self.norm1(x + dropout(attended, self.rate, rngs))
        return self.norm2(x + dropout(self.mlp(x, self.rate, rngs), self.rate, rngs))


class DecoderLayer(nnx.Module):
    """Bidirectional: the prompt attends to the image, then the image to the updated prompt."""

    def __init__(self, config: ReconstructorConfig, text: bool, rngs: nnx.Rngs):
        self.prompt_to_image = Attention(config.width, config.heads, rngs, text_gate=text)
        self.image_to_prompt = Attention(config.width, config.heads, rngs, text_gate=text)
        self.mlp = Mlp(config.width, config.mlp_width, rngs)
        self.norm1, self.norm2, self.norm3 = (layer_norm(config.width, rngs) for _ in range(3))
        self.rate = config.dropout

    def __call__(self, prompt, image, position, allowed, text, rngs):
        options = {"allowed": allowed, "text": text, "rate": self.rate, "rngs": rngs}
        attended = self.prompt_to_image(prompt + position, image + position, image, **options)
        prompt = self.norm1(prompt + dropout(attended, self.rate, rngs))
        prompt = self.norm2(prompt + dropout(self.mlp(prompt), self.rate, rngs))
        attended = self.image_to_prompt(image + position, prompt + position, prompt, **options)
        return prompt, self.norm3(image + dropout(attended, self.rate, rngs))


class Reconstructor(nnx.Module):
    """Rebuilds an image's features from a normal prompt image of its class.

    Args:
        config: sizes.
        channels: C of the features.
        grid: (h, w).
        text_width: width d of the text tokens; 0 builds OneNIP, without any text.
    """

    def __init__(
        self,
        config: ReconstructorConfig,
        channels: int,
        grid: tuple[int, int],
        text_width: int,
        rngs: nnx.Rngs,
    ):
        self.config, self.grid = config, grid
        width, (rows, columns) = config.width, grid
        self.input_proj = linear(channels, width, rngs)
        self.output_proj = linear(width, channels, rngs)
        self.row_embed = nnx.Param(jax.random.uniform(rngs.params(), (rows, width // 2)))
        self.column_embed = nnx.Param(jax.random.uniform(rngs.params(), (columns, width // 2)))
        names = [f"layer_{i}" for i in range(config.encoder_layers)]
        self.encoder = nnx.Dict({name: EncoderLayer(config, rngs) for name in names})
        in_decoder = bool(text_width) and config.text_in_decoder
        names = [f"layer_{i}" for i in range(config.decoder_layers)]
        self.decoder = nnx.Dict({name: DecoderLayer(config, in_decoder, rngs) for name in names})
        self.final_attention = Attention(width, config.heads, rngs, text_gate=in_decoder)
        self.final_norm = layer_norm(width, rngs)
        self.has_text = bool(text_width)
        self.text_in_prompt = bool(text_width) and config.text_in_prompt
        if self.has_text:
            self.text_proj, self.text_norm = (
                linear(text_width, width, rngs),
                layer_norm(width, rngs),
            )
        if self.text_in_prompt:
            self.prompt_text_attention = CrossAttention(width, config.heads, rngs)
            self.prompt_text_gate = nnx.Param(jnp.zeros(()))

    def encode(self, features: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """features [B, h, w, C] to tokens [B, N, D]; jitter and dropout where rngs is given."""
        batch, *_, channels = features.shape
        tokens = features.reshape(batch, -1, channels).astype(jnp.float32)
        if rngs is not None:
            tokens = jitter(
                tokens, self.config.jitter_scale, self.config.jitter_probability, rngs.jitter()
            )
        x, position, allowed = self.input_proj(tokens), self._position(), self._allowed()
        for i in range(self.config.encoder_layers):
            x = self.encoder[f"layer_{i}"](x, position, allowed, rngs)
        return x

    def fuse_prompt(self, prompt: jax.Array, text: Text | None) -> jax.Array:
        """Adds what the prompt tokens [B, N, D] read in the text; the end of what a bank caches."""
        if not self.text_in_prompt:
            return prompt
        read = self.prompt_text_attention(prompt, self._project(text))
        return prompt + jnp.tanh(self.prompt_text_gate[...]) * read

    def decode(
        self, prompt: jax.Array, image: jax.Array, text: Text | None, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """Tokens of the prompt and the image, both [B, N, D], to features [B, h, w, C]."""
        text = self._project(text) if self.has_text else None
        position, allowed = self._position(), self._allowed()
        for i in range(self.config.decoder_layers):
            prompt, image = self.decoder[f"layer_{i}"](prompt, image, position, allowed, text, rngs)
        attended = self.final_attention(
            prompt + position,
            image + position,
            image,
            text=text,
            rate=self.config.dropout,
            rngs=rngs,
        )
        tokens = self.final_norm(prompt + dropout(attended, self.config.dropout, rngs))
        return self.output_proj(tokens).reshape(image.shape[0], *self.grid, -1)

    def _project(self, text: Text) -> Text:
        tokens, mask = text
        if self.config.text_tokens == "normal":
            tokens, mask = tokens[:, :1], mask[:, :1]
        return Text(self.text_norm(self.text_proj(tokens)), mask)

    def _position(self) -> jax.Array:
        rows, columns = self.grid
        row = jnp.broadcast_to(
            self.row_embed[...][:, None], (rows, columns, self.row_embed.shape[1])
        )
        column = jnp.broadcast_to(self.column_embed[...][None], row.shape)
        return jnp.concatenate([column, row], -1).reshape(1, rows * columns, -1)

    def _allowed(self) -> jax.Array:
        return jnp.asarray(neighbor_allowed(*self.grid, self.config.neighbor_size))
