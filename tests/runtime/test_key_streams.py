"""Streams of keys: those of nnx.Rngs, drawn without an array that counts."""

import jax
import numpy as np
import pytest
from flax import nnx

from promptmad_jax.runtime.key_streams import KeyStreams


def draws(rngs):
    names = ("params", "dropout", "params", "other", "dropout", "params")
    return [jax.random.key_data(getattr(rngs, name)()) for name in names]


@pytest.mark.parametrize("default", [7, None])
def test_the_keys_are_those_of_nnx(default):
    named = {"params": jax.random.key(1), "dropout": jax.random.key(2)}
    if default is None:
        named["other"] = jax.random.key(3)
    expected = draws(nnx.Rngs(default, **named))
    np.testing.assert_array_equal(draws(KeyStreams(default, **named)), expected)
    traced = jax.jit(lambda: draws(KeyStreams(default, **named)))()
    np.testing.assert_array_equal(traced, expected)


def test_a_key_may_be_the_default():
    key = jax.random.key(5)
    np.testing.assert_array_equal(draws(KeyStreams(key)), draws(nnx.Rngs(key)))


def test_a_stream_that_is_not_there():
    with pytest.raises(AttributeError, match="no stream of keys 'params'"):
        KeyStreams(dropout=jax.random.key(0)).params()
