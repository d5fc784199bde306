"""The protocol of a family of detectors."""

from typing import Any, Protocol

import optax
from jax.sharding import Mesh

from promptmad_jax.config import ZERO_SHOT, Config
from promptmad_jax.data.pipeline import BatchOrder, Source
from promptmad_jax.methods.reconstruction.training import NormalImages
from promptmad_jax.methods.zero_shot.training import ZeroShotTraining
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.training.state import Initializer, TrainState
from promptmad_jax.training.step import StepFunction


class Method(Protocol):
    """What a run needs of a detector that is trained, whatever it learns from.

    Attributes:
        fingerprint, num_images: of the training data, 0 images where nothing is trained.
        network: draws what is trained. frozen: the step's second argument.
    """

    config: Config
    fingerprint: str
    num_images: int
    mesh: Mesh
    network: Initializer
    frozen: Any

    def describe(self, files: Workdir) -> None:
        """Writes the manifest, and what inference needs besides a checkpoint."""
        ...

    def batches(self) -> tuple[BatchOrder, Source]:
        """The order of the batches, and where they come from."""
        ...

    def step_function(
        self, tx: optax.GradientTransformation, schedule: optax.Schedule, shardings: Any
    ) -> StepFunction:
        """The jitted step."""
        ...

    def evaluate(self, state: TrainState) -> dict:
        """The metrics.json object of a state on the way."""
        ...

    def finish(self, state: TrainState, files: Workdir) -> dict:
        """Evaluates the last state and writes everything."""
        ...


def open_method(config: Config) -> Method:
    """Reads the data of a run.

    Raises:
        UserError: they are not prepared, or not such as the detector needs.
    """
    return ZeroShotTraining(config) if config.model == ZERO_SHOT else NormalImages(config)
