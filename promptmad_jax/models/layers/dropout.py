"""Dropout by a hash of each element's index."""

import functools

import jax
import jax.numpy as jnp

from promptmad_jax.runtime.key_streams import KeyStreams


def hash_bits(seed: jax.Array, shape: tuple[int, ...], start: jax.Array | int = 0) -> jax.Array:
    """Random uint32 of a shape: a hash of each element's index and a 64-bit seed.

    Threefry takes some 70 operations per word and was a third of a training step on a CPU; dropout
    needs no cryptographic stream. This is the `lowbias32` mixer (Wellons, 2018), twice, as studied
    for such use by Jarzynski and Olano (2020). Its results do not depend on sharding.

    Args:
        seed: uint32 [2].
        start: index of the first element, where the array is a part of a larger one.
    """
    index = jnp.full(shape, start, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        index = index + jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
        stride = stride * shape[axis] % 2**32
    return _mix(_mix(index ^ seed[0]) + seed[1])


def _mix(x: jax.Array) -> jax.Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def dropout(x: jax.Array, rate: float, rngs: KeyStreams | None) -> jax.Array:
    """Zeroes elements with probability `rate` and rescales the rest; x itself without rngs."""
    if rngs is None or rate == 0:
        return x
    return drop(x, rate, dropout_seed(rngs))


def dropout_seed(rngs: KeyStreams) -> jax.Array:
    """Draws the seed of a dropout, uint32 [2]."""
    return jax.random.bits(rngs.dropout(), (2,), jnp.uint32)


def drop(x: jax.Array, rate: float, seed: jax.Array, start: jax.Array | int = 0) -> jax.Array:
    """`dropout` from a seed; `start` as in `hash_bits`."""
    keep = hash_bits(seed, x.shape, start) >= jnp.uint32(round(rate * 2**32))
    return jnp.where(keep, x * (1 / (1 - rate)), 0).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def relu_dropout(x: jax.Array, rate: float, seed: jax.Array) -> jax.Array:
    """`drop` of a ReLU, rate below 1; its gradient needs the output alone."""
    return drop(jax.nn.relu(x), rate, seed)


def _relu_dropout_forward(x, rate, seed):
    y = relu_dropout(x, rate, seed)
    return y, y


def _relu_dropout_backward(rate, y, gradient):
    return jnp.where(y > 0, gradient * (1 / (1 - rate)), 0).astype(y.dtype), None


relu_dropout.defvjp(_relu_dropout_forward, _relu_dropout_backward)
