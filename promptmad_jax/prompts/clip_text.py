"""CLIP's text tower (Radford et al., 2021, arXiv 2103.00020) in Flax, used functionally."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from promptmad_jax.prompts.clip_config import LEGACY_EOS, ClipTextConfig


def quick_gelu(x: jax.Array) -> jax.Array:
    """x * sigmoid(1.702 x)."""
    return x * jax.nn.sigmoid(1.702 * x)


_ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": partial(jax.nn.gelu, approximate=False)}


def _layer_norm(config: ClipTextConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # The fast variance E[x^2] - E[x]^2 loses digits on CLIP's few huge channels.
    return nnx.LayerNorm(config.width, epsilon=config.epsilon, use_fast_variance=False, rngs=rngs)


class CausalAttention(nnx.Module):
    """Multi-head self-attention in which a position sees itself and what stands before it."""

    def __init__(self, config: ClipTextConfig, rngs: nnx.Rngs):
        self.heads = config.heads
        self.query = nnx.Linear(config.width, config.width, rngs=rngs)
        self.key = nnx.Linear(config.width, config.width, rngs=rngs)
        self.value = nnx.Linear(config.width, config.width, rngs=rngs)
        self.out = nnx.Linear(config.width, config.width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, L, D] to [B, L, D]."""
        batch, length, width = x.shape
        split = (batch, length, self.heads, width // self.heads)
        query = self.query(x).reshape(split) * split[-1] ** -0.5
        key, value = self.key(x).reshape(split), self.value(x).reshape(split)
        logits = jnp.einsum("blhd,bmhd->bhlm", query, key)
        causal = jnp.tril(jnp.ones((length, length), bool))
        weights = jax.nn.softmax(jnp.where(causal[None, None], logits, -jnp.inf), axis=-1)
        return self.out(jnp.einsum("bhlm,bmhd->blhd", weights, value).reshape(x.shape))


class Layer(nnx.Module):
    """A pre-norm Transformer layer."""

    def __init__(self, config: ClipTextConfig, rngs: nnx.Rngs):
        self.activation = _ACTIVATIONS[config.activation]
        self.norm1 = _layer_norm(config, rngs)
        self.attention = CausalAttention(config, rngs)
        self.norm2 = _layer_norm(config, rngs)
        self.lin1 = nnx.Linear(config.width, config.hidden, rngs=rngs)
        self.lin2 = nnx.Linear(config.hidden, config.width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(self.norm1(x))
        return x + self.lin2(self.activation(self.lin1(self.norm2(x))))


class ClipText(nnx.Module):
    """Token ids to one vector a text."""

    def __init__(self, config: ClipTextConfig, rngs: nnx.Rngs):
        self.eos_id = config.eos_id
        # Unit-scale embeddings: with CLIP's own 0.02 a tower without training would hardly tell one
        # text from another at the end token. Loaded weights replace them.
        unit = nnx.initializers.normal(1.0)
        self.token_embedding = nnx.Embed(
            config.vocabulary, config.width, embedding_init=unit, rngs=rngs
        )
        self.position_embedding = nnx.Param(unit(rngs.params(), (config.context, config.width)))
        self.layers = nnx.Dict({str(i): Layer(config, rngs) for i in range(config.layers)})
        self.final_norm = _layer_norm(config, rngs)
        self.projection = (
            None
            if config.projection is None
            else nnx.Linear(config.width, config.projection, use_bias=False, rngs=rngs)
        )

    def __call__(self, ids: jax.Array) -> jax.Array:
        """int32 [B, L] to float32 [B, P], not normalised."""
        x = self.token_embedding(ids) + self.position_embedding[...][None, : ids.shape[1]]
        for i in range(len(self.layers)):  # a dict's own order is "0", "1", "10", "11", "2", ...
            x = self.layers[str(i)](x)
        x = self.final_norm(x)
        pooled = x[jnp.arange(x.shape[0]), self._end(ids)]
        return pooled if self.projection is None else self.projection(pooled)

    def _end(self, ids: jax.Array) -> jax.Array:
        """The position of the end token, [B]; what follows it is padding."""
        return jnp.argmax(ids if self.eos_id == LEGACY_EOS else ids == self.eos_id, axis=-1)


def graph_and_shapes(config: ClipTextConfig) -> tuple[nnx.GraphDef, dict]:
    """The tower's graph definition and the nested dict of its parameters' shapes; no memory."""
    graph, state = nnx.split(nnx.eval_shape(lambda: ClipText(config, nnx.Rngs(0))))
    return graph, nnx.to_pure_dict(state)


def random_params(config: ClipTextConfig, key: jax.Array) -> dict:
    """Parameters of an untrained tower, a nested dict of float32 arrays."""
    return nnx.to_pure_dict(nnx.state(ClipText(config, nnx.Rngs(key)), nnx.Param))


@partial(jax.jit, static_argnums=0)
def encode_ids(graph: nnx.GraphDef, params: dict, ids: jax.Array) -> jax.Array:
    """Text vectors [B, P] of token ids int32 [B, L] with L <= the context; not normalised.

    Each id row is `start, tokens ..., end, padding ...`. Matrix products are at full float32
    precision on every device: this runs once a data set.
    """
    with jax.default_matmul_precision("highest"):
        return nnx.merge(graph, params)(ids)
