"""A run that was saved on eight devices goes on, on two and on one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from promptmad_jax.runtime.checkpoint import Checkpoints
from promptmad_jax.runtime.mesh import MeshConfig, batch_sharding, make_mesh, state_shardings
from promptmad_jax.training.state import TrainState, abstract_state

TX = optax.adamw(1e-2)
EIGHT = MeshConfig(1, 8)


def init(key):
    first, second = jax.random.split(key)
    params = {
        "first": jax.random.normal(first, (16, 64)),
        "second": jax.random.normal(second, (64, 8)),
        "bias": jnp.zeros(8),
    }
    return TrainState(jnp.int32(0), params, {"mean": jnp.zeros(64)}, TX.init(params), key)


def placed(config):
    """A fresh state on the mesh, with its large arrays split over fsdp."""
    mesh = make_mesh(config)
    key = jax.random.key(0)
    shardings = state_shardings(mesh, jax.eval_shape(init, key), fsdp_min_elements=64)
    return mesh, jax.jit(init, out_shardings=shardings)(key)


def losses(config, state, steps):
    """Trains on data that are a function of key and step."""
    mesh = make_mesh(config)

    def loss_of(params, batch):
        hidden = jnp.tanh(batch @ params["first"])
        return ((hidden @ params["second"] + params["bias"][None]) ** 2).mean(), hidden.mean(0)

    @jax.jit
    def step(state, batch):
        (loss, mean), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params, batch)
        updates, opt_state = TX.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return state._replace(
            step=state.step + 1, params=params, stats={"mean": mean}, opt_state=opt_state
        ), loss

    history = []
    for _ in range(steps):
        batch = jax.random.normal(jax.random.fold_in(state.key, state.step), (8, 16))
        state, loss = step(state, jax.device_put(batch, batch_sharding(mesh)))
        history.append(float(loss))
    return state, history


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A directory with a state of eight devices, its arrays, and the losses that follow there."""
    directory = tmp_path_factory.mktemp("saved")
    _, state = placed(EIGHT)
    state, _ = losses(EIGHT, state, 3)
    assert not state.params["first"].sharding.is_fully_replicated
    assert len(state.opt_state[0].mu["first"].addressable_shards) == 8
    checkpoints = Checkpoints(directory, keep=1)
    checkpoints.save(3, state)
    checkpoints.close()
    host = jax.device_get(state._replace(key=jax.random.key_data(state.key)))
    return directory, host, losses(EIGHT, state, 3)[1]


@pytest.mark.parametrize("config", [MeshConfig(1, 2), MeshConfig(1, 1)])
def test_parameters_are_equal_to_the_bit_and_losses_go_on(saved, config):
    directory, expected, there = saved
    _, fresh = placed(config)
    checkpoints = Checkpoints(directory, keep=1)
    step, state = checkpoints.resume(abstract_state(fresh))
    checkpoints.close()
    assert step == 3
    restored = jax.device_get(state._replace(key=jax.random.key_data(state.key)))
    for got, want in zip(*map(jax.tree.leaves, (restored, expected)), strict=True):
        np.testing.assert_array_equal(got, want)
    for got, want in zip(*map(jax.tree.leaves, (state, fresh)), strict=True):
        assert got.sharding.is_equivalent_to(want.sharding, got.ndim)
    _, here = losses(config, state, 3)
    np.testing.assert_allclose(here, there, rtol=1e-5)
