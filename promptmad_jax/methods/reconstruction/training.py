"""Training of the detectors that learn from normal images."""

import functools
from typing import Any

import numpy as np
import optax
from jax.sharding import Mesh

from promptmad_jax.config import Config
from promptmad_jax.data.image_set import ImageSet
from promptmad_jax.data.pipeline import BatchOrder, Source, TrainArrays, make_source
from promptmad_jax.data.textures import load_textures
from promptmad_jax.evaluation.inference import MapMaker
from promptmad_jax.methods.reconstruction.assembly import (
    Experiment,
    Splits,
    build_experiment,
    class_prompts,
    class_text,
    load_splits,
)
from promptmad_jax.methods.reconstruction.evaluation import calibrate_state, evaluate_state, finish
from promptmad_jax.models.reconstruction.detector import Frozen
from promptmad_jax.runs.frozen_weights import frozen_facts
from promptmad_jax.runs.manifest import write_manifest
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.dataclass_parser import to_dict
from promptmad_jax.runtime.processes import is_writer
from promptmad_jax.training.feature_cache import load_clean_features
from promptmad_jax.training.state import Initializer, TrainState
from promptmad_jax.training.step import StepFunction, make_train_step


class NormalImages:
    """A `run.Method`: PromptMAD, OneNIP, UniAD."""

    def __init__(self, config: Config):
        self.config, self._splits = config, load_splits(config)
        self.fingerprint = self._splits.train.fingerprint
        self.num_images = len(self._splits.train)

    @functools.cached_property
    def experiment(self) -> Experiment:
        """The parts of the run."""
        names = self._splits.train.class_names
        return build_experiment(self.config, names, class_text(self.config, names))

    @functools.cached_property
    def _maker(self) -> MapMaker:
        prompts = class_prompts(self._splits.train, self.config.eval.prompt_index)
        return self.experiment.map_maker(prompts)

    @property
    def mesh(self) -> Mesh:
        return self.experiment.mesh

    @property
    def network(self) -> Initializer:
        return self.experiment.detector.network

    @property
    def frozen(self) -> Frozen:
        return self.experiment.frozen

    def describe(self, files: Workdir) -> None:
        """See `run.Method`."""
        _describe(self.experiment, self._maker, self._splits, files)

    def batches(self) -> tuple[BatchOrder, Source]:
        """See `run.Method`."""
        config, train = self.config, self._splits.train
        textures = load_textures(config.data.texture_dir, config.data.image_size, train.images)
        size = config.train.batch_size
        order = BatchOrder(config.train.seed, train.class_ids, size, len(textures))
        return order, source_of(self.experiment, train, textures)

    def step_function(
        self, tx: optax.GradientTransformation, schedule: optax.Schedule, shardings: Any
    ) -> StepFunction:
        """See `run.Method`."""
        config, detector = self.config, self.experiment.detector
        return make_train_step(
            detector, tx, schedule, config.pseudo_anomaly, config.loss, self.mesh, shardings
        )

    def evaluate(self, state: TrainState) -> dict:
        """See `run.Method`."""
        calibration = calibrate_state(self.experiment, self._maker, state, self._splits)
        return evaluate_state(self.experiment, self._maker, state, self._splits, calibration)

    def finish(self, state: TrainState, files: Workdir) -> dict:
        """See `run.Method`."""
        return finish(self.experiment, self._maker, state, self._splits, files, files)


def _describe(experiment: Experiment, maker: MapMaker, splits: Splits, files: Workdir) -> None:
    """Writes the bank and the manifest."""
    config, train = experiment.config, splits.train
    if not is_writer():
        return
    files.write_bank(train.class_names, maker.prompts, experiment.text)
    write_manifest(
        files.manifest,
        to_dict(config),
        config.train.seed,
        train.fingerprint,
        experiment.mesh,
        {
            "classes": list(train.class_names),
            "train_images": len(train.images),
            "held_out_images": len(splits.held.images),
            "test_images": len(splits.test.images),
            "test_fingerprint": splits.test.fingerprint,
        }
        | frozen_facts(config),
    )


def source_of(experiment: Experiment, train: ImageSet, textures: np.ndarray) -> Source:
    """Batches of the training images with their clean features, which are computed once."""
    config = experiment.config
    features = load_clean_features(
        f"{config.data.data_dir}/feature_cache",
        experiment.detector,
        experiment.frozen,
        train,
        config.train.fine_dtype,
        experiment.mesh,
    )
    arrays = TrainArrays(train.images, textures, train.class_ids, features)
    return make_source(arrays, experiment.mesh, config.train.resident)
