"""Multi-head attention, with an optional gated branch to text tokens."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from promptmad_jax.models.layers.basic import dense_product, drop, dropout_seed, linear
from promptmad_jax.runtime.cpu.chunking import chunk_size


class Text(NamedTuple):
    """Text tokens of each sample's class.

    Attributes:
        tokens: [B, T, d], token 0 the normal state, then one a defect type, padded.
        mask: bool [B, T], true where there is a token; None where there is no padding.
    """

    tokens: jax.Array
    mask: jax.Array | None


def _transposed(x):
    return x.swapaxes(-1, -2)


@jax.custom_vjp
def score(query: jax.Array, key: jax.Array) -> jax.Array:
    """query [..., N, d] times key [..., M, d] transposed.

    As `matmul`, and as in `read` the gradients are written so that only what is N or M times d is
    transposed and nothing of N x M: an eighth less time for an attention's gradient on a CPU.
    """
    return jnp.matmul(query, _transposed(key))


def _score_forward(query, key):
    return score(query, key), (query, key)


def _score_backward(kept, gradient):
    query, key = kept
    return jnp.matmul(gradient, key), _transposed(jnp.matmul(_transposed(query), gradient))


score.defvjp(_score_forward, _score_backward)


@jax.custom_vjp
def read(weights: jax.Array, value: jax.Array) -> jax.Array:
    """weights [..., N, M] times value [..., M, d]; see `score`."""
    return jnp.matmul(weights, value)


def _read_forward(weights, value):
    return read(weights, value), (weights, value)


def _read_backward(kept, gradient):
    weights, value = kept
    to_weights = jnp.matmul(gradient, _transposed(value))
    return to_weights, _transposed(jnp.matmul(_transposed(gradient), weights))


read.defvjp(_read_forward, _read_backward)

# Finite, so that a masked logit costs an addition; exp of it is exactly zero.
_BLOCKED = -1e9


def attend(
    query, key, value, allowed, rate: float, rngs: nnx.Rngs | None, most: int = 0
) -> jax.Array:
    """Scaled dot-product attention.

    Args:
        query: [B, N, heads, d]. key, value: [B, M, heads, d].
        allowed: bool, broadcastable to [B, heads, N, M] and of rank 4, or None. Every query must be
            allowed some key.
        rate: dropout of the probabilities, drawn from `rngs`; none where rngs is None.
        most: with dropout, so many images at a time that there are no more weights than this at
            once, at least one; 0 takes all.

    Returns:
        [B, N, heads, d]. The softmax is in float32.
    """
    dropping = rngs is not None and rate > 0
    if key.shape[1] == 1 and not dropping:
        return jnp.broadcast_to(value, query.shape)  # The softmax of one logit is 1.
    if dropping:
        return _attend_dropping(query, key, value, allowed, dropout_seed(rngs), rate, most)
    query, key, value = _by_head(query, key, value)
    logits = score(query, key).astype(jnp.float32)
    if allowed is not None:
        # As many numbers as logits, since a CPU's library adds no broadcast. Made of a constant
        # alone they would come first of all and be there while the backbone runs.
        anything = jax.lax.stop_gradient(query[:, :1, :1, :1]).astype(jnp.float32)
        blocked = jnp.minimum(_BLOCKED, anything)
        logits = logits + jnp.where(allowed, 0.0, blocked)
    # Dividing what was read, N x d, in place of the N x M weights: a third less time on a CPU.
    weights = jnp.exp(logits - logits.max(-1, keepdims=True))
    y = read(weights.astype(value.dtype), value) / weights.sum(-1, keepdims=True)
    return y.astype(value.dtype).swapaxes(1, 2)


def _by_head(query, key, value):
    return (x.swapaxes(1, 2) for x in (query * query.shape[-1] ** -0.5, key, value))


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _attend_dropping(query, key, value, allowed, seed, rate, most):
    """`attend` with dropout, whose gradient keeps no weights.

    The weights are computed again, and the gradient through the softmax takes <g, y>, N x d, in
    place of a sum over N x M: as in FlashAttention (Dao et al., 2022). On a CPU that happens a few
    images at a time, so that everything stays in its caches.
    """
    return _attend_dropping_forward(query, key, value, allowed, seed, rate, most)[0]


def _attend_dropping_forward(query, key, value, allowed, seed, rate, most):
    def part(query, key, value, start):
        query, key, value = _by_head(query, key, value)
        logits = _masked(score(query, key), allowed)
        highest = logits.max(-1, keepdims=True)
        weights = jnp.exp(logits - highest)
        total = weights.sum(-1, keepdims=True)
        y = read(drop(weights, rate, seed, start).astype(value.dtype), value) / total
        return y.astype(value.dtype).swapaxes(1, 2), highest, total

    y, highest, total = _in_passes(part, allowed, most, query, key, value)
    return y, (query, key, value, allowed, seed, y, highest, total)


def _attend_dropping_backward(rate, most, kept, gradient):
    query, key, value, allowed, seed, *results = kept

    def part(query, key, value, y, highest, total, gradient, start):
        # The sum that the weights were divided by divides their gradient, which is N x d.
        gradient = (gradient / total.swapaxes(1, 2)).astype(y.dtype).swapaxes(1, 2)
        along = (gradient * y.swapaxes(1, 2)).sum(-1, keepdims=True)
        query, key, value = _by_head(query, key, value)
        weights = jnp.exp(_masked(score(query, key), allowed) - highest)
        dropped = drop(weights, rate, seed, start)
        to_dropped, to_value = _read_backward((dropped.astype(value.dtype), value), gradient)
        to_logits = (dropped * to_dropped - weights * along).astype(query.dtype)
        to_query, to_key = _score_backward((query, key), to_logits)
        to_query = to_query * query.shape[-1] ** -0.5
        return tuple(x.swapaxes(1, 2) for x in (to_query, to_key, to_value))

    return *_in_passes(part, allowed, most, query, key, value, *results, gradient), None, None


_attend_dropping.defvjp(_attend_dropping_forward, _attend_dropping_backward)


def _masked(logits, allowed):
    logits = logits.astype(jnp.float32)
    return logits if allowed is None else jnp.where(allowed, logits, _BLOCKED)


def _in_passes(part, allowed, most, query, key, *others):
    """`part(query, key, *others, start)` of so many images at a time that there are at most `most`
    weights, at least one; 0 takes all, and so does a mask for each image. `start` is the index of
    the images' first weight, for `drop`.
    """
    weights_an_image = query.shape[2] * query.shape[1] * key.shape[1]
    shared = allowed is None or len(allowed) == 1
    limit = max(1, most // weights_an_image) if most and shared else 0
    images = chunk_size(len(query), limit)
    if images == len(query):
        return part(query, key, *others, 0)
    passes = [x.reshape(-1, images, *x.shape[1:]) for x in (query, key, *others)]
    starts = jnp.arange(len(passes[0]), dtype=jnp.uint32) * jnp.uint32(images * weights_an_image)
    results = jax.lax.map(lambda arrays: part(*arrays), (*passes, starts))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), results)


class Attention(nnx.Module):
    """Multi-head attention; with `text_gate` also to text tokens, normalised separately.

    softmax(Q K^T) V + tanh(g) softmax(Q K_text^T) V_text, g = 0 at the start: so a model with text
    starts as the model without. One softmax over image and text keys would take attention away
    from the image even with a closed gate. `most`: see `attend`.
    """

    def __init__(
        self, width: int, heads: int, rngs: nnx.Rngs, *, text_gate: bool = False, most: int = 0
    ):
        self.heads, self.text_gate, self.most = heads, text_gate, most
        # torch initialises q, k, v as one [3 width, width] matrix: a smaller bound than alone.
        packed = nnx.initializers.variance_scaling(0.5, "fan_avg", "uniform")
        self.query, self.key, self.value = (
            nnx.Linear(width, width, kernel_init=packed, dot_general=dense_product, rngs=rngs)
            for _ in range(3)
        )
        self.out = linear(width, width, rngs)
        if text_gate:
            self.text_key = linear(width, width, rngs)
            self.text_value = linear(width, width, rngs)
            self.gate = nnx.Param(jnp.zeros(()))

    def __call__(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        *,
        allowed: jax.Array | None = None,
        text: Text | None = None,
        rate: float = 0.0,
        rngs: nnx.Rngs | None = None,
    ) -> jax.Array:
        """query [B, N, D], key and value [B, M, D], allowed bool [N, M], text of width D."""
        if allowed is not None:
            allowed = allowed[None, None]
        q = self._split(self.query(query))
        key, value = self._split(self.key(key)), self._split(self.value(value))
        y = attend(q, key, value, allowed, rate, rngs, self.most)
        if self.text_gate:
            y = y + jnp.tanh(self.gate[...]) * self._to_text(q, text, rate, rngs)
        return self.out(y.reshape(query.shape))

    def _to_text(self, q, text: Text, rate, rngs):
        key, value = (
            self._split(self.text_key(text.tokens)),
            self._split(self.text_value(text.tokens)),
        )
        return attend(q, key, value, text.mask[:, None, None, :], rate, rngs)

    def _split(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], self.heads, x.shape[-1] // self.heads)


class CrossAttention(nnx.Module):
    """Plain attention from tokens [B, N, D] to text tokens [B, T, D]."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs):
        self.heads = heads
        self.query, self.key, self.value, self.out = (linear(width, width, rngs) for _ in range(4))

    def __call__(self, x: jax.Array, text: Text) -> jax.Array:
        split = lambda y: y.reshape(*y.shape[:-1], self.heads, -1)
        y = attend(
            split(self.query(x)),
            split(self.key(text.tokens)),
            split(self.value(text.tokens)),
            None if text.mask is None else text.mask[:, None, None, :],
            0.0,
            None,
        )
        return self.out(y.reshape(x.shape))
