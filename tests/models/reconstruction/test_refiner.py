"""OneNIP's refiner, whose transposed convolutions are multiplied with what follows them."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from promptmad_jax.models.reconstruction.onenip import Refiner


def layer_by_layer(refiner, error, train):
    x = error
    for block in (refiner.up1, refiner.up2):
        x = block.up(block.activate(block.conv(x), train))
    return refiner.predictor(x)[..., 0]


def test_layers_multiplied_with_each_other_give_what_they_give_in_turn():
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

    ours, in_turn = loss(Refiner.__call__), loss(layer_by_layer)
    assert ours[0].shape == (4, 12, 20)
    for one, other in zip(ours, in_turn, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(other).max())
