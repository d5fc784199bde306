"""Shared layers: dropout, transposed convolution, batch normalisation, attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promptmad_jax.models.layers.attention import Attention, Text
from promptmad_jax.models.layers.basic import ConvTranspose2x2, Mlp
from promptmad_jax.models.layers.dropout import drop, dropout, hash_bits, relu_dropout
from promptmad_jax.models.layers.norm import BatchNorm


def test_dropout_keeps_the_mean_and_the_rate():
    dropped = dropout(jnp.ones((400, 500)), 0.1, nnx.Rngs(dropout=3))
    assert abs(float((dropped == 0).mean()) - 0.1) < 3e-3
    np.testing.assert_allclose(dropped.max(), 1 / 0.9, rtol=1e-6)
    np.testing.assert_array_equal(dropout(jnp.ones(4), 0.1, None), jnp.ones(4))


def test_hash_bits_are_uniform_and_uncorrelated():
    bits = hash_bits(jnp.asarray([1, 2], jnp.uint32), (64, 4096))
    other = hash_bits(jnp.asarray([1, 3], jnp.uint32), (64, 4096))
    unit = np.asarray(bits, np.float64) / 2**32
    assert abs(unit.mean() - 0.5) < 3e-3
    histogram = np.histogram(unit, 64, (0, 1))[0] / unit.size
    np.testing.assert_allclose(histogram, 1 / 64, rtol=0.1)
    for a, b in (
        (unit, np.asarray(other) / 2**32),
        (unit[:, 1:], unit[:, :-1]),
        (unit[1:], unit[:-1]),
    ):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.01
    each_bit = (np.asarray(bits)[..., None] >> np.arange(32, dtype=np.uint32)) & 1
    np.testing.assert_allclose(each_bit.mean((0, 1)), 0.5, atol=5e-3)


def test_dropout_differs_from_call_to_call():
    rngs = nnx.Rngs(dropout=0)
    x = jnp.ones((8, 128))
    assert (np.asarray(dropout(x, 0.5, rngs)) != np.asarray(dropout(x, 0.5, rngs))).any()


def test_transposed_convolution_by_hand():
    layer = ConvTranspose2x2(1, 1, nnx.Rngs(0))
    layer.kernel[...] = jnp.asarray([[1.0, 2.0], [3.0, 4.0]])[None, :, :, None]
    layer.bias[...] = jnp.asarray([0.5])
    y = layer(jnp.asarray([[[[1.0], [10.0]]]]))[0, ..., 0]
    np.testing.assert_allclose(y, [[1.5, 2.5, 10.5, 20.5], [3.5, 4.5, 30.5, 40.5]])


def test_batch_norm_updates_with_the_unbiased_variance():
    norm = BatchNorm(2)
    x = jnp.asarray(np.random.default_rng(0).normal(2, 3, (4, 5, 6, 2)), jnp.float32)
    y = norm(x, True)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, atol=1e-4)
    np.testing.assert_allclose(norm.mean[...], 0.1 * x.mean((0, 1, 2)), rtol=1e-5)
    variance = np.var(np.asarray(x), axis=(0, 1, 2), ddof=1)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * variance, rtol=1e-5)


def test_batch_norm_groups_hold_whole_pairs():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3, 3, 2)), jnp.float32)
    grouped = BatchNorm(2, group_size=2)(x, True)
    np.testing.assert_allclose(grouped[:4], BatchNorm(2)(x[:4], True), atol=1e-6)
    with pytest.raises(ValueError, match="groups of 3"):
        BatchNorm(2, group_size=3)(x, True)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_relu_and_dropout_as_one(dtype):
    rng = np.random.default_rng(0)
    x, weight = (jnp.asarray(rng.normal(size=(64, 32)), dtype) for _ in range(2))
    seed = jnp.asarray([3, 4], jnp.uint32)
    ours, backward = jax.vjp(lambda x: relu_dropout(x, 0.25, seed), x)
    plain, backward_plain = jax.vjp(lambda x: drop(jax.nn.relu(x), 0.25, seed), x)
    np.testing.assert_array_equal(ours, plain)
    np.testing.assert_array_equal(backward(weight)[0], backward_plain(weight)[0])


def test_an_mlp_drops_behind_relu_alone():
    x, rngs = jnp.ones((4, 8)), nnx.Rngs(0, dropout=1)
    mlp = Mlp(8, 16, rngs)
    assert np.abs(mlp(x, 0.5, rngs) - mlp(x)).max() > 1e-3
    with pytest.raises(ValueError, match="ReLU"):
        Mlp(8, 16, rngs, jax.nn.gelu)(x, 0.5, rngs)


def test_blocked_keys_have_no_influence():
    attention = Attention(8, 2, nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, 8)), jnp.float32)
    allowed = jnp.asarray([True, True, False])[None, None, None]
    changed = x.at[:, 2].set(100.0)
    before = attention(x, x, x, allowed=allowed)
    after = attention(x, changed, changed, allowed=allowed)
    np.testing.assert_array_equal(before, after)


def test_a_closed_text_gate_changes_nothing_and_an_open_one_does():
    attention = Attention(8, 2, nnx.Rngs(0), text_gate=True)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 8)), jnp.float32)
    text = Text(x[:, :2] + 1, jnp.ones((2, 2), bool))
    attention_without = Attention(8, 2, nnx.Rngs(0))
    for name in ("query", "key", "value", "out"):
        getattr(attention_without, name).kernel[...] = getattr(attention, name).kernel[...]
    np.testing.assert_array_equal(attention(x, x, x, text=text), attention_without(x, x, x))
    attention.gate[...] = jnp.asarray(1.0)
    assert np.abs(attention(x, x, x, text=text) - attention_without(x, x, x)).max() > 1e-3


def test_masked_text_tokens_have_no_influence():
    attention = Attention(8, 2, nnx.Rngs(0), text_gate=True)
    attention.gate[...] = jnp.asarray(1.0)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, 8)), jnp.float32)
    mask = jnp.asarray([[True, False]])
    one = attention(x, x, x, text=Text(x[:, :2], mask))
    other = attention(x, x, x, text=Text(x[:, :2].at[:, 1].set(50.0), mask))
    np.testing.assert_array_equal(one, other)
