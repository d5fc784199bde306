"""OneNIP's refiner, whose last two layers are multiplied into one."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from promptmad_jax.models.refiner import Refiner


def layer_by_layer(refiner, error, train):
    x = refiner.up1.up(refiner.up1.before_up(error, train))
    x = refiner.up2.up(refiner.up2.before_up(x, train))
    return refiner.predictor(x)[..., 0]


def test_the_last_two_layers_as_one_give_what_they_give_apart():
    graph, state = nnx.split(Refiner(12, 8, 0, nnx.Rngs(0)))
    moved = [x + 0.1 for x in jax.tree.leaves(state)]
    state = jax.tree.unflatten(jax.tree.structure(state), moved)
    error = jnp.asarray(np.random.default_rng(0).random((4, 3, 5, 12)), jnp.float32)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(4, 12, 20)), jnp.float32)

    def loss(forward):
        def run(state, error):
            logit = forward(nnx.merge(graph, state), error, True)
            return (logit * weights).sum(), logit

        (_, logit), gradients = jax.value_and_grad(run, argnums=(0, 1), has_aux=True)(state, error)
        return jax.tree.leaves((logit, gradients))

    ours, apart = loss(Refiner.__call__), loss(layer_by_layer)
    assert ours[0].shape == (4, 12, 20)
    for one, other in zip(ours, apart, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(other).max())
