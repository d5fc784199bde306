"""A run's checkpoint, restored."""

from typing import Protocol

from jax.sharding import Mesh

from promptmad_jax.config import Config
from promptmad_jax.runs.frozen_weights import check_frozen
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.training.optimizer import make_optimizer, make_schedule
from promptmad_jax.training.state import Initializer, TrainState, state_shapes


class Trained(Protocol):
    """What was trained, with the configuration that says how."""

    config: Config
    mesh: Mesh
    network: Initializer


def restore_state(experiment: Trained, files: Workdir, step: int | None = None) -> TrainState:
    """The checkpoint of a step, the newest that is whole where none is given.

    Raises:
        UserError: it is not there, or damaged, or was trained on other frozen weights.
    """
    config = experiment.config
    check_frozen(config, files)
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
        tx = make_optimizer(config.optimizer, make_schedule(config.optimizer, 1, 1))
        shapes = state_shapes(experiment.network, tx, experiment.mesh)
        return checkpoints.restore(steps[-1] if step is None else step, shapes)
    finally:
        checkpoints.close()
