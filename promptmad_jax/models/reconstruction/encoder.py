"""The encoder of feature tokens that OneNIP, PromptMAD and UniAD share.

Source: OneNIP (ECCV 2024) and UniAD (NeurIPS 2022), as re-specified.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from promptmad_jax.models.layers.attention import Attention
from promptmad_jax.models.layers.basic import Mlp, linear
from promptmad_jax.models.layers.dropout import dropout
from promptmad_jax.models.layers.norm import layer_norm
from promptmad_jax.runtime.field_types import (
    BelowOne,
    Depth,
    NonNegativeFloat,
    Range,
    UnitInterval,
    Width,
)
from promptmad_jax.runtime.key_streams import KeyStreams


@dataclass(frozen=True)
class ReconstructorConfig:
    """The feature reconstructor, an encoder and decoder of tokens; the defaults are OneNIP's.

    Attributes:
        enabled: False leaves the reconstruction out, for a PromptMAD with a memory.
        standardize: rebuild features that are standardised by channel over the training images of
            all classes; otherwise a few channels of large variance rule the loss and the map.
        width: model width D, a multiple of heads.
        heads: attention heads.
        encoder_layers: Transformer layers of the encoder.
        decoder_layers: Transformer layers of the decoder.
        mlp_width: hidden width of the layers' perceptron.
        dropout: dropout rate in training.
        neighbor_size: tokens within neighbor_size // 2 rows and columns are hidden from a query;
            0 means half the grid (7, 8, 10 at 224, 256, 320), as OneNIP. UniAD has 7 at every size.
        jitter_scale: noise of feature jitter, in units of a token's L2 norm over C.
        jitter_probability: probability that a training batch is jittered.
        text_in_decoder: PromptMAD's second attention in every cross-attention of the decoder.
        text_in_prompt: PromptMAD's gated cross-attention of the prompt tokens to the text.
        text_tokens: text tokens that the reconstructor sees, of the normal state or of all. Defect
            words would help it to reproduce defects.
    """

    enabled: bool = True
    standardize: bool = False
    width: Width = 256
    heads: Width = 8
    encoder_layers: Depth = 4
    decoder_layers: Depth = 4
    mlp_width: Width = 1024
    dropout: BelowOne = 0.1
    neighbor_size: Annotated[int, Range(0, 1024)] = 0
    jitter_scale: NonNegativeFloat = 20.0
    jitter_probability: UnitInterval = 1.0
    text_in_decoder: bool = True
    text_in_prompt: bool = True
    text_tokens: Literal["normal", "all"] = "normal"

    def __post_init__(self):
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads} must divide width={self.width}")


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

    def __init__(self, config: ReconstructorConfig, rngs: KeyStreams):
        self.attention = Attention(config.width, config.heads, rngs)
        self.mlp = Mlp(config.width, config.mlp_width, rngs)
        self.norm1, self.norm2 = layer_norm(config.width, rngs), layer_norm(config.width, rngs)
        self.rate = config.dropout

    def __call__(self, x, position, allowed, rngs):
        placed = x + position
        options = {"allowed": allowed, "rate": self.rate, "rngs": rngs, "fused": rngs is None}
        attended = self.attention(placed, placed, x, **options)
        x = self.norm1(x + dropout(attended, self.rate, rngs))
        return self.norm2(x + dropout(self.mlp(x, self.rate, rngs), self.rate, rngs))


class FeatureEncoder(nnx.Module):
    """Features to encoded tokens, and tokens of a subclass's decoder back to features.

    Args:
        config: sizes.
        channels: C of the features.
        grid: (h, w).
    """

    def __init__(
        self, config: ReconstructorConfig, channels: int, grid: tuple[int, int], rngs: KeyStreams
    ):
        self.config, self.grid = config, grid
        width, (rows, columns) = config.width, grid
        self.input_proj = linear(channels, width, rngs)
        self.output_proj = linear(width, channels, rngs)
        self.row_embed = nnx.Param(jax.random.uniform(rngs.params(), (rows, width // 2)))
        self.column_embed = nnx.Param(jax.random.uniform(rngs.params(), (columns, width // 2)))
        names = [f"layer_{i}" for i in range(config.encoder_layers)]
        self.encoder = nnx.Dict({name: EncoderLayer(config, rngs) for name in names})

    def encode(self, features: jax.Array, rngs: KeyStreams | None = None) -> jax.Array:
        """features [B, h, w, C] to tokens [B, N, D]; jitter and dropout where rngs is given."""
        batch, *_, channels = features.shape
        tokens = features.reshape(batch, -1, channels).astype(jnp.float32)
        if rngs is not None:
            tokens = jitter(
                tokens, self.config.jitter_scale, self.config.jitter_probability, rngs.jitter()
            )
        x, allowed = self.input_proj(tokens), self._allowed()
        position = self._position(batch).astype(x.dtype)
        for i in range(self.config.encoder_layers):
            x = self.encoder[f"layer_{i}"](x, position, allowed, rngs)
        return x

    def _features(self, tokens: jax.Array) -> jax.Array:
        """Tokens [B, N, D] to features [B, h, w, C]."""
        features = self.output_proj(tokens).astype(jnp.float32)
        return features.reshape(len(tokens), *self.grid, -1)

    def _position(self, batch: int) -> jax.Array:
        """Returns [B, N, D]: a token's column in the first half of the channels, then its row."""
        rows, columns = self.grid
        row = jnp.broadcast_to(
            self.row_embed[...][:, None], (rows, columns, self.row_embed.shape[1])
        )
        column = jnp.broadcast_to(self.column_embed[...][None], row.shape)
        position = jnp.concatenate([column, row], -1).reshape(1, rows * columns, -1)
        # Broadcast once: where it is added, each addition would sum its gradient over the batch.
        return jnp.broadcast_to(position, (batch, *position.shape[1:]))

    def _allowed(self) -> jax.Array:
        return jnp.asarray(neighbor_allowed(*self.grid, self.config.neighbor_size))[None, None]
