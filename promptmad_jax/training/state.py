"""The training state, which checkpoints hold."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from promptmad_jax.models.functional import Params, Stats
from promptmad_jax.runtime.mesh import Rules, state_shardings


class Initializer(Protocol):
    """Draws a model's parameters and statistics; a `Network` is one."""

    def init(self, key: jax.Array) -> tuple[Params, Stats]: ...


class Weights(NamedTuple):
    """The part of a state that inference uses.

    Attributes:
        step: int32, number of finished steps.
        params, stats: nested dicts of arrays.
    """

    step: jax.Array
    params: Params
    stats: Stats


class TrainState(NamedTuple):
    """Everything that changes in training, and the key of all its randomness.

    Attributes:
        step: int32, number of finished steps.
        params, stats: nested dicts of arrays.
        opt_state: state of the optax transformation.
        key: a typed PRNG key that never changes; steps fold their number into it.
    """

    step: jax.Array
    params: Params
    stats: Stats
    opt_state: Any
    key: jax.Array

    @property
    def weights(self) -> Weights:
        """The part of the state that inference uses."""
        return Weights(self.step, self.params, self.stats)


def create_state(
    network: Initializer,
    tx: optax.GradientTransformation,
    seed: int,
    mesh: Mesh,
    rules: Rules = (),
) -> tuple[TrainState, Any]:
    """Creates the initial state, sharded from the start; returns it and its shardings."""
    init, key = _initializer(network, tx), jax.random.key(seed)
    shardings = state_shardings(mesh, jax.eval_shape(init, key), rules)
    return jax.jit(init, out_shardings=shardings)(key), shardings


def state_shapes(
    network: Initializer, tx: optax.GradientTransformation, mesh: Mesh, rules: Rules = ()
) -> TrainState:
    """Returns the `abstract_state` of an initial state without creating it."""
    shapes = jax.eval_shape(_initializer(network, tx), jax.random.key(0))
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        state_shardings(mesh, shapes, rules),
    )


def _initializer(
    network: Initializer, tx: optax.GradientTransformation
) -> Callable[[jax.Array], TrainState]:
    def init(key):
        params, stats = network.init(jax.random.fold_in(key, 0))
        return TrainState(jnp.zeros((), jnp.int32), params, stats, tx.init(params), key)

    return init


def abstract_state(state: TrainState) -> TrainState:
    """Returns the shapes, dtypes and shardings of a state, to restore a checkpoint into."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
