"""Multi-head attention, with an optional gated branch to text tokens."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from promptmad_jax.models.layers.basic import linear
from promptmad_jax.models.layers.cpu_products import transposed_product
from promptmad_jax.models.layers.dropout import drop, dropout_seed
from promptmad_jax.runtime.accelerators.attention import fused_attention
from promptmad_jax.runtime.cpu.chunking import map_chunks
from promptmad_jax.runtime.key_streams import KeyStreams

# Finite, so that a masked logit costs an addition; exp of it is exactly zero.
_BLOCKED = -1e9

# torch initialises queries, keys and values as one [3 width, width] matrix: a smaller bound.
PACKED = nnx.initializers.variance_scaling(0.5, "fan_avg", "uniform")


class Text(NamedTuple):
    """Text tokens of each sample's class.

    Attributes:
        tokens: [B, T, d], token 0 the normal state, then one per defect type, padded.
        mask: bool [B, T], true where there is a token.
    """

    tokens: jax.Array
    mask: jax.Array

    @property
    def allowed(self) -> jax.Array:
        """The mask for `attend`, [B, 1, 1, T]."""
        return self.mask[:, None, None, :]


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    allowed: jax.Array | None,
    rate: float = 0.0,
    rngs: KeyStreams | None = None,
    limit: int = 0,
    fused: bool = False,
) -> jax.Array:
    """Scaled dot-product attention, its softmax in float32.

    Args:
        query: [B, N, heads, d]. key, value: [B, M, heads, d].
        allowed: bool, broadcastable to [B, heads, N, M] and of rank 4, or None. Every query must be
            allowed some key.
        rate: dropout of the weights, drawn from `rngs`; none where rngs is None.
        limit: with dropout, weights that are computed at once, but those of one image at least; 0
            sets no limit.
        fused: accelerators use `fused_attention`, where no gradient is taken.

    Returns:
        [B, N, heads, d].
    """
    dropping = rngs is not None and rate > 0
    if dropping:
        return _attend_dropping(query, key, value, allowed, dropout_seed(rngs), rate, limit)
    if key.shape[1] == 1:
        return jnp.broadcast_to(value, query.shape)  # The softmax of one logit is 1.
    plain = functools.partial(_attend, allowed=allowed)
    if not fused:
        return plain(query, key, value)
    on = lambda platform: functools.partial(fused_attention, allowed=allowed, platform=platform)
    return jax.lax.platform_dependent(
        query, key, value, tpu=on("tpu"), cuda=on("cuda"), default=plain
    )


def _attend(query, key, value, allowed):
    query, key, value = _by_head(query, key, value)
    logits = _logits(query, key, allowed)
    weights = jnp.exp(logits - logits.max(-1, keepdims=True))
    return _average(weights, value, weights.sum(-1, keepdims=True))


def _by_head(query, key, value):
    """[B, N, heads, d] to [B, heads, N, d], the query divided by sqrt(d)."""
    return (x.swapaxes(1, 2) for x in (query * query.shape[-1] ** -0.5, key, value))


def _logits(query, key, allowed):
    logits = jnp.matmul(query, key.swapaxes(2, 3)).astype(jnp.float32)
    return logits if allowed is None else logits + jnp.where(allowed, 0.0, _BLOCKED)


def _average(weights, value, total):
    """Sums [B, heads, M, d] by weights [B, heads, N, M] over their total: [B, N, heads, d]."""
    # Dividing the sums, N x d, in place of the weights, N x M, takes a CPU a third less time.
    y = jnp.matmul(weights.astype(value.dtype), value) / total
    return y.astype(value.dtype).swapaxes(1, 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _attend_dropping(query, key, value, allowed, seed, rate, limit):
    """`attend` with dropout, whose gradient keeps no weights.

    The weights are computed again, and the gradient through the softmax takes <g, y>, N x d, in
    place of a sum over N x M: as in FlashAttention (Dao et al., 2022).
    """
    return _attend_dropping_forward(query, key, value, allowed, seed, rate, limit)[0]


def _attend_dropping_forward(query, key, value, allowed, seed, rate, limit):
    def of_chunk(query, key, value, start):
        query, key, value = _by_head(query, key, value)
        logits = _logits(query, key, allowed)
        highest = logits.max(-1, keepdims=True)
        weights = jnp.exp(logits - highest)
        total = weights.sum(-1, keepdims=True)
        return _average(drop(weights, rate, seed, start), value, total), highest, total

    results = _in_chunks(of_chunk, allowed, limit, query, key, value)
    return results[0], (query, key, value, allowed, seed, *results)


def _attend_dropping_backward(rate, limit, kept, gradient):
    query, key, value, allowed, seed, *results = kept

    def of_chunk(query, key, value, y, highest, total, gradient, start):
        # The sum that the weights were divided by divides their gradient, which is N x d.
        gradient = (gradient / total.swapaxes(1, 2)).astype(y.dtype).swapaxes(1, 2)
        along = (gradient * y.swapaxes(1, 2)).sum(-1, keepdims=True)
        query, key, value = _by_head(query, key, value)
        weights = jnp.exp(_logits(query, key, allowed) - highest)
        dropped = drop(weights, rate, seed, start)
        to_dropped = jnp.matmul(gradient, value.swapaxes(2, 3))
        to_value = transposed_product(dropped.astype(value.dtype), gradient)
        to_logits = (dropped * to_dropped - weights * along).astype(query.dtype)
        to_query = jnp.matmul(to_logits, key) * query.shape[-1] ** -0.5
        to_key = transposed_product(to_logits, query)
        return tuple(x.swapaxes(1, 2) for x in (to_query, to_key, to_value))

    return *_in_chunks(of_chunk, allowed, limit, query, key, value, *results, gradient), None, None


_attend_dropping.defvjp(_attend_dropping_forward, _attend_dropping_backward)


def _in_chunks(function, allowed, limit, query, key, *others):
    """`function(query, key, *others, start)` of chunks with at most `limit` weights, but one image
    at least; 0 takes all images, and so does a mask of each image. `start` is the index of a
    chunk's first weight, for `drop`.
    """
    per_image = query.shape[2] * query.shape[1] * key.shape[1]
    shared = allowed is None or len(allowed) == 1
    images = max(1, limit // per_image) if limit and shared else len(query)
    starts = jnp.arange(len(query), dtype=jnp.uint32) * jnp.uint32(per_image)
    of_rows = lambda *rows: function(*rows[:-1], rows[-1][0])
    return map_chunks(of_rows, images, query, key, *others, starts)


class Attention(nnx.Module):
    """Multi-head attention; with `text_gate` also to text tokens, normalised separately.

    softmax(Q K^T) V + tanh(g) softmax(Q K_text^T) V_text, g = 0 at the start: so a model with text
    starts as the model without. One softmax over image and text keys would take attention away
    from the image even with a closed gate. `limit`: see `attend`; `widened`: drops in float32; both
    by `adapt_attention`. `init` is that of the first three kernels.
    """

    def __init__(
        self, width: int, heads: int, rngs: KeyStreams, *, text_gate: bool = False, init=PACKED
    ):
        self.heads, self.text_gate, self.limit, self.widened = heads, text_gate, 0, False
        self.query, self.key, self.value = (linear(width, width, rngs, init) for _ in range(3))
        self.out = linear(width, width, rngs)
        if text_gate:
            self.text_key, self.text_value = (linear(width, width, rngs) for _ in range(2))
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
        rngs: KeyStreams | None = None,
        fused: bool = False,
    ) -> jax.Array:
        """query [B, N, D], key and value [B, M, D], text of width D; others as in `attend`."""
        q = _split(self.query(query), self.heads)
        key, value = _split(self.key(key), self.heads), _split(self.value(value), self.heads)
        read = functools.partial(self._read, rate=rate, rngs=rngs)
        y = read(q, key, value, allowed, limit=self.limit, fused=fused)
        if self.text_gate:
            key, value = self.text_key(text.tokens), self.text_value(text.tokens)
            key, value = _split(key, self.heads), _split(value, self.heads)
            gate = jnp.tanh(self.gate[...]).astype(y.dtype)
            y = y + gate * read(q, key, value, text.allowed)
        return self.out(y.reshape(query.shape))

    def _read(self, *inputs, rngs: KeyStreams | None, **options) -> jax.Array:
        query, key, value, allowed = inputs
        if self.widened and rngs is not None:
            query, key, value = (x.astype(jnp.float32) for x in (query, key, value))
        y = attend(query, key, value, allowed, rngs=rngs, **options)
        return y.astype(inputs[0].dtype)


def _split(x, heads):
    """[B, N, D] to [B, N, heads, D / heads]."""
    return x.reshape(*x.shape[:-1], heads, -1)


def adapt_attention(model: nnx.Module, limit: int, platform: str) -> nnx.Module:
    """Sets `limit` of every `Attention` of the model, and how it drops; returns the model."""
    # TPU's compiler lays bfloat16 weights out so that dropping takes twice the time of float32.
    widened = platform == "tpu"
    model.set_attributes(Attention, limit=limit, widened=widened, raise_if_not_found=False)
    return model
