from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from promptmad_jax.clip.deep_prompts import DeepPrompts
from promptmad_jax.clip.text import ClipText
from promptmad_jax.clip.transformer import causal, graph_and_shapes, run_layers
from tests.clip.narrow import TEXT


def add_one(x, allowed):
    return x + 1


def through(tokens, alpha, x, layers, taps=()):
    stack = {str(i): add_one for i in range(layers)}
    return run_layers(stack, x, taps=taps, deep=DeepPrompts(tokens, alpha))


def test_progressive_rule_by_hand():
    tokens = jnp.asarray([10.0, 20.0, 30.0])[:, None, None]  # three layers, one token, one channel
    x = jnp.asarray([[1.0], [2.0]])[None]
    last, taps = through(tokens, 0.25, x, 3, taps=(1, 2))
    np.testing.assert_allclose(taps[0][0, :, 0], [2, 11, 3])
    second = 0.25 * 11 + 0.75 * 20 + 1
    np.testing.assert_allclose(taps[1][0, :, 0], [3, second, 4])
    np.testing.assert_allclose(last[0, :, 0], [4, 0.25 * second + 0.75 * 30 + 1, 5])


def test_progressive_rule_at_the_size_of_vit_large():
    """24 layers, 4 tokens, 37 x 37 patches: the rule's closed form, through layers that add 1."""
    tokens = jax.random.normal(jax.random.key(0), (24, 4, 1024))
    alpha, x = 0.01, jnp.zeros((1, 1 + 37 * 37, 1024))
    last = jax.jit(lambda t, x: through(t, alpha, x, 24)[0])(tokens, x)
    assert last.shape == (1, 1 + 4 + 37 * 37, 1024)
    shares = np.asarray([alpha**23, *((1 - alpha) * alpha ** (23 - i) for i in range(1, 24))])
    ones = sum(alpha**i for i in range(24))
    expected = np.einsum("l,lnd->nd", shares, np.asarray(tokens)) + ones
    np.testing.assert_allclose(last[0, 1:5], expected, atol=1e-5)
    np.testing.assert_array_equal(last[0, [0, 5, -1]], 24.0)


CONFIG = replace(TEXT, layers=2)
GRAPH, SHAPES = graph_and_shapes(ClipText, CONFIG)
RNG = np.random.default_rng(0)
PARAMS = jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape).astype(np.float32) / 2, SHAPES)
X = RNG.normal(size=(2, 5, 8)).astype(np.float32)
TOKENS = RNG.normal(size=(2, 2, 8)).astype(np.float32)


@partial(jax.jit, static_argnums=3)
def forward(params, x, tokens=None, remat=False):
    deep = None if tokens is None else DeepPrompts(tokens, 0.1)
    length = x.shape[1] + (0 if deep is None else tokens.shape[1])
    layers = nnx.merge(GRAPH, params).layers
    return run_layers(layers, x, causal(length), deep=deep, remat=remat)[0]


def test_no_prompt_reaches_the_start_token_under_a_causal_mask():
    plain, prompted = forward(PARAMS, X), forward(PARAMS, X, TOKENS)
    np.testing.assert_allclose(prompted[:, 0], plain[:, 0], atol=1e-5)
    assert np.abs(prompted[:, 3:] - plain[:, 1:]).max() > 1e-2


def test_computing_again_changes_no_gradient():
    def loss(tokens, remat):
        return jnp.square(forward(PARAMS, X, tokens, remat)).sum()

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    plain, again = gradient(TOKENS, False), gradient(TOKENS, True)
    np.testing.assert_allclose(again, plain, rtol=1e-4, atol=1e-4)
    assert "remat" in str(jax.make_jaxpr(lambda t: loss(t, True))(TOKENS))
    assert np.abs(plain).min() > 0


def test_half_precision_keeps_its_type_and_comes_near():
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    rough = forward(half, X.astype(jnp.bfloat16), TOKENS)
    assert rough.dtype == jnp.bfloat16
    np.testing.assert_allclose(rough.astype(np.float32), forward(PARAMS, X, TOKENS), atol=0.1)
