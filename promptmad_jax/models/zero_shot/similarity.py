"""Cosines of features and states to maps and scores."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from promptmad_jax.models.layers.resize import resize_align_corners
from promptmad_jax.models.zero_shot.config import DapoConfig

_TINY = 1e-24


class ImageFeatures(NamedTuple):
    """Unit vectors of a batch in the space of the texts.

    Attributes:
        patches: of each tap [B, N, d], row by row of a square grid.
        image: [B, d].
    """

    patches: tuple[jax.Array, ...]
    image: jax.Array


class States(NamedTuple):
    """Unit vectors of the states for each image, [B, K + 1, d], and which count, [B, K + 1]."""

    vectors: jax.Array
    allowed: jax.Array


def unit(x: jax.Array) -> jax.Array:
    """Scales the last axis to length 1; zeros stay zeros."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), _TINY))


def states_for(vectors: jax.Array, allowed: jax.Array | None, batch: int) -> States:
    """States of every image of a batch.

    Args:
        vectors: [K + 1, d] for all images, or [B, K + 1, d].
        allowed: bool [K + 1] or [B, K + 1], false for states that an image cannot have; None for
            all. The normal state and one other must be allowed.
    """
    if allowed is None:
        allowed = jnp.ones(vectors.shape[-2], bool)
    return States(_for_each(vectors, 3, batch), _for_each(jnp.asarray(allowed), 2, batch))


def _for_each(x: jax.Array, ndim: int, batch: int) -> jax.Array:
    return x if x.ndim == ndim else jnp.broadcast_to(x[None], (batch, *x.shape))


def pair(states: States) -> States:
    """The normal state, and the mean of the allowed abnormal ones scaled to length 1: [B, 2, d]."""
    with jax.default_matmul_precision("highest"):
        abnormal = jnp.einsum(
            "bkd,bk->bd", states.vectors[:, 1:], states.allowed[:, 1:].astype(jnp.float32)
        )
    vectors = jnp.stack([states.vectors[:, 0], unit(abnormal)], axis=1)
    return States(vectors, jnp.ones(vectors.shape[:2], bool))


def image_logits(image: jax.Array, states: States, temperature: float) -> jax.Array:
    """Cosines over the temperature, [B, d] to [B, K + 1]; those not allowed are -inf."""
    with jax.default_matmul_precision("highest"):
        cosines = jnp.einsum("bd,bkd->bk", image, states.vectors)
    return jnp.where(states.allowed, cosines / temperature, -jnp.inf)


def tap_maps(patches: jax.Array, states: States, config: DapoConfig, size: int) -> jax.Array:
    """Probabilities of the states from the patches of one tap: [B, N, d] to [B, size, size, K + 1].

    At `size` = the grid's side nothing is enlarged.
    """
    batch, count, _ = patches.shape
    side = round(count**0.5)
    with jax.default_matmul_precision("highest"):
        logits = jnp.einsum("bnd,bkd->bnk", patches, states.vectors) / config.temperature
        logits = logits.reshape(batch, side, side, -1)
        if config.softmax_first:
            return resize_align_corners(_softmax(logits, states.allowed), size, size)
        return _softmax(resize_align_corners(logits, size, size), states.allowed)


def _softmax(logits: jax.Array, allowed: jax.Array) -> jax.Array:
    """Over the last axis of [B, H, W, K + 1]; 0 where a state is not allowed."""
    where = jnp.broadcast_to(allowed[:, None, None], logits.shape)
    return jax.nn.softmax(logits, axis=-1, where=where)


def mean_maps(
    patches: tuple[jax.Array, ...], states: States, config: DapoConfig, size: int
) -> jax.Array:
    """The mean of `tap_maps` over the taps."""
    if not config.softmax_first:
        return sum(tap_maps(tap, states, config, size) for tap in patches) / len(patches)
    # Enlarging is linear: once, after the mean, does for all taps.
    side = round(patches[0].shape[1] ** 0.5)
    mean = sum(tap_maps(tap, states, config, side) for tap in patches) / len(patches)
    with jax.default_matmul_precision("highest"):
        return resize_align_corners(mean, size, size)
