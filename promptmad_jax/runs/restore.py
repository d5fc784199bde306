"""Restores the weights of a run's checkpoint."""

from typing import Protocol

import optax
from jax.sharding import Mesh

from promptmad_jax.config import Config
from promptmad_jax.runs.frozen_weights import FrozenWeights, check_frozen
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.checkpoint import Checkpoints
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.training.state import Initializer, Weights, state_shapes


class Assembled(Protocol):
    """A detector's parts on a mesh, without trained weights."""

    config: Config
    mesh: Mesh
    network: Initializer
    frozen_weights: FrozenWeights


def restore_weights(assembly: Assembled, files: Workdir, step: int | None = None) -> Weights:
    """The weights of a step, by default of the newest; the optimizer's moments are not read.

    Raises:
        UserError: the checkpoint is missing or damaged, or was trained on other frozen weights.
    """
    config = assembly.config
    check_frozen(assembly.frozen_weights, files)
    checkpoints = files.checkpoints(config.train.keep)
    try:
        steps = checkpoints.steps()
        if not steps:
            raise UserError(
                f"{files.path} has no checkpoint yet; let the training reach "
                f"step {config.train.checkpoint_every}"
            )
        if step is not None and step not in steps:
            raise UserError(
                f"{files.path} was evaluated at step {step}, whose checkpoint is no longer kept; "
                f"run `promptmad evaluate --workdir={files.path}` again"
            )
        return restore_step(assembly, checkpoints, steps[-1] if step is None else step)
    finally:
        checkpoints.close()


def restore_step(assembly: Assembled, checkpoints: Checkpoints, step: int) -> Weights:
    """The weights of one of the checkpoints' steps."""
    shapes = state_shapes(assembly.network, optax.identity(), assembly.mesh)
    return checkpoints.restore_part(step, shapes.weights)
