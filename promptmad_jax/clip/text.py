"""CLIP's text tower in Flax, used functionally."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from promptmad_jax.clip.config import LEGACY_EOS, ClipTextConfig
from promptmad_jax.clip.transformer import (
    causal,
    layer_norm,
    make_layers,
    make_projection,
    run_layers,
)
from promptmad_jax.runtime.key_streams import KeyStreams


class ClipText(nnx.Module):
    """Token ids to one vector per text: `embed`, the layers with a causal mask, `pool`."""

    def __init__(self, config: ClipTextConfig, rngs: KeyStreams):
        self.eos_id = config.eos_id
        # Unit-scale embeddings: with CLIP's own 0.02 an untrained tower would hardly tell one text
        # from another at the end token. Loaded weights replace them.
        unit = nnx.initializers.normal(1.0)
        self.token_embedding = nnx.Embed(
            config.vocabulary, config.width, embedding_init=unit, rngs=rngs
        )
        self.position_embedding = nnx.Param(unit(rngs.params(), (config.context, config.width)))
        self.layers = make_layers(config, rngs)
        self.final_norm = layer_norm(config, rngs)
        self.projection = make_projection(config, rngs)

    def __call__(self, ids: jax.Array) -> jax.Array:
        """Token ids, int32 [B, L], to float32 [B, P], not normalised."""
        x, _ = run_layers(self.layers, self.embed(ids), causal(ids.shape[1]))
        return self.pool(x, self.end(ids))

    def embed(self, ids: jax.Array) -> jax.Array:
        """Token ids, int32 [B, L], to tokens with their positions, [B, L, D]."""
        return self.token_embedding(ids) + self.position_embedding[...][None, : ids.shape[1]]

    def end(self, ids: jax.Array) -> jax.Array:
        """The index of the end token, [B]; what follows it is padding."""
        return jnp.argmax(ids if self.eos_id == LEGACY_EOS else ids == self.eos_id, axis=-1)

    def pool(self, x: jax.Array, position: jax.Array) -> jax.Array:
        """States of the last layer [B, L, D] at `position` [B] to vectors [B, P]."""
        pooled = self.final_norm(x[jnp.arange(x.shape[0]), position])
        return pooled if self.projection is None else self.projection(pooled)


@partial(jax.jit, static_argnums=0)
def encode_ids(graph: nnx.GraphDef, params: dict, ids: jax.Array) -> jax.Array:
    """Encodes token ids, int32 [B, L] with L <= the context, as [B, P], not normalised.

    Each row is `start, tokens ..., end, padding ...`. Matrix products are at full float32 precision
    on every device: this runs once per data set.
    """
    with jax.default_matmul_precision("highest"):
        return nnx.merge(graph, params)(ids)
