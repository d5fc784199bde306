"""Token ids to the unit vectors of the states."""

import jax
import jax.numpy as jnp
from jax.sharding import Sharding

from promptmad_jax.clip.deep_prompts import DeepPrompts
from promptmad_jax.clip.text import ClipText
from promptmad_jax.clip.transformer import causal, run_layers
from promptmad_jax.models.functional import Params
from promptmad_jax.models.zero_shot.config import DapoConfig
from promptmad_jax.models.zero_shot.prompts import PromptTokens
from promptmad_jax.models.zero_shot.similarity import unit

_CHUNK = 64  # written phrases that pass the tower at once; their number may be in the thousands


def learnt_states(
    tower: ClipText,
    params: Params,
    tokens: PromptTokens,
    config: DapoConfig,
    spread: Sharding | None = None,
) -> jax.Array:
    """States [K + 1, d]: the mean of each state's E prompts, scaled to length 1.

    Args:
        params: `normal` and `abnormal` [E, l, D], `deep` [layers, n, D] where there are any.
        spread: of the prompts over the devices.
    """
    x = _embed(tower, params, jnp.asarray(tokens.ids))
    states, prompts, length, width = x.shape
    deep = DeepPrompts(params["deep"], config.alpha) if config.text_tokens else None
    allowed = None if config.compat else causal(length + config.text_tokens)
    x = x.reshape(states * prompts, length, width)
    if spread is not None:
        x = jax.lax.with_sharding_constraint(x, spread)
    x, _ = run_layers(tower.layers, x, allowed, deep=deep, remat=config.remat)
    end = jnp.asarray(tokens.end) + (0 if config.compat else config.text_tokens)
    pooled = tower.pool(x, jnp.repeat(end, prompts, total_repeat_length=states * prompts))
    return unit(pooled.astype(jnp.float32).reshape(states, prompts, -1).mean(1))


def _embed(tower: ClipText, params: Params, ids: jax.Array) -> jax.Array:
    """[K + 1, E, L, D]: the learnt tokens behind the start token, the words, positions on all."""
    states, length = ids.shape
    prompts, room, _ = params["normal"].shape
    abnormal = jnp.broadcast_to(params["abnormal"][None], (states - 1, *params["abnormal"].shape))
    learnt = jnp.concatenate([params["normal"][None], abnormal])
    words = tower.token_embedding(ids)[:, None]
    words = jnp.broadcast_to(words, (states, prompts, *words.shape[2:]))
    x = jnp.concatenate([words[:, :, :1], learnt, words[:, :, 1 + room :]], axis=2)
    return x + tower.position_embedding[...][None, None, :length]


def written_states(tower: ClipText, tokens: PromptTokens) -> jax.Array:
    """States [K + 1, d]: the mean of each state's unit phrase vectors, scaled to length 1."""

    def encode(text):
        ids, end = text
        x, _ = run_layers(tower.layers, tower.embed(ids[None]), causal(len(ids)))
        return tower.pool(x, end[None])[0].astype(jnp.float32)

    texts = (jnp.asarray(tokens.ids), jnp.asarray(tokens.end))
    vectors = unit(jax.lax.map(encode, texts, batch_size=_CHUNK))
    return unit(
        jnp.einsum(
            "sr,rd->sd", jnp.asarray(tokens.shares), vectors, precision=jax.lax.Precision.HIGHEST
        )
    )
