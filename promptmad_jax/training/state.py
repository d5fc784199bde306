"""The training state: what a checkpoint holds."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from promptmad_jax.models.functional import Network, Params, Stats
from promptmad_jax.runtime.mesh import state_shardings


class TrainState(NamedTuple):
    """Everything that changes in training, and the key that all randomness is folded from.

    Attributes:
        step: int32, number of finished steps. params, stats: nested dicts of arrays.
        opt_state: optax's. key: one typed PRNG key, never replaced.
    """

    step: jax.Array
    params: Params
    stats: Stats
    opt_state: Any
    key: jax.Array


def create_state(
    network: Network, tx: optax.GradientTransformation, seed: int, mesh: Mesh
) -> tuple[TrainState, Any]:
    """Returns the initial state, born sharded over the mesh, and its shardings."""

    def init(key):
        params, stats = network.init(jax.random.fold_in(key, 0))
        return TrainState(jnp.zeros((), jnp.int32), params, stats, tx.init(params), key)

    key = jax.random.key(seed)
    shardings = state_shardings(mesh, jax.eval_shape(init, key))
    return jax.jit(init, out_shardings=shardings)(key), shardings


def abstract_state(state: TrainState) -> TrainState:
    """Shapes, dtypes and shardings of a state: what a checkpoint is restored into."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
