"""Training of zero-shot detectors; a run without anything to train is evaluated alone."""

import functools
from typing import Any

import numpy as np
import optax
from jax.sharding import Mesh

from promptmad_jax.config import Config
from promptmad_jax.data.defect_types.images import DefectTypeExamples, take_examples
from promptmad_jax.data.pipeline import BatchOrder, make_source
from promptmad_jax.data.pipeline import Source as Batches
from promptmad_jax.methods.zero_shot.assembly import (
    Source,
    ZeroShotExperiment,
    build_zero_shot,
    load_target,
    read_source,
    source_folder,
    target_facts,
)
from promptmad_jax.methods.zero_shot.evaluation import evaluate_zero_shot, finish_zero_shot
from promptmad_jax.runs.frozen_weights import frozen_facts
from promptmad_jax.runs.manifest import write_manifest
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.console import warn
from promptmad_jax.runtime.dataclass_parser import to_dict
from promptmad_jax.runtime.processes import is_writer
from promptmad_jax.training.state import Initializer, TrainState
from promptmad_jax.training.step import StepFunction
from promptmad_jax.training.zero_shot_features import load_image_states
from promptmad_jax.training.zero_shot_step import FrozenZeroShot, make_zero_shot_step

_NO_SOURCE = "none: nothing is trained"


class ZeroShotTraining:
    """A `run.Method`: DAPO, MultiADS, and CLIP as it is."""

    def __init__(self, config: Config):
        self.config, self._target = config, load_target(config)
        self._source: Source | None = None
        self.fingerprint, self.num_images = _NO_SOURCE, 0
        if config.source.dataset:
            self._source = read_source(config)
            self.fingerprint = self._source.fingerprint
            self.num_images = len(self._source.data)

    @functools.cached_property
    def _experiment(self) -> ZeroShotExperiment:
        return build_zero_shot(self.config)

    @property
    def mesh(self) -> Mesh:
        return self._experiment.mesh

    @property
    def network(self) -> Initializer:
        return self._experiment.network

    @functools.cached_property
    def frozen(self) -> FrozenZeroShot:
        """CLIP and the trained words."""
        return self._experiment.frozen_inputs(self._source.words)

    def describe(self, files: Workdir) -> None:
        """See `run.Method`; says loudly that a test split is trained on."""
        if not is_writer():
            return
        extra = target_facts(self._target) | frozen_facts(self.config)
        if self._source is not None:
            warn(self._source.fact["trained_on_test_split"]["warning"])
            extra |= self._source.fact | {"trained_words": list(self._source.words)}
        write_manifest(
            files.manifest,
            to_dict(self.config),
            self.config.train.seed,
            self.fingerprint,
            self.mesh,
            extra,
        )

    def batches(self) -> tuple[BatchOrder, Batches]:
        """See `run.Method`."""
        config, images = self.config, self._source.data.images
        caches = self._experiment.caches
        examples = DefectTypeExamples(
            None if caches else images.images,
            self._image_states() if caches else None,
            self._source.type_masks,
            np.asarray(images.labels).astype(bool),
        )
        order = BatchOrder(config.train.seed, images.class_ids, config.train.batch_size, 1)
        return order, make_source(examples, self.mesh, config.train.resident, take_examples)

    def step_function(
        self, tx: optax.GradientTransformation, schedule: optax.Schedule, shardings: Any
    ) -> StepFunction:
        """See `run.Method`."""
        config, detector = self.config, self._experiment.detector
        return make_zero_shot_step(
            detector, tx, schedule, config.type_loss, config.source.mosaic, self.mesh, shardings
        )

    def evaluate(self, state: TrainState) -> dict:
        """See `run.Method`."""
        return evaluate_zero_shot(self._experiment, state, self._target)

    def finish(self, state: TrainState, files: Workdir) -> dict:
        """See `run.Method`."""
        return finish_zero_shot(self._experiment, state, self._target, files, files)

    def _image_states(self) -> Any:
        config, experiment = self.config, self._experiment
        return load_image_states(
            source_folder(config) / "feature_cache",
            experiment.detector,
            experiment.frozen,
            self._source.data.images,
            config.train.fine_dtype,
            self.mesh,
        )
