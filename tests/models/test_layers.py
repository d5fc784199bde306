"""Shared layers: dropout, transposed convolution, batch normalisation, attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promptmad_jax.models.attention import Attention, Text, softmax
from promptmad_jax.models.layers import BatchNorm, ConvTranspose2x2, dropout, hash_bits


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


def test_softmax_and_its_gradient_equal_the_library():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 7)), jnp.float32)
    weight = jnp.arange(21.0).reshape(3, 7)
    ours = jax.value_and_grad(lambda x: (softmax(x) * weight).sum())(x)
    theirs = jax.value_and_grad(lambda x: (jax.nn.softmax(x) * weight).sum())(x)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-5)


def test_blocked_keys_have_no_influence():
    attention = Attention(8, 2, nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, 8)), jnp.float32)
    allowed = jnp.asarray([[True, True, False]] * 3)
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
