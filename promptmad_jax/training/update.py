"""The jitted update of every training step: gradient, optimizer, metrics."""

import enum
from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.sharding import AbstractMesh, Mesh

from promptmad_jax.models.functional import Params, Stats
from promptmad_jax.runtime.mesh import batch_sharding, replicated
from promptmad_jax.training.optimizer import Optimizer
from promptmad_jax.training.state import TrainState

Metrics = dict[str, jax.Array]
# (state, frozen arrays, batch) -> (next state, metrics)
StepFunction = Callable[[TrainState, Any, Any], tuple[TrainState, Metrics]]
# (batch, key of the step) -> examples
Augment = Callable[[Any, jax.Array], Any]
# (params, stats, frozen arrays, examples, key of the step) -> (loss, (its terms, next stats))
Loss = Callable[
    [Params, Stats, Any, Any, jax.Array], tuple[jax.Array, tuple[dict[str, jax.Array], Stats]]
]


class Stream(enum.IntEnum):
    """Constants that are folded into the key of a step, one per purpose."""

    PSEUDO_ANOMALY = 1
    JITTER = 2
    DROPOUT = 3
    DIFFUSION = 4
    MOSAIC = 5


def make_update(
    augment: Augment, loss: Loss, optimizer: Optimizer, mesh: Mesh, state_shardings: Any
) -> StepFunction:
    """Returns the jitted step `(state, frozen, batch) -> (state, metrics)`; donates the state.

    The step number is folded into the state's random key. Metrics are the terms of the loss,
    `loss`, `grad_norm` (before clipping) and `learning_rate`.
    """

    def update(state: TrainState, frozen: Any, batch: Any) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        examples = augment(batch, key)
        (value, (terms, stats)), grads = jax.value_and_grad(loss, has_aux=True)(
            state.params, state.stats, frozen, examples, key
        )
        updates, opt_state = optimizer.tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = terms | {
            "loss": value,
            "grad_norm": optax.tree.norm(grads),
            "learning_rate": optimizer.schedule(state.step),
        }
        return TrainState(state.step + 1, params, stats, opt_state, state.key), metrics

    whole, split = replicated(mesh), batch_sharding(mesh)
    return jax.jit(
        update,
        donate_argnums=0,
        in_shardings=(state_shardings, whole, split),
        out_shardings=(state_shardings, whole),
        compiler_options=_compiler_options(mesh),
    )


def _compiler_options(mesh: Mesh | AbstractMesh) -> dict[str, str] | None:
    """Without this limit, TPU's compiler splits the products of an 8-way fsdp into so many steps
    that it takes over 22 GB of memory and dies."""
    if isinstance(mesh, AbstractMesh) or mesh.devices.flat[0].platform != "tpu":
        return None
    fsdp = mesh.shape["fsdp"] > 1
    return {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"} if fsdp else None
