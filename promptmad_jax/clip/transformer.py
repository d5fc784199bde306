"""The Transformer of both towers of CLIP."""

from functools import cache, partial

import jax
import jax.numpy as jnp
from flax import nnx

from promptmad_jax.clip.config import TowerConfig
from promptmad_jax.clip.deep_prompts import DeepPrompts
from promptmad_jax.runtime.accelerators.attention import Platform, fused_attention
from promptmad_jax.runtime.compute_dtype import set_compute_dtype
from promptmad_jax.runtime.key_streams import KeyStreams


def quick_gelu(x: jax.Array) -> jax.Array:
    """x * sigmoid(1.702 x)."""
    return x * jax.nn.sigmoid(1.702 * x)


_ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": partial(jax.nn.gelu, approximate=False)}


def layer_norm(config: TowerConfig, rngs: KeyStreams) -> nnx.LayerNorm:
    """A LayerNorm of the tower's width and epsilon."""
    # The fast variance E[x^2] - E[x]^2 loses digits on CLIP's few huge channels.
    return nnx.LayerNorm(config.width, epsilon=config.epsilon, use_fast_variance=False, rngs=rngs)


class Attention(nnx.Module):
    """Multi-head self-attention; `platform` is the one that the program is for."""

    def __init__(self, config: TowerConfig, rngs: KeyStreams):
        self.heads, self.platform = config.heads, "cpu"
        self.query = nnx.Linear(config.width, config.width, rngs=rngs)
        self.key = nnx.Linear(config.width, config.width, rngs=rngs)
        self.value = nnx.Linear(config.width, config.width, rngs=rngs)
        self.out = nnx.Linear(config.width, config.width, rngs=rngs)

    def __call__(self, x: jax.Array, allowed: jax.Array | None = None) -> jax.Array:
        """[B, L, D] to [B, L, D]; token i attends to token j where allowed[i, j], bool [L, L]."""
        batch, length, width = x.shape
        split = (batch, length, self.heads, width // self.heads)
        query, key, value = (f(x).reshape(split) for f in (self.query, self.key, self.value))
        if allowed is not None:
            allowed = allowed[None, None]
        if self.platform != "cpu":
            y = fused_attention(query, key, value, allowed, self.platform)
            return self.out(y.reshape(x.shape))
        query = query * split[-1] ** -0.5
        logits = jnp.einsum("blhd,bmhd->bhlm", query, key, preferred_element_type=jnp.float32)
        if allowed is not None:
            logits = jnp.where(allowed, logits, -jnp.inf)
        weights = jax.nn.softmax(logits, axis=-1).astype(x.dtype)
        return self.out(jnp.einsum("bhlm,bmhd->blhd", weights, value).reshape(x.shape))


class Layer(nnx.Module):
    """A pre-norm Transformer layer."""

    def __init__(self, config: TowerConfig, rngs: KeyStreams):
        self.activation = _ACTIVATIONS[config.activation]
        self.norm1 = layer_norm(config, rngs)
        self.attention = Attention(config, rngs)
        self.norm2 = layer_norm(config, rngs)
        self.lin1 = nnx.Linear(config.width, config.hidden, rngs=rngs)
        self.lin2 = nnx.Linear(config.hidden, config.width, rngs=rngs)

    def __call__(self, x: jax.Array, allowed: jax.Array | None = None) -> jax.Array:
        """[B, L, D] to [B, L, D]; `allowed` as in `Attention`."""
        x = x + self.attention(self.norm1(x), allowed)
        return x + self.lin2(self.activation(self.lin1(self.norm2(x))))


def make_layers(config: TowerConfig, rngs: KeyStreams) -> nnx.Dict:
    """A tower's layers under "0", "1", ..., as the weights name them."""
    return nnx.Dict({str(i): Layer(config, rngs) for i in range(config.layers)})


def make_projection(config: TowerConfig, rngs: KeyStreams) -> nnx.Linear | None:
    """The projection into the space shared by images and texts, if the tower has one."""
    if config.projection is not None:
        return nnx.Linear(config.width, config.projection, use_bias=False, rngs=rngs)
    return None


def run_layers(
    layers: nnx.Dict,
    x: jax.Array,
    allowed: jax.Array | None = None,
    taps: tuple[int, ...] = (),
    deep: DeepPrompts | None = None,
    remat: bool = False,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Applies the layers one after the other.

    Args:
        x: [B, L, D].
        allowed: as in `Attention`; with `deep` it covers its tokens too.
        taps: layers whose output is kept, counted from 1; 0 is `x` itself.
        deep: n further tokens in each layer, behind the first token.
        remat: recompute the inside of a layer in the backward pass, to save memory.

    Returns:
        The output of the last layer and those of `taps`, in their order; each [B, L, D], with
        `deep` [B, L + n, D].
    """
    states = [x]
    for number in range(len(layers)):
        x = states[-1] if deep is None else deep.enter(number, states[-1])
        layer = layers[str(number)]  # the dict's own order is "0", "1", "10", ...
        states.append((jax.checkpoint(layer) if remat else layer)(x, allowed))
    return states[-1], tuple(states[tap] for tap in taps)


def causal(length: int) -> jax.Array:
    """The causal mask, bool [L, L]: a token sees itself and those before it."""
    return jnp.tril(jnp.ones((length, length), bool))


@cache
def graph_and_shapes(
    tower: type[nnx.Module],
    config: TowerConfig,
    platform: Platform = "cpu",
    dtype: str = "float32",
) -> tuple[nnx.GraphDef, dict]:
    """A tower's graph definition and its parameters' shapes, a nested dict shared by all calls.

    Args:
        platform: that its programs are for.
        dtype: that its layers compute in; "float32" leaves it to their inputs and parameters.
    """
    model = nnx.eval_shape(lambda: tower(config, KeyStreams(0)))
    model.set_attributes(Attention, platform=platform)
    graph, state = nnx.split(set_compute_dtype(model, dtype))
    return graph, nnx.to_pure_dict(state)


def random_params(tower: type[nnx.Module], config: TowerConfig, key: jax.Array) -> dict:
    """Parameters of an untrained tower, a nested dict of float32 arrays."""
    return nnx.to_pure_dict(nnx.state(tower(config, KeyStreams(key)), nnx.Param))
