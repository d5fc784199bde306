"""Attention with dropout, all images at once and a few at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promptmad_jax.models.layers.attention import attend
from promptmad_jax.models.layers.dropout import drop, dropout_seed

SHAPE = (6, 9, 2, 4)  # images, tokens, heads, width of a head


def inputs():
    keys = jax.random.split(jax.random.key(0), 4)
    allowed = jnp.asarray(np.eye(9) == 0)[None, None]
    return [jax.random.normal(key, SHAPE) for key in keys], allowed


def run(images, allowed, tensors, rate=0.3):
    *inside, gradient = tensors
    limit = int(images * 2 * 9**2)
    function = lambda *qkv: attend(*qkv, allowed, rate, nnx.Rngs(dropout=3), limit)
    result, backward = jax.vjp(function, *inside)
    return result, *backward(gradient)


@pytest.mark.parametrize("images", [0.5, 1, 2, 3, 5])
@pytest.mark.parametrize("masked", [False, True])
def test_a_few_images_at_a_time_give_the_same(images, masked):
    tensors, allowed = inputs()
    allowed = allowed if masked else None
    for whole, parts in zip(run(0, allowed, tensors), run(images, allowed, tensors), strict=True):
        np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-6)
    program = str(jax.make_jaxpr(lambda *x: run(images, allowed, x))(*tensors))
    assert program.count("scan[") == 2  # forward and backward


@pytest.mark.parametrize("images", [0, 6, 8])
def test_all_at_once_where_they_are_few(images):
    tensors, allowed = inputs()
    program = str(jax.make_jaxpr(lambda *x: run(images, allowed, x))(*tensors))
    assert "scan" not in program


def textbook(query, key, value, allowed, rate, rngs):
    logits = jnp.einsum("bnhd,bmhd->bhnm", query, key) / query.shape[-1] ** 0.5
    if allowed is not None:
        logits = jnp.where(allowed, logits, -jnp.inf)
    weights = drop(jax.nn.softmax(logits), rate, dropout_seed(rngs))
    return jnp.einsum("bhnm,bmhd->bnhd", weights, value)


@pytest.mark.parametrize("keys", [9, 3, 1])
@pytest.mark.parametrize("mask", ["shared", "of each image", "none"])
def test_gradients_with_dropout_are_those_of_the_textbook(keys, mask):
    (query, key, value, gradient), _ = inputs()
    shared = jnp.asarray(np.arange(keys) != 1)[None, None, None]
    own = jnp.ones((6, 1, 1, keys), bool).at[2:, ..., 1:].set(False)
    allowed = {"shared": shared, "of each image": own, "none": None}[mask]
    inside = query, 3 * key[:, :keys], value[:, :keys]

    def run(function):
        y, backward = jax.vjp(lambda *x: function(*x, allowed, 0.3, nnx.Rngs(dropout=3)), *inside)
        return y, *backward(gradient)

    two_images = functools.partial(attend, limit=2 * 2 * 9 * keys)
    for ours, theirs in zip(run(two_images), run(textbook), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_the_gradient_with_dropout_keeps_no_weights():
    query = jnp.ones((2, 40, 2, 4))
    _, backward = jax.vjp(lambda x: attend(x, x, x, None, 0.3, nnx.Rngs(0)), query)
    assert max(x.size for x in jax.tree.leaves(backward)) <= query.size


def test_dropout_of_a_part_is_that_part_of_the_whole():
    x, seed = jnp.ones((8, 5)), jnp.asarray([1, 2], jnp.uint32)
    whole = drop(x, 0.5, seed)
    np.testing.assert_array_equal(drop(x[3:], 0.5, seed, 15), whole[3:])
    assert (np.asarray(drop(x[3:], 0.5, seed)) != np.asarray(whole[3:])).any()
