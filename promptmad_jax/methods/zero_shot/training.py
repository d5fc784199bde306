"""Training of zero-shot detectors; a run without anything to train is only evaluated."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from promptmad_jax.config import Config
from promptmad_jax.data.defect_types.images import DefectTypeExamples, take_examples
from promptmad_jax.data.pipeline import BatchOrder, make_source
from promptmad_jax.data.pipeline import Source as Batches
from promptmad_jax.methods.zero_shot.assembly import ZeroShotAssembly, assemble, clip_weights
from promptmad_jax.methods.zero_shot.images import (
    Source,
    load_target,
    read_source,
    source_cache,
    target_facts,
)
from promptmad_jax.methods.zero_shot.trained import TrainedZeroShot
from promptmad_jax.runs.frozen_weights import FrozenWeights
from promptmad_jax.runs.manifest import write_manifest
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.console import warn
from promptmad_jax.runtime.dataclass_parser import to_dict
from promptmad_jax.runtime.processes import is_writer
from promptmad_jax.training.optimizer import Optimizer
from promptmad_jax.training.state import Initializer, TrainState
from promptmad_jax.training.update import StepFunction
from promptmad_jax.training.zero_shot_features import load_image_states
from promptmad_jax.training.zero_shot_step import FrozenZeroShot, make_zero_shot_step

_NO_SOURCE = "none: nothing is trained"


class ZeroShotTraining:
    """A `Training` of DAPO or MultiADS on annotated defects of other products; none for CLIP."""

    def __init__(self, config: Config):
        self.config, self._target = config, load_target(config)
        self._source: Source | None = None
        self.fingerprint, self.num_images = _NO_SOURCE, 0
        if config.source.dataset:
            self._source = read_source(config)
            self.fingerprint = self._source.fingerprint
            self.num_images = len(self._source.data)

    @functools.cached_property
    def _assembly(self) -> ZeroShotAssembly:
        return assemble(self.config)

    @property
    def mesh(self) -> Mesh:
        return self._assembly.mesh

    @property
    def network(self) -> Initializer:
        return self._assembly.network

    @functools.cached_property
    def frozen(self) -> FrozenZeroShot:
        """CLIP and the trained words."""
        return self._assembly.frozen_inputs(self._source.words)

    @property
    def frozen_weights(self) -> FrozenWeights:
        return clip_weights(self.config)

    def describe(self, files: Workdir) -> None:
        """Writes the manifest, and warns that a test split is trained on."""
        if not is_writer():
            return
        extra = target_facts(self._target) | self.frozen_weights.facts()
        extra["compute_dtype"] = self._assembly.detector.config.dtype
        if self._source is not None:
            warn(self._source.fact["trained_on_test_split"]["warning"])
            extra |= self._source.fact | {"trained_words": list(self._source.words)}
        config = self.config
        write_manifest(
            files.manifest, to_dict(config), config.train.seed, self.fingerprint, self.mesh, extra
        )

    def batches(self) -> tuple[BatchOrder, Batches]:
        """See `Training`."""
        config, images = self.config, self._source.data.images
        caches = self._assembly.caches_images
        examples = DefectTypeExamples(
            None if caches else images.images,
            self._image_states() if caches else None,
            self._source.type_masks,
            np.asarray(images.labels).astype(bool),
        )
        order = BatchOrder(config.train.seed, images.class_ids, config.train.batch_size, 1)
        return order, make_source(examples, self.mesh, config.train.resident, take_examples)

    def step_function(self, optimizer: Optimizer, shardings: Any) -> StepFunction:
        """See `Training`."""
        config, detector = self.config, self._assembly.detector
        return make_zero_shot_step(
            detector, optimizer, config.type_loss, config.source.mosaic, self.mesh, shardings
        )

    def evaluate(self, state: TrainState) -> dict:
        """See `Training`."""
        return TrainedZeroShot(self._assembly, state.weights).evaluate(self._target)

    def finish(self, state: TrainState, files: Workdir) -> dict:
        """See `Training`."""
        return TrainedZeroShot(self._assembly, state.weights).finish(self._target, files, files)

    def _image_states(self) -> Any:
        config, assembly = self.config, self._assembly
        return load_image_states(
            Path(source_cache(config)) / "feature_cache",
            assembly.detector,
            assembly.frozen,
            self._source.data.images,
            config.train.fine_dtype,
            self.mesh,
        )
