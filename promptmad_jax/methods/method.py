"""The protocol of a family of detectors: everything that commands ask of one.

`open_method` is the only place outside a family that maps `config.model` to code.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np
from jax import export
from jax.sharding import AbstractMesh, Mesh

from promptmad_jax.config import Config
from promptmad_jax.data.levels import Levels
from promptmad_jax.data.pipeline import BatchOrder, Source
from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.constants import Calibration
from promptmad_jax.methods.subject import Subject
from promptmad_jax.models.reconstruction.weights.model_file import Canonical
from promptmad_jax.reporting.compared_runs import ImageView, Key
from promptmad_jax.reporting.report import Report
from promptmad_jax.runs.base import Base
from promptmad_jax.runs.frozen_weights import FrozenWeights
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.serving.prediction import Predictor
from promptmad_jax.training.optimizer import Optimizer
from promptmad_jax.training.state import Initializer, TrainState
from promptmad_jax.training.update import StepFunction


class Training(Protocol):
    """A training run of a detector, with its data.

    Attributes:
        config: of the run.
        fingerprint, num_images: of the training data, 0 images where nothing is trained.
        network: draws what is trained.
        frozen: the second argument of the step function.
        frozen_weights: the files that the frozen arrays come from.
    """

    config: Config
    fingerprint: str
    num_images: int
    mesh: Mesh
    network: Initializer
    frozen: Any
    frozen_weights: FrozenWeights

    def describe(self, files: Workdir) -> None:
        """Writes the manifest, and the bank that inference reads beside a checkpoint."""
        ...

    def batches(self) -> tuple[BatchOrder, Source]:
        """The order of the batches, and the arrays that they are cut from."""
        ...

    def step_function(self, optimizer: Optimizer, shardings: Any) -> StepFunction:
        """The jitted training step."""
        ...

    def evaluate(self, state: TrainState) -> dict:
        """The metrics.json object of a state on the way."""
        ...

    def finish(self, state: TrainState, files: Workdir) -> dict:
        """Evaluates the last state and writes everything; returns the metrics.json object."""
        ...


@dataclass(frozen=True)
class EvaluationRequest:
    """The options of `evaluate`.

    Attributes:
        output: where the results go.
        data_dir, weights: where the prepared data set and the frozen weights are, if they moved.
        dataset, taxonomy: another target of a zero-shot run.
        prompts: number of prompt images per class, for the spread of the figures over them.
    """

    output: Workdir
    data_dir: str = ""
    weights: str = ""
    dataset: str = ""
    taxonomy: str = ""
    prompts: int = 1


class AbstractTraining(Protocol):
    """A training step and the shapes of its arguments.

    Attributes:
        mesh: of the programs.
        state: with shardings. frozen, batch: `jax.ShapeDtypeStruct`s of the global arrays.
    """

    mesh: Mesh | AbstractMesh
    state: TrainState
    frozen: Any
    batch: Any

    def trace(self) -> jax.stages.Traced:
        """The step, to be lowered and compiled."""
        ...

    def trace_batch(self, count: int) -> jax.stages.Traced:
        """The cut of a batch from `count` resident images."""
        ...

    def trace_inference(self) -> jax.stages.Traced:
        """Maps of a batch of `eval.batch_size` images."""
        ...


class Exportable(Protocol):
    """A trained detector as arrays and programs; see `serving/artifact_files.py` for their form.

    Attributes:
        arrays: by name, the first argument of the programs.
        fusion, image_pool: of the final map and the image score.
    """

    arrays: dict[str, np.ndarray]
    class_names: tuple[str, ...]
    image_size: int
    fusion: str
    image_pool: int

    def program(self, platform: str, batch_size: int) -> export.Exported:
        """The program of a batch for "cpu", "cuda" or "tpu"."""
        ...

    def function(self, platform: str) -> Callable:
        """The function of arrays, images and class ids that the programs compute."""
        ...


class Method(Protocol):
    """A family of detectors under one configuration.

    A verb that a family does not have raises UserError with the reason.

    Attributes:
        dtype_setting: the setting of the frozen part's compute dtype.
        image_multiple: sides of images are multiples of it.
        benchmark_cases: `benchmark --what` to the cases that it runs.
    """

    config: Config
    dtype_setting: str
    image_multiple: int
    benchmark_cases: Mapping[str, tuple[str, ...]]

    def training(self, files: Workdir) -> Training:
        """Reads the data of a training run, whose folder `files` is."""
        ...

    def evaluate(self, files: Workdir, request: EvaluationRequest) -> dict:
        """Evaluates a run; writes metrics and report. Returns the metrics.json object."""
        ...

    def base(self, files: Workdir) -> Base:
        """The learned parts of a run, for another to begin with."""
        ...

    def begin(self, files: Workdir, base: Base, levels: Levels | None) -> None:
        """Begins a run without classes, unless that has been done; `levels` are of its images."""
        ...

    def enroll(
        self, files: Workdir, class_name: str, images: np.ndarray, filenames: tuple[str, ...]
    ) -> tuple[str, Calibration]:
        """Gives a run a class, or normal images uint8 [n, S, S, 3] of an old one, untrained.

        Returns:
            The class as the run spells it, and the run's constants with it.
        """
        ...

    def remove(self, files: Workdir, class_name: str) -> tuple[str, Calibration]:
        """Takes the enrolled images of a class out again."""
        ...

    def evaluate_weights(self, path: str, prompt_images: list[str], output: Workdir) -> dict:
        """As `evaluate`, for a weight file; `prompt_images` are CLASS=PATH."""
        ...

    def predictor(self, files: Workdir | None, defects: str) -> Predictor:
        """Scores new images with a run, or with the bare configuration where `files` is None.

        Args:
            defects: to look for, words with commas between; "" where none were given.
        """
        ...

    def weights_predictor(
        self, path: str, class_name: str, prompt_image: str, levels: Levels | None
    ) -> Predictor:
        """Scores new images of one class with a weight file; `levels` are the prompt image's."""
        ...

    def exportable(self, files: Workdir) -> Exportable:
        """The detector of a run, to be exported."""
        ...

    def report_maps(self, files: Workdir, step: int) -> tuple[Report, Iterator[ClassMaps]]:
        """An empty report, and the maps of the checkpoint of `step`."""
        ...

    def shown_images(self, files: Workdir, keys: Sequence[Key]) -> list[ImageView]:
        """Test images as a run sees them, at the checkpoint that it was evaluated at."""
        ...

    def run_weights(self, files: Workdir) -> Canonical:
        """The trained weights of a run under our names, for `convert`."""
        ...

    def abstract_training(self, mesh: Mesh | AbstractMesh, platform: str) -> AbstractTraining:
        """The training step on shapes alone, for devices that need not be there."""
        ...

    def benchmark_subject(self, weights: str, classes: int) -> Subject:
        """A detector with random arrays, to be measured.

        Args:
            weights: of the frozen part: "random", or "config" for those of the configuration.
            classes: of the class bank, where it has one.
        """
        ...


def open_method(config: Config) -> Method:
    """The family that a configuration's model belongs to."""
    if config.model == "zero_shot":
        from promptmad_jax.methods.zero_shot.method import ZeroShot

        return ZeroShot(config)
    from promptmad_jax.methods.reconstruction.method import Reconstruction

    return Reconstruction(config)
