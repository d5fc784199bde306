"""Attention by the kernels of accelerators, and in parts that fit their fast memory."""

import functools
import importlib.util
from typing import Literal

import jax
import jax.numpy as jnp

Platform = Literal["cpu", "tpu", "cuda"]

# Bytes of float32 logits that a TPU computes at once. Up to a third of its vector memory XLA leaves
# them there; beyond, it writes and reads them three times.
_LOGIT_BYTES = 40 * 2**20
_FLASH_WIDTHS = range(8, 129, 8)


def fused_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    allowed: jax.Array | None,
    platform: Platform,
) -> jax.Array:
    """Attention without dropout for an accelerator, its softmax in float32.

    query [B, N, heads, d], key and value [B, M, heads, d], allowed as in `attend`.
    On NVIDIA's GPUs by cuDNN's flash attention, where types and shapes allow; on TPUs some images
    and heads after the others. The gradient computes the weights again.
    """
    if platform == "tpu":
        return _in_parts(query, key, value, allowed)
    flash = platform == "cuda" and _has_flash(query)
    return jax.nn.dot_product_attention(
        query, key, value, mask=allowed, implementation="cudnn" if flash else None
    )


def _has_flash(query: jax.Array) -> bool:
    half = query.dtype in (jnp.bfloat16, jnp.float16)
    return half and query.shape[-1] in _FLASH_WIDTHS and _has_cudnn()


@functools.cache
def _has_cudnn() -> bool:
    """Returns True if cuDNN is installed as JAX installs it: it is asked for while tracing."""
    return importlib.util.find_spec("nvidia") is not None and (
        importlib.util.find_spec("nvidia.cudnn") is not None
    )


def _in_parts(query, key, value, allowed):
    """Attends for a number of images and heads at a time whose logits are within the limit."""
    batch, queries, heads, width = query.shape
    within = _LOGIT_BYTES // (4 * queries * key.shape[1])
    own_heads = _divisor(heads, within)
    images = _divisor(batch, within // heads)
    attend = functools.partial(jax.nn.dot_product_attention, mask=allowed)
    shared = allowed is None or allowed.shape[:2] == (1, 1)
    if not shared or (images, own_heads) == (batch, heads):
        return attend(query, key, value)

    # A part takes every n-th image, so that on a mesh each device has its share of all parts.
    def divide(x):
        x = x.reshape(images, batch // images, -1, heads // own_heads, own_heads, width)
        return x.transpose(1, 3, 0, 2, 4, 5).reshape(-1, images, x.shape[2], own_heads, width)

    parts = [divide(x) for x in (query, key, value)]
    results = jax.lax.map(lambda part: jax.checkpoint(attend)(*part), parts)
    results = results.reshape(
        batch // images, heads // own_heads, images, queries, own_heads, width
    )
    return results.transpose(2, 0, 3, 1, 4, 5).reshape(query.shape)


def _divisor(count: int, limit: int) -> int:
    """The largest divisor of `count` that is at most `limit`, or 1."""
    return next((n for n in range(min(count, limit), 1, -1) if count % n == 0), 1)
